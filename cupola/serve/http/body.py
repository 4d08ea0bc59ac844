"""A request's body: bytes to JSON to a typed record, with every mistake named by its place.

Not here: the records (`schema.py`). Refused rather than guessed at: a name that stands twice in an
object, numbers that are none, half characters. Invariant: whatever the bytes, the outcome is a
record or an `InvalidRequest`.
"""

import functools
import json
import math
import re
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from cupola.config.suggest import did_you_mean
from cupola.serve.errors import InvalidRequest

Record = TypeVar("Record")

_LARGEST_INTEGER = 2**63 - 1
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_MANY_DIGITS = re.compile(rb"\d{19}")
"""Most bodies hold no such number, and millions of short ones are read without asking about each."""
_HALF_CHARACTER = re.compile(rb"\\u[dD][89a-fA-F]")
_JSON = "Send one JSON object, as json.dumps writes it."


def parse_json(body: bytes) -> dict[str, Any]:
    """Returns the JSON object in a body.

    Raises:
        InvalidRequest: it is not UTF-8, not JSON, ambiguous, nested too deeply, or not an object.
    """
    try:
        value = json.loads(
            body.decode(),
            object_pairs_hook=_object,
            parse_constant=_no_constant,
            parse_float=_finite,
            parse_int=_integer if _MANY_DIGITS.search(body) else None,
        )
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"byte {error.start} of the body is not UTF-8", remedy="Send JSON in UTF-8.") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise InvalidRequest(f"the body is not JSON: {error.msg} at {place}", remedy=_JSON) from None
    except RecursionError:
        raise InvalidRequest("the body is nested too deeply", remedy="Send fewer objects within objects.") from None
    if not isinstance(value, dict):
        raise InvalidRequest("the body is JSON, but not an object", remedy=_JSON)
    if _HALF_CHARACTER.search(body):
        _check_characters(value)
    return value


def parse(body: bytes | dict[str, Any], kind: type[Record], refused: dict[str, str] | None = None) -> Record:
    """Returns the record in a body.

    Args:
        body: bytes of JSON, or what `parse_json` made of them.
        kind: a msgspec Struct that forbids unknown fields.
        refused: fields that the OpenAI API defines and this server cannot honour, each with the reason.

    Raises:
        InvalidRequest: what stands at fault, by its path.
    """
    value = parse_json(body) if isinstance(body, bytes) else dict(body)
    for name, reason in (refused or {}).items():
        if value.pop(name, None) is not None:
            raise InvalidRequest(f"{name} is not supported: {reason}", where=name, remedy=f"Leave {name} out.")
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        problem, _, path = str(error).partition(" - at `$")
        path = path.rstrip("`").lstrip(".")
        raise _named(problem, path, kind) from None
    except RecursionError:
        raise InvalidRequest("the body is nested too deeply", remedy="Send fewer objects within objects.") from None


def _named(problem: str, path: str, kind: type) -> InvalidRequest:
    if found := _UNKNOWN.fullmatch(problem):
        name = found[1]
        where = f"{path}.{name}" if path else name
        return InvalidRequest(
            f"there is no field {name!r}", where=where, remedy=did_you_mean(name, _fields_at(kind, path))
        )
    # msgspec writes kinds as Python does; clients know them as JSON does.
    words = problem.replace("`", "").replace("int", "integer").replace("float", "number")
    words = words.replace("str,", "string,").replace("bool", "boolean").replace(" got str", " got string")
    if missing := re.fullmatch(r"Object missing required field (\w+)", words):
        where = f"{path}.{missing[1]}" if path else missing[1]
        return InvalidRequest(f"{missing[1]} is missing", where=where, remedy=f"Send {missing[1]}.")
    return InvalidRequest(words[0].lower() + words[1:], where=path)


@functools.cache
def _fields_at(kind: type, path: str) -> tuple[str, ...]:
    """The names that may stand in the object at a path such as "messages[0].content"."""
    held = [inspect.type_info(kind)]
    for name in re.findall(r"\[[^\]]*\]|[^.\[]+", path):
        held = [inner for one in _members(held) for inner in _within(one, name)]
    fields = (one.fields for one in _members(held) if isinstance(one, inspect.StructType))
    return tuple(field.encode_name for group in fields for field in group)


def _members(held: list[inspect.Type]) -> list[inspect.Type]:
    return [one for kind in held for one in (kind.types if isinstance(kind, inspect.UnionType) else (kind,))]


def _within(kind: inspect.Type, name: str) -> list[inspect.Type]:
    if isinstance(kind, inspect.StructType):
        return [field.type for field in kind.fields if field.encode_name == name]
    if isinstance(kind, inspect.ListType):
        return [kind.item_type]
    return [kind.value_type] if isinstance(kind, inspect.DictType) else []


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidRequest(f"{_shown(twice)} stands twice in one object", where=_shown(twice), remedy="Send it once.")
    return made


def _shown(name: str) -> str:
    """The name as it can be written in an answer: cut, and with half characters replaced."""
    return name[:100].encode(errors="replace").decode()


def _no_constant(name: str) -> Any:
    raise InvalidRequest(f"{name} is not JSON", remedy="Send a number, or null.")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise InvalidRequest(f"the number {text[:40]} is too large", remedy="Send one up to 1e308.")
    return number


def _integer(text: str) -> int:
    if len(text) > 20 or abs(int(text)) > _LARGEST_INTEGER:
        raise InvalidRequest(f"the number {text[:40]} is too large", remedy=f"Send one up to {_LARGEST_INTEGER}.")
    return int(text)


def _check_characters(value: Any, where: str = "") -> None:
    """Refuses half of a surrogate pair, which no tokenizer and no answer can hold."""
    if isinstance(value, dict):
        for name, inner in value.items():
            _check_characters(name, where)
            _check_characters(inner, f"{where}.{_shown(name)}" if where else _shown(name))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _check_characters(inner, f"{where}[{index}]")
    elif isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise InvalidRequest(
                f"character {error.start} is half of a surrogate pair, which is no character",
                where=where,
                remedy="Send characters beyond U+FFFF as UTF-8, or as both halves.",
            ) from None
