"""Timestamps and durations of CEL: their texts and the parts of a calendar date.

Not here: arithmetic (`functions.py`).
Invariant: nanoseconds are exact; a timestamp lies in the years 1 to 9999, a duration in 64 bits of nanoseconds, as
in the Go engine that SpiceDB and OpenFGA use.
"""

import datetime
import functools
import re
import zoneinfo

from cupola.access.caveat.values import Duration, Failed, Timestamp

_SECOND = 10**9
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_FIRST, _LAST = -62135596800 * _SECOND, 253402300800 * _SECOND - 1
_LONGEST = 1 << 63
_TIMESTAMP = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,30}))?(?:Z|([+-])(\d\d):(\d\d))", re.ASCII
)
_DURATION = re.compile(r"(\d{0,19})(?:\.(\d{0,30}))?(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_UNITS = {
    "ns": 1,
    "us": 1000,
    "µs": 1000,
    "μs": 1000,
    "ms": 10**6,
    "s": _SECOND,
    "m": 60 * _SECOND,
    "h": 3600 * _SECOND,
}
_OFFSET = re.compile(r"([+-]?)(\d{1,2}):(\d\d)", re.ASCII)


@functools.lru_cache(4096)
def read_timestamp(text: str) -> Timestamp:
    """Returns the time of an RFC 3339 text.

    Raises:
        ValueError: it is none.
    """
    found = _TIMESTAMP.fullmatch(text)
    if not found:
        raise ValueError(text)
    year, month, day, hour, minute, second = (int(part) for part in found.groups()[:6])
    moment = datetime.datetime(year, month, day, hour, minute, second, tzinfo=datetime.UTC)
    elapsed = moment - _EPOCH
    nanoseconds = (elapsed.days * 86400 + elapsed.seconds) * _SECOND + int((found[7] or "0")[:9].ljust(9, "0"))
    if found[8]:
        hours, minutes = int(found[9]), int(found[10])
        if hours > 24 or minutes > 59:
            raise ValueError(text)
        nanoseconds -= (1 if found[8] == "+" else -1) * (hours * 60 + minutes) * 60 * _SECOND
    if not _FIRST <= nanoseconds <= _LAST:
        raise ValueError(text)
    return Timestamp(nanoseconds)


@functools.lru_cache(4096)
def read_duration(text: str) -> Duration:
    """Returns the duration of a text such as `1h30m` or `-1.5s`.

    Raises:
        ValueError: it is none, or longer than 64 bits of nanoseconds.
    """
    sign, rest = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    if rest == "0":
        return Duration(0)
    total, at = 0, 0
    while found := _DURATION.match(rest, at):
        whole, fraction, unit = found[1], found[2] or "", _UNITS[found[3]]
        if not whole + fraction:
            raise ValueError(text)
        total += int(whole or "0") * unit + int(fraction or "0") * unit // 10 ** len(fraction)
        at = found.end()
    if not at or at != len(rest) or not -_LONGEST <= sign * total < _LONGEST:
        raise ValueError(text)
    return Duration(sign * total)


def timestamp(nanoseconds: int) -> Timestamp:
    """Returns the time so long after 1970.

    Raises:
        Failed: it is not in the years 1 to 9999.
    """
    if not _FIRST <= nanoseconds <= _LAST:
        raise Failed("a timestamp is not in the years 1 to 9999")
    return Timestamp(nanoseconds)


def duration(nanoseconds: int) -> Duration:
    """Returns a duration.

    Raises:
        Failed: it does not fit.
    """
    if not -_LONGEST <= nanoseconds < _LONGEST:
        raise Failed("a duration does not fit 64 bits of nanoseconds")
    return Duration(nanoseconds)


def write_timestamp(moment: Timestamp) -> str:
    """Returns the RFC 3339 text in UTC."""
    seconds, nanoseconds = divmod(int(moment), _SECOND)
    date = _EPOCH + datetime.timedelta(seconds=seconds)
    return f"{date.replace(tzinfo=None).isoformat()}{_fraction(nanoseconds)}Z"


def write_duration(length: Duration) -> str:
    """Returns the text in seconds, such as `5400s` or `-0.5s`."""
    seconds, nanoseconds = divmod(abs(int(length)), _SECOND)
    return f"{'-' if length < 0 else ''}{seconds}{_fraction(nanoseconds)}s"


def whole_units(length: Duration, unit: str) -> int:
    """Returns how many whole units a duration has, towards zero."""
    count = abs(int(length)) // _UNITS[unit]
    return -count if length < 0 else count


def date_of(moment: Timestamp, zone: str = "") -> datetime.datetime:
    """Returns the calendar date, whose microseconds are cut, in a time zone.

    Args:
        zone: such as `Europe/Berlin` or `+05:30`; "": UTC.

    Raises:
        Failed: there is no such zone.
    """
    date = _EPOCH + datetime.timedelta(seconds=int(moment) // _SECOND, microseconds=int(moment) % _SECOND // 1000)
    if zone in ("", "UTC"):
        return date
    try:
        offset = _OFFSET.fullmatch(zone)
        if offset:
            minutes = (int(offset[2]) * 60 + int(offset[3])) * (-1 if offset[1] == "-" else 1)
            return date.astimezone(datetime.timezone(datetime.timedelta(minutes=minutes)))
        return date.astimezone(zoneinfo.ZoneInfo(zone))
    except (ValueError, OverflowError, OSError, zoneinfo.ZoneInfoNotFoundError) as error:
        raise Failed(f"{zone!r} is no time zone of this date") from error


def _fraction(nanoseconds: int) -> str:
    return f".{nanoseconds:09}".rstrip("0") if nanoseconds else ""
