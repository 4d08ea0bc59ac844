"""Overrides from the shell: `path=value` on any value, each read by the type of its field.

Invariant: all overrides are applied before anything is checked, so that fields that must agree can
be changed together.
"""

import dataclasses
import re
import typing
from collections.abc import Sequence
from typing import Any

from cupola.config.annotation import conform, hints
from cupola.config.errors import ConfigError, CupolaError
from cupola.config.leaf import construct, fields_of, read
from cupola.config.reference import PATTERN
from cupola.config.value import Unbound, Value, step

_KEEP = object()


@dataclasses.dataclass
class _Edit:
    """What becomes of one path: a new value, or the old one, and then edits inside it."""

    new: Any = _KEEP
    inner: dict[str, "_Edit"] = dataclasses.field(default_factory=dict)


def override(value: Value, edits: Sequence[str], *, allow: tuple[str, ...] = ()) -> Any:
    """Returns a copy with each `path=value` applied, in order, and then checked as a whole.

    The right side is what the text form has, read by the field's type: an enum member, a number
    format or a text needs no quotes and no module. Text where a value stands that has a shorthand is
    given to that field of it: data=speech is data.path=speech.

    Args:
        value: what to change.
        edits: such as "model.width=512" or "optimizer=cupola.optim.optimizer:Muon(rate=0.02)".
        allow: packages that may be imported for the names in them.

    Raises:
        ConfigError: no such path, a wrong type, or a field that a container fills in; the message says
            what to type instead. What the values check is raised as they raise it.
    """
    if not edits:
        return value
    root, seen = _Edit(), value.released()
    for edit in edits:
        path, equals, text = (part.strip() for part in edit.partition("="))
        if not path or not equals:
            raise ConfigError(f"{edit!r} changes nothing", where="override", remedy="Write path=value.")
        node, annotation, held = _reach(root, seen, path)
        if (field := _shorthand(held, text)) is not None:
            path = f"{path}.{field}"
            node, annotation, _ = _reach(root, seen, path)
        try:
            node.new, node.inner = _released(_read(text, annotation, allow)), {}
        except CupolaError as error:
            raise error.under(path) from None
    return _apply(seen, root)


def _shorthand(held: Any, text: str) -> str | None:
    """The field of a value that text stands for; None where it has none, or the text names another value."""
    field = type(held).shorthand if isinstance(held, Value) else ""
    return None if not field or text == "None" or re.match(PATTERN, text) else field


def _reach(node: _Edit, held: Any, path: str) -> tuple[_Edit, Any, Any]:
    """Walks to the edit of `path` through what earlier edits put there; gives the annotation and what is held too."""
    annotation: Any = Any
    holders: list[tuple[str, Any]] = []
    names = path.split(".")
    for i, name in enumerate(names):
        holders.append((".".join(names[:i]), held))
        node = node.inner.setdefault(name, _Edit())
        annotation = _annotation(held, annotation, name)
        held = step(held, name, holders[-1][0]) if node.new is _KEEP else node.new
    if isinstance(held, Unbound):
        _refuse_bound(names[-1], path, holders)
    return node, annotation, held


def _refuse_bound(name: str, path: str, holders: list[tuple[str, Any]]) -> None:
    """Refuses a field that a container fills in; one that nothing fills in may be given."""
    for where, holder in reversed(holders[:-1]):
        if isinstance(holder, Value) and not isinstance(getattr(holder, name, Unbound("")), Unbound):
            source = f"{where}.{name}" if where else name
            raise ConfigError(
                f"{name} is filled in by the container, from {source}={getattr(holder, name)!r}",
                where=path,
                remedy=f"Set {source}=... instead.",
            )


def _annotation(held: Any, annotation: Any, name: str) -> Any:
    """The annotation of a field of a value, or of an item of a tuple, which may stand in a union."""
    if isinstance(held, Value):
        owner: type = type(held)
        return hints(owner).get(name, Any)
    for option in (annotation, *typing.get_args(annotation)):
        items = typing.get_args(option)
        if typing.get_origin(option) is tuple and items[1:] == (Ellipsis,):
            return items[0]
        if typing.get_origin(option) is tuple and name.isdigit() and int(name) < len(items):
            return items[int(name)]
    return Any


def _read(text: str, annotation: Any, allow: tuple[str, ...]) -> Any:
    """Reads a leaf; where that does not fit, the text itself may: a path, a name, a number as text."""
    try:
        return conform(read(text, allow), annotation)
    except ConfigError as error:
        if annotation is Any or text.startswith(("'", '"')):
            raise
        try:
            return conform(text, annotation)
        except ConfigError:
            raise error from None


def _released(value: Any) -> Any:
    return value.released() if isinstance(value, Value) else value


def _apply(held: Any, edit: _Edit) -> Any:
    """Constructs anew everything that an edit touches, from the inside out."""
    if edit.new is not _KEEP:
        held = edit.new
    if not edit.inner:
        return held
    given = {str(i): v for i, v in enumerate(held)} if isinstance(held, tuple) else dict(fields_of(held))
    for name, inner in edit.inner.items():
        try:
            given[name] = _apply(given.get(name), inner)
        except CupolaError as error:
            raise error.under(name) from None
    return tuple(given.values()) if isinstance(held, tuple) else construct(type(held), given)
