"""Leaves: the text of one value on one line, and the value of one text.

    512   3e-4   inf   True   None   'a text'   b'bytes'   (1, 2)   {1, 2}   dtype('bfloat16')
    cupola.layers.gate:Activation.SILU          an enum member or a function
    type[cupola.layers.norm:RMSNorm]            a class itself
    cupola.optim.optimizer:Muon(rate=0.02)      a value, or any frozen dataclass, with its fields

Not here: values spread over several lines (`text.py`). Invariant: nothing is evaluated; reading
makes constants, names things of allowed modules, and constructs frozen dataclasses.
"""

import ast
import dataclasses
import enum
import re
from typing import Any

from cupola.config import kinds
from cupola.config.annotation import Word, conform, hints, known
from cupola.config.errors import ConfigError
from cupola.config.reference import PATTERN, find, name_of
from cupola.config.suggest import did_you_mean
from cupola.config.value import Unbound, Value

_NUMBER = r"[-+]?(?:inf|nan|(?:\d[\d_]*\.?[\d_]*|\.\d+)(?:[eE][-+]?\d+)?)(?![\w.:])"
_STRING = r"""[bB]?(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_TOKEN = re.compile(
    rf"\s*(?:(?P<string>{_STRING})|(?P<number>{_NUMBER})|(?P<name>{PATTERN})|(?P<word>[^\W\d]\w*)|(?P<mark>[][(){{}},=]))"
)
_CONSTANTS = {"None": None, "True": True, "False": False}
_INSTEAD: dict[type, str] = {list: "Use a tuple.", dict: "Use a tuple of pairs.", set: "Use a frozenset."}


def write(value: Any) -> str:
    """Returns the one-line text of a leaf.

    Raises:
        ConfigError: it is of a kind that no text can rebuild.
    """
    if value is None or type(value) in (bool, int, float, str, bytes):
        return repr(value)
    if isinstance(value, enum.Enum):
        return name_of(value)
    if type(value) is tuple:
        return f"({', '.join(map(write, value))}{',' * (len(value) == 1)})"
    if type(value) is frozenset:
        return f"{{{', '.join(sorted(map(write, value)))}}}"
    if (kind := kinds.of(type(value))) is not None:
        return f"{kind.name}({kind.encode(value)!r})"
    if isinstance(value, type):
        return f"type[{name_of(value)}]"
    if is_frozen(type(value)):
        return f"{name_of(type(value))}({', '.join(f'{n}={write(v)}' for n, v in fields_of(value))})"
    if callable(value) and hasattr(value, "__qualname__"):
        return name_of(value)
    raise ConfigError(
        f"{value!r} ({type(value).__name__}) has no text that rebuilds it",
        remedy=_INSTEAD.get(type(value), "Use a Value, a plain constant or something defined at module level."),
    )


def is_frozen(cls: type) -> bool:
    """Whether a class is a frozen dataclass, as every Value is."""
    return dataclasses.is_dataclass(cls) and cls.__dataclass_params__.frozen  # type: ignore[attr-defined]


def fields_of(value: Any) -> list[tuple[str, Any]]:
    """Returns (name, held) for each field that a text must give, held as the field's type has it.

    Raises:
        ConfigError: a field holds what its type does not allow.
    """
    pairs = []
    for field in dataclasses.fields(value):
        held = getattr(value, field.name)
        if field.init and not isinstance(held, Unbound):
            pairs.append((field.name, _conformed(held, type(value), field.name)))
    return pairs


def _conformed(held: Any, owner: type, name: str) -> Any:
    """Returns what `held` is in the field `name` of `owner`, the error naming the field."""
    try:
        return conform(held, hints(owner)[name])
    except ConfigError as error:
        raise error.under(name) from None


def construct(cls: type, given: dict[str, Any]) -> Any:
    """Returns the frozen dataclass with these fields, each as its type has it.

    Raises:
        ConfigError: an unknown, a missing or a wrong field.
    """
    if not is_frozen(cls):
        raise ConfigError(f"{cls.__name__} is no value", remedy=f"For the class itself write type[{name_of(cls)}].")
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    for name in given:
        if name not in fields:
            problem = f"{cls.__name__} has no field {name!r}"
            raise ConfigError(problem, where=name, remedy=did_you_mean(name, fields))
    none = dataclasses.MISSING
    missing = [n for n, f in fields.items() if n not in given and f.default is none and f.default_factory is none]
    if missing:
        raise ConfigError(f"{cls.__name__} needs {', '.join(missing)}", remedy=f"Add {missing[0]} = ... to it.")
    return cls(**{name: _conformed(v, cls, name) for name, v in given.items()})


def read(text: str, allow: tuple[str, ...] = ()) -> Any:
    """Returns the value of one leaf's text; a name without quotes comes back as a `Word`.

    Args:
        text: such as "(1, 2)" or "cupola.optim.optimizer:Muon(rate=0.02)".
        allow: packages that may be imported for the names in it.

    Raises:
        ConfigError: it is no leaf, or it names what is not there.
    """
    reader = _Reader(text, allow)
    value = reader.value()
    if reader.rest():
        raise reader.refusal("the end")
    return value


class _Reader:
    """Reads one text from left to right, one token at a time."""

    def __init__(self, text: str, allow: tuple[str, ...]):
        self.text, self.allow, self.at = text, allow, 0

    def rest(self) -> str:
        return self.text[self.at :].strip()

    def refusal(self, due: str) -> ConfigError:
        rest = self.rest()
        return ConfigError(
            f"{self.text!r} cannot be read: {due} is due {f'at {rest!r}' if rest else 'after it'}",
            remedy="Write a number, a quoted text, None, True, (1, 2), module:name or module:Class(field=...).",
        )

    def take(self, *marks: str) -> str:
        """Takes one of these marks if it comes next, else nothing."""
        token = _TOKEN.match(self.text, self.at)
        if token is None or token["mark"] not in marks:
            return ""
        self.at = token.end()
        return token["mark"]

    def need(self, *marks: str) -> str:
        taken = self.take(*marks)
        if not taken:
            raise self.refusal(" or ".join(map(repr, marks)))
        return taken

    def value(self) -> Any:
        token = _TOKEN.match(self.text, self.at)
        if token is None or token["mark"] not in (None, "(", "{"):
            raise self.refusal("a value")
        self.at = token.end()
        found = token[token.lastgroup or 0]
        match token.lastgroup:
            case "string":
                return self.string(found)
            case "number":
                return int(found) if re.fullmatch(r"[-+]?[\d_]+", found) else float(found)
            case "name":
                return self.named(find(found, self.allow))
            case "word":
                return self.word(found)
        return tuple(self.items(")")) if found == "(" else self.frozenset()

    def string(self, found: str) -> Any:
        try:
            return ast.literal_eval(found)
        except (SyntaxError, ValueError) as error:
            raise ConfigError(f"{found} is no text: {error}", remedy="Write \\\\ for a backslash.") from None

    def frozenset(self) -> Any:
        items = self.items("}")
        try:
            return frozenset(items)
        except TypeError as error:
            raise ConfigError(f"{self.text!r}: {error}", remedy="Items of a set are constants and values.") from None

    def items(self, end: str) -> list[Any]:
        """Reads items up to `end`; one item in round brackets needs its comma, as in Python."""
        items: list[Any] = []
        while not self.take(end):
            items.append(self.value())
            if self.need(",", end) == end:
                if end == ")" and len(items) == 1:
                    raise ConfigError(f"{self.text!r} is no tuple", remedy=f"Write {self.text[: self.at - 1]},).")
                break
        return items

    def named(self, thing: Any) -> Any:
        """A function or an enum member is itself; a class is constructed, with fields or without."""
        if not isinstance(thing, type):
            return thing
        given: dict[str, Any] = {}
        if self.take("("):
            while not self.take(")"):
                token = _TOKEN.match(self.text, self.at)
                if token is None or token["word"] is None:
                    raise self.refusal("field=...")
                self.at = token.end()
                self.need("=")
                given[token["word"]] = self.value()
                if self.need(",", ")") == ")":
                    break
        return construct(thing, given)

    def word(self, found: str) -> Any:
        if found in _CONSTANTS:
            return _CONSTANTS[found]
        if found == "type" and self.take("["):
            token = _TOKEN.match(self.text, self.at)
            cls = find(token["name"], self.allow) if token is not None and token["name"] else None
            if token is None or not isinstance(cls, type):
                raise self.refusal("module:Class")
            self.at = token.end()
            self.need("]")
            return cls
        if self.take("("):
            return self.kind(found)
        return Word(found)

    def kind(self, name: str) -> Any:
        kind = kinds.named(name)
        if kind is None:
            same = known(Value, name)
            remedy = f"Write {same[0]}(...)." if same else did_you_mean(name, kinds.names())
            raise ConfigError(f"{name!r} is no kind of leaf", remedy=remedy)
        text = self.value()
        self.need(")")
        if not isinstance(text, str):
            raise ConfigError(f"{name}(...) takes one quoted text, not {text!r}", remedy=f"Write {name}('...').")
        return kind.read(str(text))
