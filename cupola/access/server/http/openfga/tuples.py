"""OpenFGA's tuples and the relationships that they are.

Not here: whether a model allows them (`schema/relate.py`).
Invariant: a tuple that was read is the tuple that was written; ids may hold `@` and more, which one-line texts of
relationships do not.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from cupola.access.errors import AccessError
from cupola.access.relation import Caveated, Filter, Object, Relationship, Subject
from cupola.access.schema.model import Schema
from cupola.access.schema.relate import check_relationship
from cupola.access.server.http.body import Lenient
from cupola.access.server.http.openfga.errors import Code, Refused

LONGEST_OBJECT, LONGEST_RELATION, LONGEST_USER = 256, 50, 512


class ConditionFields(Lenient, kw_only=True):
    """The condition of a tuple."""

    name: str = ""
    context: dict[str, Any] | None = None


class Key(Lenient, kw_only=True):
    """Who has what relation to what; a question's parts may be left out, a tuple's may not."""

    user: str = ""
    relation: str = ""
    object: str = ""
    condition: ConditionFields | None = None

    def __str__(self) -> str:
        return f"{self.object}#{self.relation}@{self.user}"

    def relationship(self) -> Relationship:
        """Returns it as the graph takes it.

        Raises:
            Refused: a part is missing or malformed.
        """
        caveat = None
        if self.condition is not None and self.condition.name:
            caveat = Caveated.of(self.condition.name, self.condition.context)
        return Relationship(object_of(self.object), relation_of(self.relation), user_of(self.user), caveat)


class Keys(Lenient, kw_only=True):
    """Tuples that hold for one question."""

    tuple_keys: list[Key] = []


def object_of(text: str) -> Object:
    """Returns the object of a text such as `document:1`.

    Raises:
        Refused: it is none.
    """
    type, _, id = text.partition(":")
    if not type or not id or len(text) > LONGEST_OBJECT or any(x.isspace() or x == "#" for x in text) or id == "*":
        raise Refused(Code.validation_error, f"invalid 'object' field format: {text[:300]!r}", remedy="Write TYPE:ID.")
    return Object(type, id)


def relation_of(text: str) -> str:
    """Returns the name of a relation.

    Raises:
        Refused: it is none.
    """
    if not text or len(text) > LONGEST_RELATION or any(x.isspace() or x in ":#@" for x in text):
        raise Refused(Code.validation_error, f"invalid 'relation' field format: {text[:100]!r}")
    return text


def user_of(text: str) -> Subject:
    """Returns the subject of a text such as `user:anne`, `group:research#member` or `user:*`.

    Raises:
        Refused: it is none.
    """
    whole, mark, relation = text.partition("#")
    type, _, id = whole.partition(":")
    bad = not type or not id or len(text) > LONGEST_USER or any(x.isspace() for x in text) or "#" in relation
    if bad or (mark and (not relation or id == "*")):
        raise Refused(
            Code.validation_error,
            f"invalid 'user' field format: {text[:600]!r}",
            remedy="Write TYPE:ID, TYPE:* or TYPE:ID#RELATION.",
        )
    return Subject(type, id, relation)


def contextual(keys: Iterable[Key], schema: Schema) -> list[Relationship]:
    """Returns the relationships that hold for one question.

    Raises:
        Refused: one is malformed, not allowed by the model, or there twice.
    """
    found: dict[Any, Relationship] = {}
    for key in keys:
        relationship = key.relationship()
        try:
            check_relationship(schema, relationship)
        except AccessError as error:
            code = Code.validation_error if relationship.caveat is not None else Code.invalid_tuple
            raise Refused(code, f"Invalid tuple '{key}'. Reason: {error.problem}") from None
        if relationship.key in found:
            raise Refused(Code.validation_error, f"duplicate contextual tuple: '{key}'")
        found[relationship.key] = relationship
    return list(found.values())


def exactly(relationship: Relationship) -> Filter:
    """Returns the filter that matches only what has a relationship's key."""
    (type, id), relation, subject = relationship.key
    return Filter(type, id, "", relation, subject.type, subject.id, subject.relation)


def shown(relationship: Relationship) -> dict[str, Any]:
    """Returns the tuple of a relationship."""
    key: dict[str, Any] = {
        "user": str(relationship.subject),
        "relation": relationship.relation,
        "object": str(relationship.object),
    }
    if relationship.caveat is not None:
        key["condition"] = {"name": relationship.caveat.name, "context": relationship.caveat.parameters}
    return key


def allowed(relationships: Sequence[Relationship], schema: Schema) -> list[Relationship]:
    """Returns those that a model allows; the others were written under another and do not count in this one."""
    kept = []
    for relationship in relationships:
        try:
            check_relationship(schema, relationship)
        except AccessError:
            continue
        kept.append(relationship)
    return kept
