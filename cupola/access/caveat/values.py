"""Values of CEL in Python, what stops an evaluation, and when two values are the same.

Not here: what the language's functions do with them (`functions.py`, `times.py`), JSON (`types.py`).
A value is a Python value of exactly one of the types in `NAMES`: int is CEL's int, `Uint` its uint, str is counted
in code points; keys of a map are str, int, `Uint` or, for booleans, `Truth`, because Python holds True and 1 for
one key.
Invariant: a frame belongs to one evaluation. Its first entry is what may still be spent, the rest are variables.
Source: github.com/google/cel-spec, doc/langdef.md.
"""

import enum
import ipaddress
from typing import Any

from cupola.access.errors import TooMuch

Frame = list[Any]
"""What may still be spent, then the variables."""


class Uint(int):
    """An unsigned integer of 64 bits."""


class Timestamp(int):
    """Nanoseconds since 1970."""


class Duration(int):
    """Nanoseconds."""


class TypeName(str):
    """A type, as a value."""


class Truth(enum.Enum):
    """A boolean as the key of a map."""

    FALSE = False
    TRUE = True


class Absent(enum.Enum):
    """What a frame holds for a parameter that was not given."""

    ABSENT = "absent"


NAMES: dict[type, str] = {
    type(None): "null_type",
    bool: "bool",
    int: "int",
    Uint: "uint",
    float: "double",
    str: "string",
    bytes: "bytes",
    list: "list",
    dict: "map",
    Timestamp: "google.protobuf.Timestamp",
    Duration: "google.protobuf.Duration",
    ipaddress.IPv4Address: "IPAddress",
    ipaddress.IPv6Address: "IPAddress",
    TypeName: "type",
}
"""CEL's name of each type."""
NUMBERS = frozenset((int, Uint, float))


class Stop(Exception):
    """Why a part of an expression has no value; `&&`, `||` and macros may do without it."""


class Unknown(Stop):
    """It needs parameters that were not given.

    Args:
        names: of them.
    """

    def __init__(self, *names: str):
        super().__init__(*names)
        self.names = names


class Failed(Stop):
    """It divides by zero, has no such key, or the like."""


def either(first: Stop, second: Stop) -> Stop:
    """Returns why a whole has no value of which two parts have none: more parameters may cure an unknown one."""
    if isinstance(first, Unknown) and isinstance(second, Unknown):
        return Unknown(*dict.fromkeys(first.names + second.names))
    return second if isinstance(second, Unknown) else first


def spend(frame: Frame, steps: int) -> None:
    """Takes steps from what may be spent.

    Raises:
        TooMuch: there are not so many left.
    """
    frame[0] -= steps
    if frame[0] < 0:
        raise TooMuch("the condition costs more steps than the limit allows", remedy="Send shorter lists and texts.")


def key_of(value: Any) -> Any:
    """Returns the key under which a map of ours holds a value.

    Raises:
        Failed: it is no bool, int, uint, string or double.
    """
    kind = type(value)
    if kind is bool:
        return Truth(value)
    if kind is str or kind in NUMBERS:
        return value
    raise Failed(f"a {NAMES[kind]} is no key of a map")


def of_key(key: Any) -> Any:
    """Returns the value that a map of ours holds under a key."""
    return key.value if type(key) is Truth else key


def same(frame: Frame, left: Any, right: Any) -> bool:
    """Returns whether two values are equal: numbers of any type by what they count, others within their type."""
    kind, other = type(left), type(right)
    if kind is other:
        if kind is list:
            spend(frame, len(left))
            return len(left) == len(right) and all(same(frame, x, y) for x, y in zip(left, right, strict=True))
        if kind is dict:
            spend(frame, len(left))
            return len(left) == len(right) and all(key in right and same(frame, left[key], right[key]) for key in left)
        return left == right
    return kind in NUMBERS and other in NUMBERS and left == right
