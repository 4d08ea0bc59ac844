"""Frozen values: a value's fields are its whole configuration.

Not here: parameters and shapes (`core/module.py`), the text form (`text.py`).
Invariant: inside a complete container no bound field disagrees with the container that fills it.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, TypeVar, dataclass_transform

from cupola.config.errors import ConfigError, CupolaError, UnboundError
from cupola.config.suggest import did_you_mean

Same = TypeVar("Same", bound="Value")


class Unbound:
    """Stands in a bound field that no container has filled in; any use of it is an error."""

    def __init__(self, meaning: str):
        self.meaning, self.owner, self.name = meaning, "", ""

    def __set_name__(self, owner: type, name: str):
        self.owner, self.name = owner.__name__, name

    def __repr__(self) -> str:
        return f"<unbound {self.name}>"

    def _refuse(self, *_: object) -> Any:
        raise UnboundError(
            f"{self.name} ({self.meaning}) is used, but nothing has filled it in",
            where=self.owner,
            remedy=f"Put it inside a container that has {self.name}, or write {self.owner}({self.name}=...).",
        )

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _refuse
    __truediv__ = __rtruediv__ = __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = _refuse
    __pow__ = __rpow__ = __neg__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse
    __int__ = __float__ = __index__ = __bool__ = __iter__ = __len__ = __call__ = _refuse


def bound(meaning: str) -> Any:
    """Declares a field that the container fills in, such as a shared width."""
    return dataclasses.field(default=Unbound(meaning), metadata={"bound": meaning})


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(dataclasses.field,))
class Value:
    """A frozen, keyword-only dataclass that is compared, hashed, printed, diffed and replaced.

    Every subclass becomes such a dataclass by being written. A `bound` field left out takes the
    value of the field of that name in the nearest container that has one.

    Example:
        class Inner(Value):
            width: int = bound("residual width")

        class Outer(Value):
            width: int
            inner: Inner

        Outer(width=4, inner=Inner()).inner.width                  # 4
        Outer(width=4, inner=Inner()).replace("width", 8).inner.width   # 8
    """

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field]]

    shorthand: ClassVar[str] = ""
    """The field that plain text stands for where an override gives text in place of such a value; "": none."""

    def __init_subclass__(cls, **options: Any):
        super().__init_subclass__(**options)
        dataclasses.dataclass(frozen=True, kw_only=True)(cls)

    def __post_init__(self):
        if _is_whole(self):
            self.check()  # before the children's: what they are given may follow from what is wrong here
        for name, child in _rebuilt(self, lambda c: c._bind(_given(self))):
            object.__setattr__(self, name, child)

    def check(self) -> None:
        """Raises a CupolaError when the fields disagree; runs once every bound field is filled in, before the children's."""

    def shares(self) -> dict[str, Any]:
        """Returns what the bound fields inside are filled in from: this value's own fields, by name.

        A container that gives its children another width than its own overrides this.
        """
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

    def children(self) -> Iterator[tuple[str, "Value"]]:
        """Yields (path, value) for each value held in a field or in a tuple in a field."""
        for field in dataclasses.fields(self):
            held = getattr(self, field.name)
            if isinstance(held, Value):
                yield field.name, held
            elif isinstance(held, tuple):
                yield from ((f"{field.name}.{i}", v) for i, v in enumerate(held) if isinstance(v, Value))

    def walk(self, path: str = "") -> Iterator[tuple[str, "Value"]]:
        """Yields (path, value) for this value and everything inside it, outermost first."""
        yield path, self
        for name, child in self.children():
            yield from child.walk(f"{path}.{name}" if path else name)

    def get(self, path: str) -> Any:
        """Returns what stands at `path`, such as "stack.block.attention".

        Raises:
            ConfigError: no such field; the message names the nearest one.
        """
        held: Any = self
        for i, name in enumerate(names := path.split(".")):
            held = step(held, name, ".".join(names[:i]))
        return held

    def replace(self: Same, path: str, value: Any) -> Same:
        """Returns a copy with the leaf or value at `path` replaced; bound fields follow.

        Raises:
            ConfigError: no such field, or a bound field whose container says otherwise.
        """
        self.get(path)
        return _set(self.released(), path.split("."), value)

    def swap(self: Same, target: type["Value"], make: "Callable[[Any], Value] | Value") -> Same:
        """Returns a copy in which each `target`, outermost first, is replaced by `make(it)`.

        What `make` returns is not searched again, so it may hold the value that it replaces.

        Raises:
            ConfigError: there is no `target` in it.
        """
        make_one = (lambda _: make) if isinstance(make, Value) else make
        if not any(isinstance(v, target) for _, v in self.walk()):
            kinds = ", ".join(sorted({type(v).__name__ for _, v in self.walk()}))
            raise ConfigError(
                f"there is no {target.__name__} to swap", where=type(self).__name__, remedy=f"It holds: {kinds}."
            )
        return _swap(self, self.released(), target, make_one)

    def released(self: Same) -> Same:
        """Returns a copy in which every field that a container fills in is unbound again."""
        changes = dict(_rebuilt(self, lambda c: c._release(_given(self))))
        return _raw(self, changes)

    def _bind(self, scope: dict[str, Any]) -> "Value":
        own = {}
        for field in _bound_fields(self):
            if field.name not in scope:
                continue
            now, given = getattr(self, field.name), scope[field.name]
            if isinstance(now, Unbound):
                own[field.name] = given
            elif now != given:
                raise ConfigError(
                    f"{field.name}={now!r}, but the container around it has {field.name}={given!r}",
                    remedy=f"Leave {field.name} out here: the container fills it in. To change it, set the container's.",
                )
        filled = _raw(self, own)
        if _is_whole(filled):
            filled.check()
        inner = scope | _given(filled)
        changes = own | dict(_rebuilt(self, lambda c: c._bind(inner)))
        return _made(self, changes) if changes else self

    def _release(self, scope: dict[str, Any]) -> "Value":
        own = {f.name: f.default for f in _bound_fields(self) if f.name in scope}
        inner = scope | _given(self)
        return _raw(self, own | dict(_rebuilt(self, lambda c: c._release(inner))))


def _bound_fields(value: Value) -> list[dataclasses.Field]:
    return [f for f in dataclasses.fields(value) if "bound" in f.metadata]


def _is_whole(value: Value) -> bool:
    return not any(isinstance(getattr(value, f.name), Unbound) for f in dataclasses.fields(value))


def _given(value: Value) -> dict[str, Any]:
    """What a value gives to its children: nothing until it is whole, for `shares` may compute with any field."""
    return value.shares() if _is_whole(value) else {}


def _rebuilt(value: Value, change: Callable[[Value], Value]) -> Iterator[tuple[str, Any]]:
    """Yields (field, new) where `change` gave another object for a value held in that field."""
    for field in dataclasses.fields(value):
        held = getattr(value, field.name)
        try:
            if isinstance(held, Value):
                new: Any = change(held)
            elif isinstance(held, tuple) and any(isinstance(v, Value) for v in held):
                new = tuple(_changed_item(i, v, change) for i, v in enumerate(held))
                new = held if all(a is b for a, b in zip(new, held, strict=True)) else new
            else:
                continue
        except CupolaError as error:
            raise error.under(field.name) from None
        if new is not held:
            yield field.name, new


def _changed_item(index: int, item: Any, change: Callable[[Value], Value]) -> Any:
    try:
        return change(item) if isinstance(item, Value) else item
    except CupolaError as error:
        raise error.under(str(index)) from None


def _raw(value: Any, changes: dict[str, Any]) -> Any:
    """A copy with fields changed and nothing bound or checked: a step on the way to a whole value."""
    if not changes:
        return value
    copy = object.__new__(type(value))
    for field in dataclasses.fields(value):
        object.__setattr__(copy, field.name, changes.get(field.name, getattr(value, field.name)))
    return copy


def _made(value: Any, changes: dict[str, Any]) -> Any:
    """A copy with fields changed, bound and checked; unlike in a call, a field may stay unbound."""
    copy = _raw(value, dict(changes))
    copy.__post_init__()
    return copy


def step(held: Any, name: str, where: str) -> Any:
    """Returns what a value or a tuple, itself found at `where`, holds under one name of a path.

    Raises:
        ConfigError: it holds nothing of that name; the message names the nearest one.
    """
    if isinstance(held, Value):
        known = [f.name for f in dataclasses.fields(held)]
        if name in known:
            return getattr(held, name)
        raise ConfigError(f"{type(held).__name__} has no field {name!r}", where=where, remedy=did_you_mean(name, known))
    if isinstance(held, tuple):
        if name.isdigit() and int(name) < len(held):
            return held[int(name)]
        raise ConfigError(f"there is no item {name!r} in a tuple of {len(held)}", where=where, remedy="Count from 0.")
    raise ConfigError(f"{held!r} is a leaf: it has no field {name!r}", where=where, remedy="Name the leaf itself.")


def _set(held: Any, names: list[str], value: Any) -> Any:
    if not names:
        return value.released() if isinstance(value, Value) else value
    inner = _set(step(held, names[0], ""), names[1:], value)
    if isinstance(held, tuple):
        return (*held[: int(names[0])], inner, *held[int(names[0]) + 1 :])
    return _made(held, {names[0]: inner})


def _swap(seen: Any, held: Any, target: type[Value], make: Callable[[Any], Value]) -> Any:
    """Rebuilds `held` (released) while showing `make` the complete values of `seen`."""
    if isinstance(seen, target):
        return make(seen)
    if isinstance(held, tuple):
        return tuple(_swap(s, h, target, make) for s, h in zip(seen, held, strict=True))
    if not isinstance(held, Value):
        return held
    pairs = {f.name: (getattr(seen, f.name), getattr(held, f.name)) for f in dataclasses.fields(held)}
    return _made(held, {name: _swap(s, h, target, make) for name, (s, h) in pairs.items()})
