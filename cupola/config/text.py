"""The text of a value, one leaf per line, and the value of a text.

    . = cupola.models.decoder:Decoder
    width = 512
    stack = cupola.layers.repeat:Repeat
    stack.layers = 6
    data.parts.0 = cupola.data.source:Folder

Every field is printed, defaults included, but for those that a container fills in. Not here: how
one leaf is written (`leaf.py`). Invariant: parse(show(value)) == value, and it prints the same.
"""

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

from cupola.config.annotation import conform
from cupola.config.errors import ConfigError, CupolaError
from cupola.config.leaf import construct, fields_of, read, write
from cupola.config.reference import PATTERN, find, name_of
from cupola.config.value import Value

_LINE = re.compile(r"(?P<path>\.|[^\s.=]+(?:\.[^\s.=]+)*) = (?P<text>.*)")


def show(value: Any) -> str:
    """Returns the text of a value or of a tuple of values, without a last newline.

    Raises:
        ConfigError: a leaf that no text can rebuild, or that its field's type does not allow.
    """
    return "\n".join(f"{path} = {text}" for path, text in lines(value).items())


def lines(value: Any) -> dict[str, str]:
    """Returns {path: text of the leaf or name of the class}, in the order of the text."""
    return dict(_lines("", _released(value)))


def _released(value: Any) -> Any:
    if isinstance(value, Value):
        return value.released()
    return tuple(_released(v) for v in value) if _holds_values(value) else value


def _holds_values(held: Any) -> bool:
    return type(held) is tuple and any(isinstance(v, Value) or _holds_values(v) for v in held)


def _lines(path: str, held: Any) -> Iterator[tuple[str, str]]:
    inner: list[tuple[str, Any]] = []
    try:
        if isinstance(held, Value):
            yield path or ".", name_of(type(held))
            inner = fields_of(held)
        elif _holds_values(held):
            inner = [(str(i), v) for i, v in enumerate(held)]
        else:
            yield path or ".", write(held)
    except CupolaError as error:
        raise (error.under(path) if path else error) from None
    for name, child in inner:
        yield from _lines(f"{path}.{name}" if path else name, child)


@dataclasses.dataclass
class _Node:
    """What the lines say of one path: its own text, if any, and what is inside it."""

    path: str
    number: int
    text: str | None = None
    inner: dict[str, "_Node"] = dataclasses.field(default_factory=dict)

    def at(self, where: str) -> "_Node":
        """Returns the innermost node on the way to `where`."""
        name, _, rest = where.partition(".")
        return self.inner[name].at(rest) if name in self.inner else self

    def refuse(self, error: CupolaError) -> CupolaError:
        """Returns the error with the line and the whole path of what is at fault."""
        where = ".".join(part for part in (self.path, error.where) if part)
        return type(error)(
            error.problem, where=f"line {self.at(error.where).number}, {where or '.'}", remedy=error.remedy
        )


def parse(text: str, *, allow: tuple[str, ...] = ()) -> Any:
    """Returns the value that `show` printed as this text; empty lines and lines from # on are left out.

    Args:
        text: one `path = leaf` per line.
        allow: packages that may be imported for the names in it, beside this one and what is
            already imported.

    Raises:
        ConfigError: a line that cannot be read, an unknown or missing field, a wrong type; the message
            names the line. What the values themselves check is raised as they raise it.
    """
    return conform(_build(_tree(text), allow), Any)


def _tree(text: str) -> _Node:
    root = _Node("", 1)
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = _LINE.fullmatch(line.strip())
        if found is None:
            raise ConfigError(f"{line!r} is no leaf", where=f"line {number}", remedy="Write path = value.")
        node = root
        for name in [] if found["path"] == "." else found["path"].split("."):
            node = node.inner.setdefault(name, _Node(f"{node.path}.{name}" if node.path else name, number))
        if node.text is not None:
            raise ConfigError(
                f"{found['path']} stands on line {node.number} already", where=f"line {number}", remedy="Remove one."
            )
        node.text, node.number = found["text"], number
    return root


def _build(node: _Node, allow: tuple[str, ...]) -> Any:
    if node.text is None:
        return _build_tuple(node, allow)
    try:
        named = find(node.text, allow) if re.fullmatch(PATTERN, node.text) else None
        if not isinstance(named, type):
            value = read(node.text, allow) if named is None else named
            if node.inner:
                name, inner = next(iter(node.inner.items()))
                raise ConfigError(
                    f"{node.text} is a leaf, but line {inner.number} gives it a field {name!r}",
                    remedy=f"Remove line {inner.number}, or make this line {node.path or '.'} = module:Class.",
                )
            return value
    except CupolaError as error:
        raise node.refuse(error) from None
    given = {name: _build(inner, allow) for name, inner in node.inner.items()}
    try:
        return construct(named, given)
    except CupolaError as error:
        raise node.refuse(error) from None


def _build_tuple(node: _Node, allow: tuple[str, ...]) -> tuple[Any, ...]:
    if not node.inner or set(node.inner) != {str(i) for i in range(len(node.inner))}:
        problem = "no line says of which class it is" if node.inner else "there is nothing to read"
        error = ConfigError(problem, remedy=f"Add the line {node.path or '.'} = module:Class.")
        raise node.refuse(error)
    return tuple(_build(node.inner[str(i)], allow) for i in range(len(node.inner)))
