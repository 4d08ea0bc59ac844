"""A request's body: bytes of JSON to a typed record, with every mistake named by its place.

Not here: the records. Invariant: whatever the bytes, the outcome is a record or an `AccessError`.
"""

import difflib
import re
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from cupola.access.errors import InvalidArgument
from cupola.access.server.http.errors import WrongMediaType

Record = TypeVar("Record")

_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*)`", re.DOTALL)
_WORDS = {"`": "", "int": "integer", "float": "number", "str": "string", "bool": "boolean"}


class Strict(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A record that refuses fields it does not know."""


class Lenient(msgspec.Struct, kw_only=True, frozen=True):
    """A record of a protocol whose readers pass over fields they do not know."""


def check_media_type(sent: str) -> None:
    """Refuses a Content-Type that is not JSON's.

    Raises:
        WrongMediaType: it is another one.
    """
    kind = sent.split(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise WrongMediaType(
            f"the body is {kind[:100] or 'of no declared type'}",
            where="content-type",
            remedy="Send it with Content-Type: application/json.",
        )


def parse(body: bytes, kind: type[Record]) -> Record:
    """Returns the record in a body; no body is an empty object.

    Raises:
        InvalidArgument: the body is something else; `where` is the path of what is at fault.
    """
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except msgspec.ValidationError as error:
        problem, _, path = str(error).partition(" - at `$")
        raise _named(problem, path.rstrip("`").lstrip("."), kind) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidArgument(
            f"the body is not JSON: {error}", where="body", remedy="Send one JSON object in UTF-8."
        ) from None
    except RecursionError:
        raise InvalidArgument("the body is nested too deeply", where="body", remedy="Nest less.") from None


def _named(problem: str, path: str, kind: Any) -> InvalidArgument:
    if found := _UNKNOWN.fullmatch(problem):
        near = difflib.get_close_matches(found[1], _fields(kind), n=1)
        return InvalidArgument(
            f"there is no field {found[1][:100]!r}",
            where=f"{path}.{found[1][:100]}" if path else found[1][:100],
            remedy=f"Did you mean {near[0]!r}?" if near else f"The fields are: {', '.join(_fields(kind))}.",
        )
    if found := _MISSING.fullmatch(problem):
        where = f"{path}.{found[1]}" if path else found[1]
        return InvalidArgument(f"{found[1]} is missing", where=where, remedy=f"Send {found[1]}.")
    # msgspec writes kinds as Python does; clients know them as JSON does.
    words = re.sub(r"`|\b(?:int|float|str|bool)\b", lambda found: _WORDS[found[0]], problem)
    return InvalidArgument(words[0].lower() + words[1:], where=path or "body")


def _fields(kind: Any) -> list[str]:
    """The names of all fields of a record and of the records in it."""
    found: dict[str, None] = {}
    waiting = [inspect.type_info(kind)]
    while waiting:
        one = waiting.pop()
        if isinstance(one, inspect.StructType):
            waiting += [field.type for field in one.fields]
            found |= dict.fromkeys(field.encode_name for field in one.fields)
        elif isinstance(one, inspect.UnionType):
            waiting += one.types
        elif isinstance(one, inspect.ListType):
            waiting.append(one.item_type)
    return list(found)
