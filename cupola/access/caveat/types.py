"""Types of a condition's parameters, and how JSON becomes values of them.

Not here: what the expression does with the values. Nothing here needs a library of CEL, so that a relationship's
context is checked without one.
Invariant: a converted value is of exactly the Python type that `values.py` has for it; no number is rounded into
its type, and what does not fit is refused by the parameter's name.
"""

import base64
import dataclasses
import decimal
import functools
import ipaddress
import math
import re
import reprlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from cupola.access.caveat.times import read_duration, read_timestamp
from cupola.access.caveat.values import Uint
from cupola.access.errors import InvalidArgument, SchemaError
from cupola.access.schema.model import Caveat, Language

DEEPEST = 64
"""Lists and maps inside one another."""
_TYPE = re.compile(r"\s*(\w+)\s*(?:<(.*)>)?\s*", re.DOTALL)
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,4})?", re.ASCII)
_INT, _UINT = range(-(1 << 63), 1 << 63), range(1 << 64)


@dataclasses.dataclass(frozen=True)
class ParameterType:
    """The type of a parameter.

    Args:
        name: such as `int`, `list` or `ipaddress`.
        of: of a list's elements or a map's values.
    """

    name: str
    of: "ParameterType | None" = None

    def __str__(self) -> str:
        return self.name if self.of is None else f"{self.name}<{self.of}>"

    def convert(self, value: Any) -> Any:
        """Returns the value of JSON.

        Raises:
            ValueError: it is of another type; its text says what is expected.
        """
        return self._convert(value, DEEPEST)

    def _convert(self, value: Any, depth: int) -> Any:
        if self.of is None:
            return _free(value, depth) if self.name == "any" else _SCALARS[self.name](value)
        if not depth:
            raise ValueError(f"lists and maps at most {DEEPEST} deep")
        if self.name == "list" and isinstance(value, list | tuple):
            return [self.of._convert(item, depth - 1) for item in value]
        if self.name == "map" and isinstance(value, Mapping) and all(type(key) is str for key in value):
            return {key: self.of._convert(item, depth - 1) for key, item in value.items()}
        raise ValueError("a JSON array" if self.name == "list" else "a JSON object")


def read_type(text: str, language: Language) -> ParameterType:
    """Returns the type that a schema names, such as `list<string>` or `TYPE_NAME_STRING`.

    Raises:
        ValueError: there is none of this name; its text says why.
    """
    if text.count("<") > DEEPEST:
        raise ValueError(f"lists and maps at most {DEEPEST} deep")
    found = _TYPE.fullmatch(text)
    name = found[1] if found else text.strip()
    if language is Language.FGA and name.startswith("TYPE_NAME_"):
        name = name.removeprefix("TYPE_NAME_").lower()
    if name in ("list", "map"):
        if found is None or not (found[2] or "").strip():
            raise ValueError(f"{name} needs the type of what is in it: {name}<string>")
        return ParameterType(name, read_type(found[2], language))
    if name not in _SCALARS or (name == "bytes" and language is Language.FGA):
        raise ValueError(f"{name!r} is no type; there are {', '.join(known_types(language))}")
    if found is None or found[2] is not None:
        raise ValueError(f"{name} has no types in it")
    return ParameterType(name)


def known_types(language: Language) -> tuple[str, ...]:
    """Returns the types of parameters that a language has."""
    scalars = (name for name in _SCALARS if name != "bytes" or language is Language.ZED)
    return (*scalars, "list<T>", "map<T>")


@functools.lru_cache(1024)
def parameter_types(caveat: Caveat, language: Language) -> Mapping[str, ParameterType]:
    """Returns the types of a condition's parameters by name.

    Raises:
        SchemaError: a type that there is not, or two parameters of a name.
    """
    types: dict[str, ParameterType] = {}
    for name, text in caveat.parameters:
        if name in types:
            raise schema_error(caveat, f"it has two parameters {name}", "Give each a name of its own.")
        try:
            types[name] = read_type(text, language)
        except ValueError as error:
            raise schema_error(caveat, f"parameter {name}: {error}", "Name a type that there is.") from error
    return MappingProxyType(types)


def check_context(caveat: Caveat, language: Language, context: Mapping[str, Any]) -> None:
    """Refuses a context that a relationship cannot bring to its condition.

    Raises:
        InvalidArgument: a parameter that the condition does not have, or a value of another type.
        SchemaError: the condition names a type that there is not.
    """
    types = parameter_types(caveat, language)
    for name, value in context.items():
        if name not in types:
            raise InvalidArgument(
                f"{caveat.name} has no parameter {name!r}",
                where=f"caveat {caveat.name}",
                remedy=f"It has {', '.join(types) or 'none'}.",
            )
        convert(caveat.name, name, types[name], value)


def convert(caveat: str, parameter: str, type: ParameterType, value: Any) -> Any:
    """Returns the value of a parameter.

    Raises:
        InvalidArgument: it is of another type.
    """
    try:
        return type.convert(value)
    except ValueError as error:
        raise InvalidArgument(
            f"{reprlib.repr(value)} is no {type}",
            where=f"caveat {caveat}, parameter {parameter}",
            remedy=f"Give {error}.",
        ) from error


def schema_error(caveat: Caveat, problem: str, remedy: str) -> SchemaError:
    """Returns the error of a condition that cannot be, at its place in the schema."""
    where = f"{caveat.line}:{caveat.column}: " if caveat.line else ""
    return SchemaError(
        problem, line=caveat.line, column=caveat.column, where=f"{where}caveat {caveat.name}", remedy=remedy
    )


def _exactly(type_: type, expected: str) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if type(value) is not type_:
            raise ValueError(expected)
        return value

    return read


def _parsed(expected: str, parse: Callable[[str], Any]) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        try:
            if type(value) is str:
                return parse(value)
        except ValueError:
            pass
        raise ValueError(expected)

    return read


def _integer(expected: str, within: range, make: Callable[[int], int]) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        number: int | None = None
        if type(value) is int:
            number = value
        elif type(value) is float and value.is_integer():
            number = int(value)
        elif type(value) is str and len(value) <= 64 and _NUMBER.fullmatch(value):
            exact = decimal.Decimal(value)
            if exact.adjusted() <= 20 and exact == int(exact):
                number = int(exact)
        if number is None or number not in within:
            raise ValueError(expected)
        return make(number)

    return read


def _double(value: Any) -> float:
    if type(value) is float:
        return value
    if type(value) is int or (type(value) is str and _NUMBER.fullmatch(value)):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
    raise ValueError("a number")


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(text)


def _free(value: Any, depth: int) -> Any:
    """Returns JSON as it is, its numbers as doubles, since the protocols know no others."""
    kind = type(value)
    if kind in (str, bool, float) or value is None:
        return value
    if kind is int:
        return _double(value)
    if not depth:
        raise ValueError(f"lists and maps at most {DEEPEST} deep")
    if isinstance(value, list | tuple):
        return [_free(item, depth - 1) for item in value]
    if isinstance(value, Mapping) and all(type(key) is str for key in value):
        return {key: _free(item, depth - 1) for key, item in value.items()}
    raise ValueError("JSON: null, true, a number, a string, an array or an object")


_SCALARS: dict[str, Callable[[Any], Any]] = {
    "any": lambda value: _free(value, DEEPEST),
    "bool": _exactly(bool, "true or false"),
    "string": _exactly(str, "a string"),
    "int": _integer("a whole number of 64 bits", _INT, int),
    "uint": _integer("a whole number of 64 bits that is not negative", _UINT, Uint),
    "double": _double,
    "bytes": _parsed("bytes in base64", lambda text: base64.b64decode(text.encode("ascii"), validate=True)),
    "duration": _parsed('a duration such as "1h30m"', read_duration),
    "timestamp": _parsed('an RFC 3339 time such as "2027-01-31T12:00:00Z"', read_timestamp),
    "ipaddress": _parsed('an IP address such as "10.0.0.1"', _address),
}
