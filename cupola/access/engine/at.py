"""Where an answer is given: one revision, one schema, one moment, one context.

Not here: how the revision is chosen (`consistency.py`).
"""

import dataclasses
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from cupola.access.engine.deadline import Deadline
from cupola.access.relation import Object, Relationship, Subject
from cupola.access.store.protocol import SchemaVersion

NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclasses.dataclass(frozen=True)
class At:
    """What all parts of one answer share.

    Args:
        revision: of the relationships.
        version: of the schema.
        now_seconds: since 1970: relationships that expire at or before it do not hold.
        context: parameters for conditions.
        extra: relationships that hold in this answer only, as if they had been written (contextual tuples).
        deadline: when the answer must be there.
    """

    revision: int
    version: SchemaVersion
    now_seconds: float
    context: Mapping[str, Any] = dataclasses.field(default_factory=lambda: NOTHING)
    extra: tuple[Relationship, ...] = ()
    deadline: Deadline = dataclasses.field(default_factory=lambda: Deadline(math.inf), compare=False)


class Resource(NamedTuple):
    """An object on which a subject has a permission.

    Args:
        missing: parameters without which that is not certain; empty: it is.
    """

    id: str
    missing: tuple[str, ...] = ()


class Holder(NamedTuple):
    """A subject that has a permission on an object.

    Args:
        id: `*`: all of the type but those in `excluded`.
        missing: parameters without which that is not certain.
        excluded: holders that a wildcard leaves out, those with `missing` perhaps.
    """

    id: str
    missing: tuple[str, ...] = ()
    excluded: tuple["Holder", ...] = ()


class Node(NamedTuple):
    """A part of the tree that `expand` returns.

    Args:
        object: whose relation it is.
        relation: that is expanded.
        operator: "union", "intersection" or "exclusion" over the children; "" where the node has subjects.
        children: parts.
        relationships: of a leaf: each is a subject and its condition.
        through: the relationship with a caveat by which an arrow led here; None: the way is free.
    """

    object: Object
    relation: str
    operator: str = ""
    children: tuple["Node", ...] = ()
    relationships: tuple[Relationship, ...] = ()
    through: Relationship | None = None

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """The subjects of a leaf."""
        return tuple(relationship.subject for relationship in self.relationships)
