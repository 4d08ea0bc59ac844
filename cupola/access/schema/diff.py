"""What differs between two schemas.

Not here: whether relationships would be orphaned by it (`orphans.py`).
Invariant: empty exactly when the schemas differ in nothing but order, place and what they switch on.
"""

import dataclasses
import enum
from collections.abc import Iterable, Iterator
from typing import TypeVar

from cupola.access.schema.model import Allowed, Caveat, Definition, Relation, Schema


class Kind(enum.Enum):
    """What a difference is; the values are SpiceDB's names of them."""

    DEFINITION_ADDED = "definition_added"
    DEFINITION_REMOVED = "definition_removed"
    DEFINITION_DOC_CHANGED = "definition_doc_comment_changed"
    RELATION_ADDED = "relation_added"
    RELATION_REMOVED = "relation_removed"
    RELATION_DOC_CHANGED = "relation_doc_comment_changed"
    SUBJECT_ADDED = "relation_subject_type_added"
    SUBJECT_REMOVED = "relation_subject_type_removed"
    PERMISSION_ADDED = "permission_added"
    PERMISSION_REMOVED = "permission_removed"
    PERMISSION_DOC_CHANGED = "permission_doc_comment_changed"
    PERMISSION_EXPRESSION_CHANGED = "permission_expr_changed"
    CAVEAT_ADDED = "caveat_added"
    CAVEAT_REMOVED = "caveat_removed"
    CAVEAT_DOC_CHANGED = "caveat_doc_comment_changed"
    CAVEAT_EXPRESSION_CHANGED = "caveat_expr_changed"
    PARAMETER_ADDED = "caveat_parameter_added"
    PARAMETER_REMOVED = "caveat_parameter_removed"
    PARAMETER_TYPE_CHANGED = "caveat_parameter_type_changed"


@dataclasses.dataclass(frozen=True)
class Difference:
    """One difference.

    Args:
        type: object definition that it is in; "" where it is of a caveat.
        relation: or permission that it is in.
        allowed: of SUBJECT_ADDED and SUBJECT_REMOVED.
        caveat: that it is in.
        parameter: that it is about.
        before: type of the parameter; "" where it was not there.
        after: likewise.
    """

    kind: Kind
    type: str = ""
    relation: str = ""
    allowed: Allowed | None = None
    caveat: str = ""
    parameter: str = ""
    before: str = ""
    after: str = ""


def diff(before: Schema, after: Schema) -> list[Difference]:
    """Returns what has changed from one schema to the next: types first, then caveats, in the order of the texts.

    A relation of OpenFGA's language that is computed too counts as a relation, and a change of how it is computed as
    PERMISSION_EXPRESSION_CHANGED.
    """
    return [*_definitions(before, after), *_caveats(before, after)]


def _definitions(before: Schema, after: Schema) -> Iterator[Difference]:
    for old, new in _pairs(before.definitions, after.definitions):
        if new is None:
            yield Difference(Kind.DEFINITION_REMOVED, old.name if old else "")
        elif old is None:
            yield Difference(Kind.DEFINITION_ADDED, new.name)
        else:
            if old.doc != new.doc:
                yield Difference(Kind.DEFINITION_DOC_CHANGED, new.name)
            yield from _relations(old, new)


def _relations(before: Definition, after: Definition) -> Iterator[Difference]:
    type = after.name
    for old, new in _pairs(before, after):
        same = old is not None and new is not None and old.writable == new.writable
        if old is not None and not same:
            yield Difference(Kind.RELATION_REMOVED if old.writable else Kind.PERMISSION_REMOVED, type, old.name)
        if new is not None and not same:
            yield Difference(Kind.RELATION_ADDED if new.writable else Kind.PERMISSION_ADDED, type, new.name)
        if old is not None and new is not None and same:
            yield from _changes(type, old, new)


def _changes(type: str, old: Relation, new: Relation) -> Iterator[Difference]:
    if old.doc != new.doc:
        kind = Kind.RELATION_DOC_CHANGED if new.writable else Kind.PERMISSION_DOC_CHANGED
        yield Difference(kind, type, new.name)
    if old.rewrite != new.rewrite:
        yield Difference(Kind.PERMISSION_EXPRESSION_CHANGED, type, new.name)
    for allowed in old.allowed:
        if allowed not in new.allowed:
            yield Difference(Kind.SUBJECT_REMOVED, type, new.name, allowed)
    for allowed in new.allowed:
        if allowed not in old.allowed:
            yield Difference(Kind.SUBJECT_ADDED, type, new.name, allowed)


def _caveats(before: Schema, after: Schema) -> Iterator[Difference]:
    for old, new in _pairs(before.caveats, after.caveats):
        if new is None:
            yield Difference(Kind.CAVEAT_REMOVED, caveat=old.name if old else "")
        elif old is None:
            yield Difference(Kind.CAVEAT_ADDED, caveat=new.name)
        else:
            if old.doc != new.doc:
                yield Difference(Kind.CAVEAT_DOC_CHANGED, caveat=new.name)
            yield from _parameters(old, new)
            if old.expression != new.expression:
                yield Difference(Kind.CAVEAT_EXPRESSION_CHANGED, caveat=new.name)


def _parameters(before: Caveat, after: Caveat) -> Iterator[Difference]:
    old, new = dict(before.parameters), dict(after.parameters)
    for name in {**old, **new}:
        was, now = old.get(name, ""), new.get(name, "")
        if was != now:
            kind = Kind.PARAMETER_TYPE_CHANGED
            if not was or not now:
                kind = Kind.PARAMETER_ADDED if now else Kind.PARAMETER_REMOVED
            yield Difference(kind, caveat=after.name, parameter=name, before=was, after=now)


_Named = TypeVar("_Named", Definition, Relation, Caveat)


def _pairs(before: Iterable[_Named], after: Iterable[_Named]) -> Iterator[tuple[_Named | None, _Named | None]]:
    """Yields what has the same name in both; None where it is in one alone: first the old ones, then the new."""
    old, new = {one.name: one for one in before}, {one.name: one for one in after}
    for name in {**old, **new}:
        yield old.get(name), new.get(name)
