"""The text of an expression as a checked tree, by Google's CEL library.

Not here: what the tree means (`closures.py`). The library parses and checks types but cannot answer from a part of
the parameters; it does give its checked tree as a protobuf message, which is read here.
Invariant: a tree that leaves here has types that fit, and is at most about 32 levels deep, the library's limit.
Source: github.com/google/cel-spec, proto/cel/expr/{syntax,checked}.proto, whose field numbers stand below.
"""

import dataclasses
import re
import struct
from collections.abc import Iterator, Mapping
from typing import Any

from cel_expr_python import cel

from cupola.access.caveat.types import ParameterType
from cupola.access.caveat.values import Uint
from cupola.access.schema.model import Language

_ERROR = re.compile(r"ERROR: <input>:(-?\d+):(-?\d+): (.*)")
_IP = cel.Type.AbstractType("IPAddress", [])
_ANY_MAP = cel.Type.Map(cel.Type.STRING, cel.Type.DYN)
_TYPES = {
    "any": cel.Type.DYN,
    "bool": cel.Type.BOOL,
    "string": cel.Type.STRING,
    "int": cel.Type.INT,
    "uint": cel.Type.UINT,
    "double": cel.Type.DOUBLE,
    "bytes": cel.Type.BYTES,
    "duration": cel.Type.DURATION,
    "timestamp": cel.Type.TIMESTAMP,
    "ipaddress": _IP,
}
_IN_NETWORK = cel.FunctionDecl("in_cidr", [cel.Overload("in_cidr", cel.Type.BOOL, [_IP, cel.Type.STRING], True)])
_SUBTREE = cel.FunctionDecl("isSubtreeOf", [cel.Overload("is_subtree_of", cel.Type.BOOL, [_ANY_MAP, _ANY_MAP], True)])
_ADDRESS = cel.FunctionDecl("ipaddress", [cel.Overload("string_to_ipaddress", _IP, [cel.Type.STRING], False)])
_FUNCTIONS = {Language.ZED: [_IN_NETWORK, _SUBTREE], Language.FGA: [_IN_NETWORK, _ADDRESS]}
_PRIMITIVES = ("", "bool", "int", "uint", "double", "string", "bytes")
_WELL_KNOWN = ("", "any", "timestamp", "duration")


class SyntaxProblem(ValueError):
    """An expression that cannot be.

    Args:
        line: within the expression, from 1; 0 where it is about no line.
        column: likewise.
    """

    def __init__(self, problem: str, line: int = 0, column: int = 0):
        super().__init__(problem)
        self.problem, self.line, self.column = problem, line, column


@dataclasses.dataclass(frozen=True, slots=True)
class Literal:
    """A value that stands in the text."""

    value: Any
    kind: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Name:
    """A parameter, a macro's variable or a type. `kind` here and below: the type, "" where it is of no one scalar."""

    name: str
    kind: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Field:
    """`operand.name`, or whether there is one."""

    operand: "Tree"
    name: str
    test_only: bool
    kind: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """An operator or a function; a method's target is its first argument."""

    function: str
    arguments: tuple["Tree", ...]
    kind: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class ListOf:
    """`[x, y]`."""

    elements: tuple["Tree", ...]
    kind: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class MapOf:
    """`{key: value}`."""

    entries: tuple[tuple["Tree", "Tree"], ...]
    kind: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Fold:
    """What a macro such as `all` or `map` stands for: a loop over `source` that changes an accumulator."""

    variable: str
    source: "Tree"
    accumulator: str
    start: "Tree"
    condition: "Tree"
    step: "Tree"
    result: "Tree"
    kind: str = ""


Tree = Literal | Name | Field | Call | ListOf | MapOf | Fold


def parse_expression(text: str, parameters: Mapping[str, ParameterType], language: Language) -> Tree:
    """Returns the checked tree of an expression whose value is a bool.

    Raises:
        SyntaxProblem: it cannot be read, names what is not there, or has types that do not fit.
    """
    try:
        variables = {name: _library_type(type, language) for name, type in parameters.items()}
        environment = cel.NewEnv(variables=variables, functions=_FUNCTIONS[language])
        checked = environment.compile(text)
    except (RuntimeError, TypeError, UnicodeError) as error:
        raise _problem(str(error)) from error
    if checked.return_type() != cel.Type.BOOL:
        raise SyntaxProblem(f"it gives a value of type {checked.return_type().name().lower()} and must give a bool")
    wrapped = dict(_fields(checked.serialize()))
    return _Reader(wrapped[2]).tree()


def names_in(tree: Tree) -> Iterator[str]:
    """Yields the name of each parameter that an expression mentions, and of macros' variables."""
    if isinstance(tree, Name):
        yield tree.name
    for child in _children(tree):
        yield from names_in(child)


def _children(tree: Tree) -> tuple[Tree, ...]:
    match tree:
        case Field(operand=operand):
            return (operand,)
        case Call(arguments=arguments):
            return arguments
        case ListOf(elements=elements):
            return elements
        case MapOf(entries=entries):
            return tuple(part for entry in entries for part in entry)
        case Fold():
            return (tree.source, tree.start, tree.condition, tree.step, tree.result)
        case _:
            return ()


def _library_type(type: ParameterType, language: Language) -> cel.Type:
    if type.of is not None:
        inner = _library_type(type.of, language)
        return cel.Type.List(inner) if type.name == "list" else cel.Type.Map(cel.Type.STRING, inner)
    # SpiceDB checks a uint as an int, so that `count < 5` needs no 5u; its value is a uint nevertheless.
    return cel.Type.INT if type.name == "uint" and language is Language.ZED else _TYPES[type.name]


def _problem(message: str) -> SyntaxProblem:
    found = _ERROR.search(message)
    if found and "recursion" not in message:
        line, column = max(int(found[1]), 0), max(int(found[2]), 0)
        return SyntaxProblem(found[3].removesuffix(" (in container '')").partition(" [")[0], line, column)
    if "recursion" in message:
        return SyntaxProblem("it is nested too deeply, or has too many operators in a row: at most about 32")
    first = message.partition("\n")[0].partition(" [")[0]
    return SyntaxProblem(first.removeprefix("INVALID_ARGUMENT: ").removeprefix("CANCELLED: ")[:200])


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Yields (field number, value) of a protobuf message: an int, eight bytes or a run of bytes."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        match tag & 7:
            case 0:
                value, at = _varint(data, at)
                yield tag >> 3, value
            case 1:
                yield tag >> 3, data[at : at + 8]
                at += 8
            case _:
                length, at = _varint(data, at)
                yield tag >> 3, data[at : at + length]
                at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value, shift = 0, 0
    while True:
        byte = data[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at


class _Reader:
    """Reads a CheckedExpr message."""

    def __init__(self, data: bytes):
        self._root = b""
        self._kinds: dict[int, str] = {}
        self._names: dict[int, str] = {}
        for number, value in _fields(data):
            if number == 4:
                self._root = value
            elif number == 2:
                entry = dict(_fields(value))
                reference = dict(_fields(entry.get(2, b"")))
                if 1 in reference and 3 not in reference:
                    self._names[entry.get(1, 0)] = reference[1].decode()
            elif number == 3:
                entry = dict(_fields(value))
                self._kinds[entry.get(1, 0)] = _kind(entry.get(2, b""))

    def tree(self) -> Tree:
        return self._expression(self._root)

    def _expression(self, data: bytes) -> Tree:
        parts = dict(_fields(data))
        identity = parts.pop(2, 0)
        kind = self._kinds.get(identity, "")
        (number, body) = next(iter(parts.items()))
        match number:
            case 3:
                return Literal(_constant(body), kind)
            case 4 | 5 if identity in self._names:
                return Name(self._names[identity], kind)
            case 4:
                return Name(dict(_fields(body))[1].decode(), kind)
            case 5:
                select = dict(_fields(body))
                return Field(self._expression(select[1]), select[2].decode(), bool(select.get(3)), kind)
            case 6:
                return self._call(body, kind)
            case 7:
                return ListOf(tuple(self._expression(value) for number, value in _fields(body) if number == 1), kind)
            case 8:
                return self._map(body, kind)
            case _:
                return self._fold(body, kind)

    def _call(self, data: bytes, kind: str) -> Tree:
        target: tuple[Tree, ...] = ()
        function, arguments = "", []
        for number, value in _fields(data):
            if number == 1:
                target = (self._expression(value),)
            elif number == 2:
                function = value.decode()
            else:
                arguments.append(self._expression(value))
        return Call(function, (*target, *arguments), kind)

    def _map(self, data: bytes, kind: str) -> Tree:
        entries = []
        for number, value in _fields(data):
            entry = dict(_fields(value)) if number == 2 else {}
            if 3 not in entry:
                raise SyntaxProblem("messages cannot be made here; a map's keys are values, such as {'a': 1}")
            entries.append((self._expression(entry[3]), self._expression(entry[4])))
        return MapOf(tuple(entries), kind)

    def _fold(self, data: bytes, kind: str) -> Tree:
        parts = dict(_fields(data))
        source, start, condition, step, result = (self._expression(parts[number]) for number in (2, 4, 5, 6, 7))
        return Fold(parts[1].decode(), source, parts[3].decode(), start, condition, step, result, kind)


def _constant(data: bytes) -> Any:
    ((number, value),) = _fields(data)
    match number:
        case 1:
            return None
        case 2:
            return bool(value)
        case 3:
            return value - (1 << 64) if value >> 63 else value
        case 4:
            return Uint(value)
        case 5:
            return struct.unpack("<d", value)[0]
        case 6:
            return value.decode()
        case _:
            return value


def _kind(data: bytes) -> str:
    """Returns the name of a scalar type; "" of any other."""
    for number, value in _fields(data):
        if number == 3:
            return _PRIMITIVES[value]
        if number == 5:
            return _WELL_KNOWN[value]
    return ""
