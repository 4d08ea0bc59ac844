"""What every kind of file comes down to: stages of a schema and facts, and what is claimed to follow.

Not here: reading the kinds (`spicedb.py`, `store.py`, `stages.py`), whether the claims hold (`run.py`).
Invariant: all carry the place where the file says them.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from cupola.access.decision import Verdict
from cupola.access.relation import Relationship, Subject
from cupola.access.schema.model import Language
from cupola.access.validate.place import Place
from cupola.access.validate.report import Kind


@dataclasses.dataclass(frozen=True)
class SchemaText:
    """A schema as a file says it.

    Args:
        text: of it.
        language: that it is in.
        source: name of the file that it stands in.
        starts: place of each line's beginning; empty: the text is a file of its own.
    """

    text: str
    language: Language
    source: str
    starts: tuple[Place, ...] = ()

    def place(self, line: int, column: int) -> Place:
        """Returns the place in the file of one in the text."""
        if not line:
            return self.starts[0] if self.starts else Place(self.source)
        if not self.starts:
            return Place(self.source, line, column)
        start = self.starts[min(line, len(self.starts)) - 1]
        return Place(start.source, start.line, start.column + max(column, 1) - 1)


class Fact(NamedTuple):
    """A relationship that holds, and where the file says so."""

    relationship: Relationship
    place: Place


class Tuple(NamedTuple):
    """A tuple as OpenFGA writes it; parts that are no names are for the one who is asked to refuse."""

    object: str
    relation: str
    user: str
    condition: str
    context: Mapping[str, Any]
    place: Place

    def __str__(self) -> str:
        return f"{self.object}#{self.relation}@{self.user}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Claim:
    """What is claimed to follow.

    Args:
        kind: of claim.
        place: where it is made.
        test: name of the test that it is part of.
        context: parameters for conditions.
        extra: tuples that hold in this answer only.
        code: of the error that OpenFGA is to answer with; None: it is to answer.
    """

    kind: Kind
    place: Place
    test: str = ""
    context: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    extra: tuple[Tuple, ...] = ()
    code: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check(Claim):
    """Whether a user has a relation to an object."""

    object: str
    relation: str
    user: str
    verdict: Verdict = Verdict.NO

    def __str__(self) -> str:
        return f"{self.object}#{self.relation}@{self.user}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ListObjects(Claim):
    """To which objects of a type a user has a relation; `expected` is TYPE:ID."""

    type: str
    relation: str
    user: str
    expected: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return f"objects of {self.type}#{self.relation}@{self.user}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ListUsers(Claim):
    """Which users of some kinds have a relation to an object.

    Args:
        kinds: (type, relation or "").
        expected: TYPE:ID, TYPE:* or TYPE:ID#RELATION.
    """

    object: str
    relation: str
    kinds: tuple[tuple[str, str], ...]
    expected: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return f"users of {self.object}#{self.relation}"


class Expected(NamedTuple):
    """A subject that a validation file expects.

    Args:
        subject: who.
        conditional: whether it is marked `[...]`.
        excluded: whom a wildcard leaves out, and whether perhaps.
        sources: relations that the subject stands in, `TYPE:ID#RELATION`.
    """

    subject: Subject
    conditional: bool
    excluded: frozenset[tuple[Subject, bool]]
    sources: frozenset[str]
    place: Place


@dataclasses.dataclass(frozen=True, kw_only=True)
class Holders(Claim):
    """Who, all in all, has a permission, and by which relations."""

    object: str
    relation: str
    expected: tuple[Expected, ...] = ()

    def __str__(self) -> str:
        return f"{self.object}#{self.relation}"


@dataclasses.dataclass(frozen=True)
class Stage:
    """A schema, the facts that come with it, and what is claimed to follow from them and those of earlier stages.

    Args:
        schema: None: the file has facts alone, which may be imported and cannot be run.
    """

    schema: SchemaText | None
    facts: tuple[Fact, ...]
    claims: tuple[Claim, ...]


@dataclasses.dataclass(frozen=True)
class Suite:
    """Stages of one store; each follows the one before.

    Args:
        name: of the test; "" where the file is one.
        stages: in their order.
    """

    name: str
    stages: tuple[Stage, ...]
