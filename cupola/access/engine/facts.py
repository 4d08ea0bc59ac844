"""The relationships that hold in one answer.

Not here: reading and keeping them (`cache.py`), what they mean (`check.py`).
Invariant: what the schema in force does not allow, and what has expired, is not there; what the question brings
along is there as if it had been written, in the place of a stored one with the same key.
"""

from collections.abc import Hashable, Iterable, Sequence
from typing import Any

from cupola.access.engine.at import At
from cupola.access.engine.cache import (
    FOREVER,
    TOO_WIDE,
    Cache,
    Fan,
    ForwardKey,
    Held,
    ReverseKey,
    Row,
    Table,
    fan,
    held,
)
from cupola.access.relation import Object, Relationship, Subject


class Facts:
    """A snapshot as one answer sees it.

    Args:
        cache: of the store, under the schema in force.
        at: where the answer is given.

    Attributes:
        timeless: whether nothing was met so far that expires.

    Raises:
        RevisionGone: the revision is no longer kept.
        InvalidArgument: it was never made.
    """

    def __init__(self, cache: Cache, at: At):
        self.revision, self.now_seconds, self.timeless = at.revision, at.now_seconds, True
        self._cache, self._snapshot = cache, cache.snapshot(at.revision)
        self._forward: dict[ForwardKey, dict[Subject, Relationship]] = {}
        self._reverse: dict[ReverseKey, dict[str, Relationship]] = {}
        for one in at.extra:
            if cache.allows(one):
                (type, id), relation, subject = one.key
                self._forward.setdefault((type, id, relation), {})[subject] = one
                self._reverse.setdefault((subject, type, relation), {})[id] = one
        # What others have read serves all questions but those that bring relationships along.
        shared = not self._forward
        self.subject_rows: dict[Hashable, Row] = cache.subjects.rows if shared else {}
        self.userset_rows: dict[Hashable, Row] = cache.usersets.rows if shared else {}
        self.holding_rows: dict[Hashable, Row] = cache.holdings.rows if shared else {}
        self.single_rows: dict[Hashable, Row] = cache.singles.rows if shared else {}
        self.ways: dict[Hashable, Any] = cache.ways(at.revision) if shared else {}

    @property
    def changed(self) -> bool:
        """Whether the question brings relationships along."""
        return bool(self._forward)

    def find(self, object: Object, relation: str, subject: Subject) -> Relationship | None:
        """Returns the relationship of exactly this key."""
        found = self.single((object[0], object[1], relation), subject)
        return found if found is not None and self.lives(found) else None

    def subjects(self, object: Object, relation: str) -> Sequence[Relationship]:
        """Returns those of an object's relation."""
        return self._living(self.objects_fan((object[0], object[1], relation)).relationships)

    def indirect(self, object: Object, relation: str) -> Sequence[Relationship]:
        """Returns those of them whose subject has a relation or is a wildcard."""
        return self._living(self.usersets_fan((object[0], object[1], relation)).relationships)

    def objects(self, subject: Subject, type: str, relation: str) -> Sequence[Relationship]:
        """Returns those in which exactly this subject has a relation to objects of a type."""
        stored = filter(self._cache.allows, self._snapshot.objects(subject, type, relation))
        extra = self._reverse.get((subject, type, relation))
        if not extra:
            return self._living(stored)
        return self._living([*(one for one in stored if one.object.id not in extra), *extra.values()])

    def stored(self, object: Object, relation: str, subject: Subject) -> Relationship | None:
        """Returns the relationship of this key as it was written, hidden or not."""
        return self._snapshot.find(object, relation, subject)

    def lives(self, relationship: Relationship) -> bool:
        """Whether a relationship has not expired."""
        expires = relationship.expires_seconds
        if expires is None:
            return True
        self.timeless = False
        return expires > self.now_seconds

    # From here on: what has expired is still there; whoever asks looks at `lives`.

    def single(self, key: ForwardKey, subject: Subject) -> Relationship | None:
        """Returns the relationship of exactly this key."""
        if (extra := self._forward.get(key)) is not None and subject in extra:
            return extra[subject]
        return self._cache.single(key, subject, self.revision, self._snapshot)

    def objects_fan(self, key: ForwardKey) -> Fan:
        """Returns where an object's relation leads an arrow."""
        return self._fan(self._cache.subjects, self.subject_rows, key, 1)

    def usersets_fan(self, key: ForwardKey) -> Fan:
        """Returns the usersets of an object's relation."""
        return self._fan(self._cache.usersets, self.userset_rows, key, 2)

    def holdings(self, key: ReverseKey) -> Held:
        """Returns the objects of a type to which a subject has a relation, or TOO_WIDE."""
        found: Held = self._cache.get(self._cache.holdings, key, self.revision, self._snapshot)
        extra = self._reverse.get(key)
        if extra and found is not TOO_WIDE:
            more = held(extra.values())
            bound = {id: one for id, one in found.bound.items() if id not in extra} | more.bound
            found = Held((found.ids - extra.keys()) | more.ids, bound)
        return self._keep(self.holding_rows, key, found)

    def _fan(self, table: Table, rows: dict[Hashable, Row], key: ForwardKey, width: int) -> Fan:
        found: Fan = self._cache.get(table, key, self.revision, self._snapshot)
        if extra := self._forward.get(key):
            stored = (one for one in found.relationships if one.subject not in extra)
            added = (one for one in extra.values() if width == 1 or one.subject.relation or one.subject.id == "*")
            found = fan([*stored, *added], width)
        return self._keep(rows, key, found)

    def _keep(self, rows: dict[Hashable, Row], key: Hashable, value: Any) -> Any:
        if self._forward:
            rows[key] = Row(-1, FOREVER, value)
        return value

    def _living(self, relationships: Iterable[Relationship]) -> Sequence[Relationship]:
        return [one for one in relationships if self.lives(one)]
