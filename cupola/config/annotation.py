"""Values against the annotations of their fields: check, and read names as what the field holds.

Invariant: what `conform` returns is of the annotated type, and conforming it again changes nothing.
"""

import collections.abc
import enum
import functools
import types
import typing
from typing import Any

from cupola.config import kinds
from cupola.config.errors import ConfigError
from cupola.config.reference import name_of
from cupola.config.suggest import did_you_mean
from cupola.config.value import Value

SIMPLE = {int: "8", float: "0.5", bool: "True or False", str: "'a text'", bytes: "b'ab'", types.NoneType: "None"}
"""Types of one plain literal, each with an example of it."""


class Word(str):
    """A name without quotes in a text: what it stands for depends on the field."""


@functools.cache
def hints(owner: Any) -> dict[str, Any]:
    """Returns the annotations of a dataclass's fields, names resolved."""
    return typing.get_type_hints(owner)


def conform(value: Any, annotation: Any) -> Any:
    """Returns the value as the annotated type has it.

    An int becomes a float where a float is due, and a text becomes the enum member of that name or
    the value of a registered kind; nothing else is converted (True is no int, 2.0 is no int).

    Raises:
        ConfigError: it is not of that type; the message names the type and shows an example.
    """
    annotation = _plain(annotation)
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in (Any, object):
        return _checked(value, not _holds_words(value), annotation)
    if origin in (typing.Union, types.UnionType):
        return _conform_union(value, annotation, args)
    if origin is typing.Literal:
        return _conform_literal(value, args)
    if origin is tuple or annotation is tuple:
        return _conform_tuple(value, annotation, args or (Any, ...))
    if origin is frozenset or annotation is frozenset:
        _checked(value, isinstance(value, frozenset), annotation)
        return frozenset(conform(v, args[0] if args else Any) for v in value)
    if origin is type or annotation is type:
        bound = _plain(args[0]) if args else Any
        is_one = isinstance(value, type) and (bound in (Any, object) or issubclass(value, bound))
        return _checked(value, is_one, annotation)
    if collections.abc.Callable in (origin, annotation):
        return _checked(value, callable(value), annotation)
    return _conform_plain(value, origin or annotation)


def _plain(annotation: Any) -> Any:
    """Takes an annotation's wrappers off: Annotated, NewType, type aliases, type variables."""
    if annotation is None:
        return types.NoneType
    if typing.get_origin(annotation) is typing.Annotated:
        return _plain(typing.get_args(annotation)[0])
    if isinstance(annotation, typing.NewType):
        return _plain(annotation.__supertype__)
    if isinstance(annotation, typing.TypeVar):
        return _plain(annotation.__bound__ or Any)
    if hasattr(annotation, "__value__"):
        return _plain(annotation.__value__)
    return annotation


def _holds_words(value: Any) -> bool:
    return isinstance(value, Word) or (isinstance(value, tuple | frozenset) and any(map(_holds_words, value)))


def _conform_plain(value: Any, kind: Any) -> Any:
    if kind is float and type(value) is int:
        return float(value)
    if kind in (int, float):
        return _checked(value, isinstance(value, kind) and not isinstance(value, bool), kind)
    if kind is str and isinstance(value, Word):
        return str(value)
    if not isinstance(kind, type) or isinstance(value, kind) or not isinstance(value, str):
        return _is_a(value, kind)
    if issubclass(kind, enum.Enum):
        if value not in kind.__members__:
            raise ConfigError(f"{value!r} is no {kind.__name__}", remedy=did_you_mean(value, kind.__members__))
        return kind.__members__[value]
    registered = kinds.of(kind)
    return registered.read(str(value)) if registered else _is_a(value, kind)


def _conform_union(value: Any, annotation: Any, options: tuple[Any, ...]) -> Any:
    if any(type(value) is _plain(option) for option in options):
        return value
    told = []
    for option in options:
        try:
            return conform(value, option)
        except ConfigError as error:
            told.append(error)
    is_or_none = len(options) == 2 and options[1] is types.NoneType and _plain(options[0]) not in SIMPLE
    raise told[0] if is_or_none else _refusal(value, annotation)


def _conform_literal(value: Any, options: tuple[Any, ...]) -> Any:
    for option in options:
        if option == value and (type(option) is type(value) or isinstance(value, Word)):
            return option
    raise ConfigError(
        f"{value!r} is none of the values that fit", remedy=did_you_mean(str(value), [str(o) for o in options])
    )


def _conform_tuple(value: Any, annotation: Any, items: tuple[Any, ...]) -> Any:
    _checked(value, type(value) is tuple, annotation)
    if items[-1] is Ellipsis:
        items = (items[0],) * len(value)
    if len(items) != len(value):
        raise ConfigError(f"{value!r} has {len(value)} items where {len(items)} are due", remedy=_example(annotation))
    conformed = []
    for i, (v, item) in enumerate(zip(value, items, strict=True)):
        try:
            conformed.append(conform(v, item))
        except ConfigError as error:
            raise error.under(str(i)) from None
    return tuple(conformed)


def _is_a(value: Any, kind: Any) -> Any:
    return _checked(value, isinstance(value, kind) and not isinstance(value, Word), kind)


def _checked(value: Any, fits: bool, annotation: Any) -> Any:
    if not fits:
        raise _refusal(value, annotation)
    return value


def _refusal(value: Any, annotation: Any) -> ConfigError:
    got = f"the bare word {value!r}" if isinstance(value, Word) else f"{value!r} ({type(value).__name__})"
    if isinstance(value, Word) and annotation in (Any, object):
        return ConfigError(
            f"{got} could mean anything here", remedy=f"Write {value!r} with its quotes, or module:name."
        )
    return ConfigError(f"expects {describe(annotation)}, but got {got}", remedy=_example(annotation, value))


def describe(annotation: Any) -> str:
    """Returns an annotation as a person would write it: "int | None", "tuple[str, ...]", "Optimizer"."""
    annotation = _plain(annotation)
    if annotation is types.NoneType:
        return "None"
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return " | ".join(describe(option) for option in typing.get_args(annotation))
    if isinstance(annotation, type) and typing.get_origin(annotation) is None:
        return annotation.__name__
    return str(annotation).replace("typing.", "").replace("collections.abc.", "")


def _example(annotation: Any, value: Any = None) -> str:
    annotation = _plain(annotation)
    if annotation is int and isinstance(value, float) and value.is_integer():
        return f"Write {int(value)}."
    is_value = isinstance(annotation, type) and issubclass(annotation, Value)
    if is_value and isinstance(value, Word) and (same := known(annotation, value)):
        return f"Write {same[0]}."
    example = _examples(annotation)
    return f"Write, for example, {' or '.join(example)}." if example else f"Give a {describe(annotation)}."


def _examples(annotation: Any) -> list[str]:
    """Texts that conform to an annotation, such as the known subclasses of a Value."""
    annotation = _plain(annotation)
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in SIMPLE:
        return [SIMPLE[annotation]]
    if origin in (typing.Union, types.UnionType):
        return [text for option in args for text in _examples(option)]
    if origin is tuple and args:
        items = [_examples(arg)[:1] for arg in (args[:1] * 2 if args[-1] is Ellipsis else args)]
        return [f"({', '.join(item[0] for item in items)})"] if all(items) else []
    if origin is type:
        return [f"type[{name}]" for name in _examples(args[0])]
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return list(annotation.__members__)
    if isinstance(annotation, type) and issubclass(annotation, Value):
        found = known(annotation)
        return [name for name in found if not name.endswith(f":{annotation.__qualname__}")][:4] or found
    if isinstance(annotation, type) and (kind := kinds.of(annotation)):
        return [f"{kind.name}({text!r})" for text in kind.examples[:2] or ("...",)]
    return []


def known(base: type[Value], name: str = "") -> list[str]:
    """Returns `module:Class` of every loaded class that may stand where `base` is due.

    Args:
        base: a kind of value.
        name: if given, only classes of this name.
    """
    found, rest = [], [base]
    while rest:
        cls = rest.pop(0)
        rest += cls.__subclasses__()
        try:
            found.append(name_of(cls))
        except ConfigError:
            continue  # a class inside a function cannot be written in a text
    return [full for full in found if not name or full.endswith(f":{name}")]
