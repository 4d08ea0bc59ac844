"""Requests and answers of plain REST, field by field.

Not here: what is done with them (`questions.py`, `relationships.py`, `schemas.py`).
Invariant: objects, subjects and relationships are the one-line texts of `access/relation.py`.
"""

from typing import Any, Literal

from cupola.access.consistency import FAST, LATEST, Consistency, at_exactly, at_least
from cupola.access.decision import Decision, Question, Step
from cupola.access.engine.at import Holder, Node, Resource
from cupola.access.errors import InvalidArgument
from cupola.access.relation import Filter, Must, Object, Precondition, Relationship, Subject
from cupola.access.server.http.body import Strict


class AtToken(Strict, kw_only=True):
    """As fresh as a token, or at exactly its revision."""

    at_least: str = ""
    at_exactly: str = ""


class Asked(Strict, kw_only=True):
    """What every question may say of the facts that it is answered from."""

    consistency: Literal["fast", "latest"] | AtToken = "fast"
    relationships: list[str] = []
    schema_id: str = ""

    def options(self) -> dict[str, Any]:
        """Returns the options of the graph's methods."""
        return {
            "consistency": consistency(self.consistency),
            "extra": [Relationship.parse(text) for text in self.relationships],
            "schema_id": self.schema_id,
        }


class Check(Asked, kw_only=True):
    """Whether a subject has a permission."""

    permission: str
    subject: str
    context: dict[str, Any] = {}
    explain: bool = False


class Item(Strict, kw_only=True):
    """One question of many."""

    permission: str
    subject: str
    context: dict[str, Any] = {}

    def question(self) -> Question:
        """Returns it as the graph takes it."""
        return Question(*permission_of(self.permission), Subject.parse(self.subject), self.context)


class CheckMany(Asked, kw_only=True):
    """Many questions, answered at one revision."""

    questions: list[Item]


class Expand(Asked, kw_only=True):
    """Who has a permission, as a tree."""

    permission: str


class LookupResources(Asked, kw_only=True):
    """On which objects of a type a subject has a permission."""

    type: str
    permission: str
    subject: str
    context: dict[str, Any] = {}
    limit: int = 100
    cursor: str = ""


class LookupSubjects(Asked, kw_only=True):
    """Which subjects of a type have a permission."""

    permission: str
    subject_type: str
    subject_relation: str = ""
    context: dict[str, Any] = {}
    limit: int = 100
    cursor: str = ""


class Permissions(Strict, kw_only=True):
    """All permissions of a subject on an object."""

    object: str
    subject: str
    context: dict[str, Any] = {}
    consistency: Literal["fast", "latest"] | AtToken = "fast"


class Which(Strict, kw_only=True):
    """Which relationships: those that match every part that is there."""

    type: str = ""
    id: str = ""
    id_prefix: str = ""
    relation: str = ""
    subject_type: str = ""
    subject_id: str = ""
    subject_relation: str | None = None

    def filter(self) -> Filter:
        """Returns it as the graph takes it."""
        return Filter(
            self.type,
            self.id,
            self.id_prefix,
            self.relation,
            self.subject_type,
            self.subject_id,
            self.subject_relation,
        )


class Read(Strict, kw_only=True):
    """Relationships as they were written."""

    filter: Which = Which()
    consistency: Literal["fast", "latest"] | AtToken = "fast"
    limit: int = 100
    cursor: str = ""


class Requirement(Strict, kw_only=True):
    """What must be so for a write to happen."""

    must: Literal["match", "not match"]
    filter: Which

    def precondition(self) -> Precondition:
        """Returns it as the graph takes it."""
        return Precondition(Must(self.must), self.filter.filter())


class Write(Strict, kw_only=True):
    """Changes that are made together or not at all."""

    create: list[str] = []
    touch: list[str] = []
    delete: list[str] = []
    require: list[Requirement] = []
    metadata: dict[str, Any] | None = None
    schema_id: str = ""


class Delete(Strict, kw_only=True):
    """Deletes what matches."""

    filter: Which
    require: list[Requirement] = []
    limit: int | None = None
    metadata: dict[str, Any] | None = None


class SchemaText(Strict, kw_only=True):
    """A schema; the language is told by its looks unless it is named."""

    text: str
    language: Literal["zed", "fga"] | None = None


def consistency(asked: Literal["fast", "latest"] | AtToken) -> Consistency:
    """Returns how fresh an answer must be.

    Raises:
        InvalidArgument: none or both of the tokens are there.
    """
    if isinstance(asked, str):
        return LATEST if asked == "latest" else FAST
    if bool(asked.at_least) == bool(asked.at_exactly):
        raise InvalidArgument(
            "names not one token",
            where="consistency",
            remedy='Send "fast", "latest", {"at_least": TOKEN} or {"at_exactly": TOKEN}.',
        )
    return at_least(asked.at_least) if asked.at_least else at_exactly(asked.at_exactly)


def permission_of(text: str) -> tuple[Object, str]:
    """Returns the object and the permission of a text such as `model:kiln#use`.

    Raises:
        InvalidArgument: it names none.
    """
    object, _, name = text.partition("#")
    if not name:
        raise InvalidArgument(f"{text!r} names no permission", where="permission", remedy="Write TYPE:ID#PERMISSION")
    return Object.parse(object), name


def shown_decision(decision: Decision) -> dict[str, Any]:
    """Returns a decision as an answer has it."""
    shown: dict[str, Any] = {
        "allowed": decision.allowed,
        "verdict": decision.verdict.value,
        "missing": decision.missing,
        "revision": decision.revision,
    }
    return shown if decision.why is None else shown | {"why": shown_step(decision.why)}


def shown_step(step: Step) -> dict[str, Any]:
    """Returns an explanation, with its parts."""
    return {
        "text": step.text,
        "verdict": step.verdict.value,
        "relationship": None if step.relationship is None else str(step.relationship),
        "missing": step.missing,
        "note": step.note,
        "parts": [shown_step(part) for part in step.parts],
    }


def shown_node(node: Node) -> dict[str, Any]:
    """Returns the tree of an expansion."""
    shown: dict[str, Any] = {"object": str(node.object), "relation": node.relation}
    if node.operator:
        return shown | {"operator": node.operator, "children": [shown_node(child) for child in node.children]}
    return shown | {"relationships": [str(one) for one in node.relationships]}


def shown_resource(resource: Resource) -> dict[str, Any]:
    """Returns an object that was found."""
    return {"id": resource.id, "missing": resource.missing}


def shown_holder(holder: Holder) -> dict[str, Any]:
    """Returns a subject that was found."""
    shown: dict[str, Any] = {"id": holder.id, "missing": holder.missing}
    return shown | {"excluded": [shown_holder(one) for one in holder.excluded]} if holder.excluded else shown
