"""Objects, subjects and relationships, and their one-line text.

Not here: what a schema makes of them (`schema/`), where they are kept (`store/`). Plain tuples: they are keys of
every table in the room, and hash at the speed of C.
Invariant: the text of a relationship reads back as an equal one. Characters are checked where text comes in, so
what is inside is well-formed.
Source: Pang et al. 2019, "Zanzibar", section 2.1: `object#relation@subject`. An expiration and a caveat follow
in brackets, as SpiceDB writes them.
"""

import datetime
import enum
import json
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from cupola.access.errors import InvalidArgument

WILDCARD = "*"
"""The id of a subject that stands for all of its type."""
LONGEST_ID = 1024
"""Characters of an object's id."""


def _no_number(text: str) -> float:
    raise ValueError(f"JSON has no {text}")


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _no_number(text)


_JSON = json.JSONDecoder(parse_constant=_no_number, parse_float=_finite)
_TYPE = r"[^\s:#@*\[\]]{1,254}"
_NAME = r"[^\s:#@*\[\]]{1,128}"
_ID = rf"[^\s#\[\]]{{1,{LONGEST_ID}}}"
_OBJECT = re.compile(rf"({_TYPE}):({_ID})")
_SUBJECT = re.compile(rf"({_TYPE}):({_ID})(?:#({_NAME}|\.\.\.))?")
_RELATIONSHIP = re.compile(rf"({_TYPE}:{_ID})#({_NAME})@({_TYPE}:{_ID}(?:#(?:{_NAME}|\.\.\.))?)(.*)", re.DOTALL)


class Object(NamedTuple):
    """Something that subjects have relations to, such as `model:kiln`."""

    type: str
    id: str

    def __str__(self) -> str:
        return f"{self.type}:{self.id}"

    @classmethod
    def parse(cls, text: str) -> "Object":
        """Returns the object of a text.

        Raises:
            InvalidArgument: it is not TYPE:ID.
        """
        found = _OBJECT.fullmatch(text)
        if not found or found[2] == WILDCARD:
            raise InvalidArgument(f"{text!r} is no object", where="object", remedy="Write TYPE:ID, such as model:kiln")
        return cls(*found.groups())


class Subject(NamedTuple):
    """Who has a relation: an object, all of a type (`user:*`), or all who have a relation to an object.

    Args:
        type: of the object.
        id: of the object; `*` for all.
        relation: "" for the object itself.
    """

    type: str
    id: str
    relation: str = ""

    def __str__(self) -> str:
        return f"{self.type}:{self.id}#{self.relation}" if self.relation else f"{self.type}:{self.id}"

    @classmethod
    def parse(cls, text: str) -> "Subject":
        """Returns the subject of a text; `#...` is the object itself.

        Raises:
            InvalidArgument: it is not TYPE:ID, TYPE:* or TYPE:ID#RELATION.
        """
        found = _SUBJECT.fullmatch(text)
        if not found or (found[2] == WILDCARD and found[3] not in (None, "...")):
            raise InvalidArgument(
                f"{text!r} is no subject", where="subject", remedy="Write user:ada, user:* or group:research#member"
            )
        return cls(found[1], found[2], "" if found[3] in (None, "...") else found[3])

    @property
    def object(self) -> Object:
        """The object of which it is a subject."""
        return Object(self.type, self.id)


def permission_of(named: str | tuple[Object, str]) -> tuple[Object, str]:
    """Returns an object and the name of a relation or permission of it, of a text such as `model:kiln#use`.

    Raises:
        InvalidArgument: it names none.
    """
    if not isinstance(named, str):
        return named
    object, _, name = named.partition("#")
    if not name:
        raise InvalidArgument(f"{named!r} names no permission", where="permission", remedy="Write TYPE:ID#PERMISSION")
    return Object.parse(object), name


class Caveated(NamedTuple):
    """The condition under which a relationship holds.

    Args:
        name: of the caveat in the schema.
        context: JSON object of the parameters that the relationship brings, keys sorted; it beats what a
            question brings.
    """

    name: str
    context: str = "{}"

    @classmethod
    def of(cls, name: str, context: Mapping[str, Any] | None = None) -> "Caveated":
        """Returns the condition with these parameters."""
        return cls(name, json.dumps(context or {}, sort_keys=True, separators=(",", ":"), ensure_ascii=False))

    @property
    def parameters(self) -> dict[str, Any]:
        """The context as values."""
        return json.loads(self.context)


class Relationship(NamedTuple):
    """A fact: the subject has the relation to the object.

    Args:
        caveat: the condition under which it holds; None: always.
        expires_seconds: since 1970, when it ceases to hold; None: never.
    """

    object: Object
    relation: str
    subject: Subject
    caveat: Caveated | None = None
    expires_seconds: float | None = None

    @property
    def key(self) -> tuple[Object, str, Subject]:
        """What there is only one relationship of."""
        return self[:3]

    def __str__(self) -> str:
        text = f"{self.object}#{self.relation}@{self.subject}"
        if self.caveat is not None:
            text += (
                f"[{self.caveat.name}]"
                if self.caveat.context == "{}"
                else f"[{self.caveat.name}:{self.caveat.context}]"
            )
        return text if self.expires_seconds is None else f"{text}[expiration:{format_time(self.expires_seconds)}]"

    @classmethod
    def parse(cls, text: str) -> "Relationship":
        """Returns the relationship of a text such as `model:kiln#reader@group:research#member`.

        Raises:
            InvalidArgument: it is none.
        """
        found = _RELATIONSHIP.fullmatch(text.strip())
        if not found:
            raise InvalidArgument(
                f"{text!r} is no relationship",
                where="relationship",
                remedy="Write TYPE:ID#RELATION@TYPE:ID or TYPE:ID#RELATION@TYPE:ID#RELATION",
            )
        caveat, expires = _traits(found[4], text)
        return cls(Object.parse(found[1]), found[2], Subject.parse(found[3]), caveat, expires)


class Operation(enum.Enum):
    """What a write does to a relationship."""

    CREATE = "create"
    """It must not be there."""
    TOUCH = "touch"
    """Be there afterwards, with this caveat and expiration."""
    DELETE = "delete"
    """Not be there afterwards; caveat and expiration are not looked at."""


class Update(NamedTuple):
    """One change of a write."""

    operation: Operation
    relationship: Relationship


def create(relationship: str | Relationship) -> Update:
    """Returns the change that adds a relationship, which must not be there."""
    return _update(Operation.CREATE, relationship)


def touch(relationship: str | Relationship) -> Update:
    """Returns the change that adds or replaces a relationship."""
    return _update(Operation.TOUCH, relationship)


def delete(relationship: str | Relationship) -> Update:
    """Returns the change that takes a relationship away, if it is there."""
    return _update(Operation.DELETE, relationship)


def _update(operation: Operation, relationship: str | Relationship) -> Update:
    parsed = Relationship.parse(relationship) if isinstance(relationship, str) else relationship
    return Update(operation, parsed)


class Filter(NamedTuple):
    """Which relationships: those that match every part that is not empty.

    Args:
        id_prefix: how the object's id begins.
        subject_relation: None: any; "": subjects without one.
    """

    type: str = ""
    id: str = ""
    id_prefix: str = ""
    relation: str = ""
    subject_type: str = ""
    subject_id: str = ""
    subject_relation: str | None = None

    def matches(self, relationship: Relationship) -> bool:
        """Whether a relationship is one of them."""
        (type, id), relation, subject = relationship.key
        return (
            self.type in ("", type)
            and self.id in ("", id)
            and id.startswith(self.id_prefix)
            and self.relation in ("", relation)
            and self.subject_type in ("", subject.type)
            and self.subject_id in ("", subject.id)
            and self.subject_relation in (None, subject.relation)
        )


class Must(enum.Enum):
    """What a write takes for granted of a filter."""

    MATCH = "match"
    """At least one relationship matches."""
    NOT_MATCH = "not match"


class Precondition(NamedTuple):
    """What must be so for a write to happen, at the moment it happens."""

    must: Must
    filter: Filter


class Surplus(enum.Enum):
    """What becomes of a deletion of which more matches than its limit."""

    STAYS = "stays"
    """The limit is deleted; the rest stays."""
    REFUSED = "refused"
    """Nothing is deleted."""


def parse_time(text: str) -> float:
    """Returns seconds since 1970 of an RFC 3339 time.

    Raises:
        InvalidArgument: it is none.
    """
    try:
        parsed = datetime.datetime.fromisoformat(text)
    except ValueError:
        parsed = None
    if parsed is None or parsed.tzinfo is None:
        raise InvalidArgument(f"{text!r} is no time", where="expiration", remedy="Write it as 2027-01-31T12:00:00Z")
    return parsed.timestamp()


def format_time(seconds: float) -> str:
    """Returns the RFC 3339 time of seconds since 1970."""
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.isoformat().replace("+00:00", "Z")


def _traits(text: str, whole: str) -> tuple[Caveated | None, float | None]:
    """Reads `[caveat]`, `[caveat:{...}]` and `[expiration:TIME]`, in either order, each at most once."""
    caveat, expires, rest = None, None, text
    while rest:
        found = re.match(r"\[([^\s:\[\]]+)(?::\s*)?", rest)
        if not found:
            raise InvalidArgument(f"{text!r} in {whole!r} is neither a caveat nor an expiration", where="relationship")
        name, rest = found[1], rest[found.end() :]
        if name == "expiration" and expires is None:
            time, _, rest = rest.partition("]")
            expires = parse_time(time)
        elif name != "expiration" and caveat is None:
            context: Any = {}
            if not rest.startswith("]"):
                try:
                    context, end = _JSON.raw_decode(rest)
                    json.dumps(context, ensure_ascii=False).encode()
                except (ValueError, RecursionError):
                    end = None
                if end is None or not isinstance(context, dict):
                    raise InvalidArgument(
                        f"the context of caveat {name} is no JSON object",
                        where="relationship",
                        remedy=f'Write [{name}:{{"parameter": value}}]',
                    )
                rest = rest[end:].lstrip()
            if not rest.startswith("]"):
                raise InvalidArgument(f"{whole!r} lacks a ]", where="relationship")
            caveat, rest = Caveated.of(name, context), rest[1:]
        else:
            raise InvalidArgument(f"{whole!r} has two of [{name}]", where="relationship")
    return caveat, expires
