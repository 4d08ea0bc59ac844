"""What the operators and functions of CEL do, by the types of their arguments.

Not here: `&&`, `||`, `?:` and macros, which may do without a part (`closures.py`).
Each overload takes the frame first, so that work beyond one step is paid for, and raises `Failed` where CEL has an
error. int and uint are of 64 bits and never wrap. `matches` is RE2's: it takes linear time, whatever the pattern.
Source: github.com/google/cel-spec, doc/langdef.md, "List of Standard Definitions"; what SpiceDB and OpenFGA add.
"""

import datetime
import decimal
import functools
import ipaddress
import math
import re
from collections.abc import Callable
from typing import Any

import re2

from cupola.access.caveat.times import (
    date_of,
    duration,
    read_duration,
    read_timestamp,
    timestamp,
    whole_units,
    write_duration,
    write_timestamp,
)
from cupola.access.caveat.values import (
    NAMES,
    NUMBERS,
    Duration,
    Failed,
    Frame,
    Timestamp,
    TypeName,
    Uint,
    key_of,
    same,
    spend,
)

Overload = Callable[..., Any]
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

FUNCTIONS: dict[str, dict[tuple[type, ...], Overload]] = {}
"""Overloads of each function, by the exact types of its arguments; a method's target is the first."""

PATTERN_STEPS = 200
"""What a regular expression that is not part of the condition's text costs, since it must be compiled each time."""

_KEYS = frozenset((*NUMBERS, str, bool))
_INT, _UINT = range(-(1 << 63), 1 << 63), range(1 << 64)
_WHOLE = re.compile(r"([+-]?)0*(\d{1,20})", re.ASCII)
_PREFIX = re.compile(r"([^/%]+)/(0|[1-9]\d{0,2})", re.ASCII)
_TRUTHS = dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), True)
_TRUTHS |= dict.fromkeys(("0", "f", "F", "false", "FALSE", "False"), False)
_PATTERNS = re2.Options()
_PATTERNS.log_errors = False
_PATTERNS.max_mem = 1 << 20


def add(name: str, overload: Overload, *types: type) -> None:
    """Adds an overload of a function."""
    FUNCTIONS.setdefault(name, {})[types] = overload


def no_overload(name: str, *arguments: Any) -> Failed:
    """Returns the error of a function that does not take such values."""
    return Failed(f"{name.strip('_@')} does not take ({', '.join(NAMES[type(value)] for value in arguments)})")


@functools.lru_cache(256)
def pattern_of(text: str) -> Any:
    """Returns a regular expression of RE2, compiled.

    Raises:
        Failed: it is none, or too large a one.
    """
    try:
        return re2.compile(text, _PATTERNS)
    except (re2.error, UnicodeError) as error:
        raise Failed(f"{text[:60]!r} is no regular expression of RE2, or too large") from error


def matches(frame: Frame, text: str, pattern: Any) -> bool:
    """Returns whether a part of a text matches a compiled regular expression.

    Raises:
        Failed: the text is not Unicode.
    """
    spend(frame, len(text) // 10)
    try:
        return pattern.search(text) is not None
    except UnicodeError as error:
        raise Failed("a text has half of a surrogate pair") from error


def _int(value: int) -> int:
    if value not in _INT:
        raise Failed("an int does not fit 64 bits")
    return value


def _uint(value: int) -> Uint:
    if value not in _UINT:
        raise Failed("a uint does not fit 64 bits, or is negative")
    return Uint(value)


def _arithmetic() -> None:
    def quotient(left: int, right: int) -> int:
        if not right:
            raise Failed("division by zero")
        return abs(left) // abs(right) * (1 if (left < 0) == (right < 0) else -1)

    def ratio(frame: Frame, left: float, right: float) -> float:
        if right:
            return left / right
        return math.nan if not left or math.isnan(left) else math.copysign(math.inf, left) * math.copysign(1, right)

    for type_, fit in ((int, _int), (Uint, _uint)):
        add("_+_", lambda frame, x, y, fit=fit: fit(int(x) + int(y)), type_, type_)
        add("_-_", lambda frame, x, y, fit=fit: fit(int(x) - int(y)), type_, type_)
        add("_*_", lambda frame, x, y, fit=fit: fit(int(x) * int(y)), type_, type_)
        add("_/_", lambda frame, x, y, fit=fit: fit(quotient(int(x), int(y))), type_, type_)
        add("_%_", lambda frame, x, y, fit=fit: fit(int(x) - int(y) * quotient(int(x), int(y))), type_, type_)
    add("-_", lambda frame, x: _int(-x), int)
    add("-_", lambda frame, x: -x, float)
    add("_+_", lambda frame, x, y: x + y, float, float)
    add("_-_", lambda frame, x, y: x - y, float, float)
    add("_*_", lambda frame, x, y: x * y, float, float)
    add("_/_", ratio, float, float)
    add("_+_", lambda frame, x, y: timestamp(int(x) + int(y)), Timestamp, Duration)
    add("_+_", lambda frame, x, y: timestamp(int(x) + int(y)), Duration, Timestamp)
    add("_+_", lambda frame, x, y: duration(int(x) + int(y)), Duration, Duration)
    add("_-_", lambda frame, x, y: duration(int(x) - int(y)), Duration, Duration)
    add("_-_", lambda frame, x, y: duration(int(x) - int(y)), Timestamp, Timestamp)
    add("_-_", lambda frame, x, y: timestamp(int(x) - int(y)), Timestamp, Duration)
    add("!_", lambda frame, x: not x, bool)


def _order() -> None:
    pairs = [(type_, type_) for type_ in (bool, str, bytes, Timestamp, Duration)]
    pairs += [(left, right) for left in NUMBERS for right in NUMBERS]
    for pair in pairs:
        add("_<_", lambda frame, x, y: x < y, *pair)
        add("_<=_", lambda frame, x, y: x <= y, *pair)
        add("_>_", lambda frame, x, y: x > y, *pair)
        add("_>=_", lambda frame, x, y: x >= y, *pair)


def _collections() -> None:
    def joined(frame: Frame, left: Any, right: Any) -> Any:
        spend(frame, (len(left) + len(right)) // 10)
        return left + right

    def element(frame: Frame, values: list[Any], index: int | float) -> Any:
        if not 0 <= index < len(values) or index != int(index):
            raise Failed(f"index {index} is not in a list of {len(values)}")
        return values[int(index)]

    def entry(frame: Frame, entries: dict[Any, Any], key: Any) -> Any:
        try:
            return entries[key_of(key)]
        except KeyError:
            raise Failed(f"a map has no key {key!r}") from None

    def holds(frame: Frame, item: Any, values: list[Any]) -> bool:
        spend(frame, len(values))
        return any(same(frame, item, value) for value in values)

    sequences: tuple[type, ...] = (str, bytes, list)
    for type_ in sequences:
        add("_+_", joined, type_, type_)
    for type_ in (*sequences, dict):
        add("size", lambda frame, x: len(x), type_)
    for index in NUMBERS:
        add("_[_]", element, list, index)
    for key in _KEYS:
        add("_[_]", entry, dict, key)
    for type_ in NAMES:
        add("@in", holds, type_, list)
        add("@in", lambda frame, x, y: type(x) in _KEYS and key_of(x) in y, type_, dict)


def _texts() -> None:
    def contains(frame: Frame, text: str, part: str) -> bool:
        spend(frame, (len(text) + len(part)) // 10)
        return part in text

    def found(frame: Frame, text: str, pattern: str) -> bool:
        spend(frame, PATTERN_STEPS)
        return matches(frame, text, pattern_of(pattern))

    add("contains", contains, str, str)
    add("startsWith", lambda frame, text, part: text.startswith(part), str, str)
    add("endsWith", lambda frame, text, part: text.endswith(part), str, str)
    add("matches", found, str, str)


def _numbers() -> None:
    def whole(text: str) -> int:
        digits = _WHOLE.fullmatch(text)
        if not digits:
            raise Failed(f"{text[:60]!r} is no whole number")
        return int(digits[1] + digits[2])

    def cut(number: float) -> int:
        if not math.isfinite(number):
            raise Failed(f"{number} is no whole number")
        return int(number)

    def double(text: str) -> float:
        try:
            return float(text if "_" not in text and text == text.strip() else "")
        except ValueError:
            raise Failed(f"{text[:60]!r} is no number") from None

    for type_, fit in ((int, _int), (Uint, _uint)):
        name = NAMES[type_]
        add(name, lambda frame, x, fit=fit: fit(int(x)), int)
        add(name, lambda frame, x, fit=fit: fit(int(x)), Uint)
        add(name, lambda frame, x, fit=fit: fit(cut(x)), float)
        add(name, lambda frame, x, fit=fit: fit(whole(x)), str)
    add("int", lambda frame, x: int(x) // 10**9, Timestamp)
    add("int", lambda frame, x: int(x), Duration)
    for number in NUMBERS:
        add("double", lambda frame, x: float(x), number)
    add("double", lambda frame, x: double(x), str)


def _parsing() -> None:
    def truth(text: str) -> bool:
        if text not in _TRUTHS:
            raise Failed(f"{text[:60]!r} is neither true nor false")
        return _TRUTHS[text]

    def parsed(parse: Callable[..., Any], what: str) -> Overload:
        def read(frame: Frame, text: str | bytes) -> Any:
            try:
                return parse(text)
            except ValueError:
                raise Failed(f"{text[:60]!r} is no {what}") from None

        return read

    add("bool", lambda frame, x: x, bool)
    add("bool", lambda frame, x: truth(x), str)
    add("bytes", lambda frame, x: x, bytes)
    add("bytes", parsed(str.encode, "Unicode"), str)
    add("timestamp", lambda frame, x: x, Timestamp)
    add("timestamp", lambda frame, x: timestamp(x * 10**9), int)
    add("timestamp", parsed(read_timestamp, "RFC 3339 time"), str)
    add("duration", lambda frame, x: x, Duration)
    add("duration", parsed(read_duration, "duration"), str)
    add("string", lambda frame, x: x, str)
    add("string", parsed(bytes.decode, "UTF-8"), bytes)
    add("string", lambda frame, x: "true" if x else "false", bool)
    add("string", lambda frame, x: str(int(x)), int)
    add("string", lambda frame, x: str(int(x)), Uint)
    add("string", lambda frame, x: write_double(x), float)
    add("string", lambda frame, x: write_timestamp(x), Timestamp)
    add("string", lambda frame, x: write_duration(x), Duration)
    for any_type, name in NAMES.items():
        add("dyn", lambda frame, x: x, any_type)
        add("type", lambda frame, x, name=TypeName(name): name, any_type)


def write_double(value: float) -> str:
    """Returns the shortest text that reads back, with an exponent where Go's `%g` has one."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    sign, digits, exponent = decimal.Decimal(repr(value)).normalize().as_tuple()
    power = len(digits) + int(exponent) - 1
    if not value or -4 <= power < 6:
        text = f"{decimal.Decimal(repr(value)).normalize():f}"
    else:
        rest = "".join(map(str, digits[1:]))
        text = f"{'-' * sign}{digits[0]}{'.' * bool(rest)}{rest}e{'-' if power < 0 else '+'}{abs(power):02}"
    return text


def _dates() -> None:
    def part(read: Callable[[datetime.datetime], int]) -> tuple[Overload, Overload]:
        return lambda frame, x: read(date_of(x)), lambda frame, x, zone: read(date_of(x, zone))

    parts: dict[str, Callable[[datetime.datetime], int]] = {
        "getFullYear": lambda date: date.year,
        "getMonth": lambda date: date.month - 1,
        "getDate": lambda date: date.day,
        "getDayOfMonth": lambda date: date.day - 1,
        "getDayOfWeek": lambda date: date.isoweekday() % 7,
        "getDayOfYear": lambda date: date.timetuple().tm_yday - 1,
        "getHours": lambda date: date.hour,
        "getMinutes": lambda date: date.minute,
        "getSeconds": lambda date: date.second,
        "getMilliseconds": lambda date: date.microsecond // 1000,
    }
    for name, read in parts.items():
        plain, zoned = part(read)
        add(name, plain, Timestamp)
        add(name, zoned, Timestamp, str)
    for name, unit in {"getHours": "h", "getMinutes": "m", "getSeconds": "s", "getMilliseconds": "ms"}.items():
        add(name, lambda frame, x, unit=unit: whole_units(x, unit), Duration)


def _additions() -> None:
    def address(frame: Frame, text: str) -> Address:
        try:
            return ipaddress.ip_address(text)
        except ValueError:
            raise Failed(f"{text[:60]!r} is no IP address") from None

    def in_network(frame: Frame, address: Address, text: str) -> bool:
        prefix = _PREFIX.fullmatch(text)
        try:
            network = ipaddress.ip_network(text if prefix else "", strict=False)
        except ValueError:
            raise Failed(f"{text[:60]!r} is no network such as 10.0.0.0/8") from None
        return getattr(address, "scope_id", None) is None and address in network

    def subtree(frame: Frame, part: dict[str, Any], whole: dict[str, Any]) -> bool:
        spend(frame, len(part))
        return all(
            key in whole
            and (
                subtree(frame, value, whole[key])
                if type(value) is dict and type(whole[key]) is dict
                else same(frame, value, whole[key])
            )
            for key, value in part.items()
        )

    add("ipaddress", address, str)
    for kind in (ipaddress.IPv4Address, ipaddress.IPv6Address):
        add("in_cidr", in_network, kind, str)
    add("isSubtreeOf", subtree, dict, dict)


for _fill in (_arithmetic, _order, _collections, _texts, _numbers, _parsing, _dates, _additions):
    _fill()
