"""Versions of relationships in memory, found by object and by subject, and what a revision shows of them.

Not here: writes as a whole and their changelog (`memory.py`).
Invariant: one thread writes at a time, readers never wait. A writer marks a bucket as changed before it changes it,
and its revision is told to readers only afterwards; so whoever reads at an older revision finds older versions in
place, and what is remembered of a bucket is of the change it names.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from itertools import islice

from cupola.access.relation import WILDCARD, Filter, Object, Relationship, Subject
from cupola.access.store.kinds import Kind, kind_of
from cupola.access.store.refuse import check_kept, check_limit
from cupola.access.store.rows import LIVE


class Version:
    """A relationship from one revision to another.

    Args:
        relationship: as it was then.
        created: first revision.
        older: the version of the same key before.
    """

    __slots__ = ("created", "deleted", "older", "relationship")

    def __init__(self, relationship: Relationship, created: int, older: "Version | None"):
        self.relationship, self.created, self.older = relationship, created, older
        self.deleted = LIVE

    def at(self, revision: int) -> Relationship | None:
        """Returns the relationship of this key at a revision; this is the newest version."""
        version: Version | None = self
        while version is not None and version.created > revision:
            version = version.older
        if version is None or LIVE < version.deleted <= revision:
            return None
        return version.relationship


class Bucket:
    """The relationships of an object's relation, or of a subject; what the newest revision shows is remembered."""

    __slots__ = ("_remembered", "changed", "newest")

    def __init__(self, changed: int):
        self.newest: dict[Hashable, Version] = {}
        self.changed = changed
        self._remembered: tuple[int, dict[Callable, tuple[Relationship, ...]]] = (changed, {})

    def view(
        self, revision: int, make: Callable[[Iterable[Relationship]], tuple[Relationship, ...]]
    ) -> tuple[Relationship, ...]:
        """Returns what `make` makes of the relationships at a revision."""
        changed = self.changed
        if changed > revision:
            return make(self._at(revision))
        remembered = self._remembered
        if remembered[0] != changed:
            remembered = self._remembered = (changed, {})
        found = remembered[1].get(make)
        if found is None:
            found = remembered[1][make] = make(self._at(revision))
        return found

    def _at(self, revision: int) -> Iterator[Relationship]:
        # The list is made at once: a dictionary that grows meanwhile cannot be walked.
        for version in list(self.newest.values()):
            found = version.at(revision)
            if found is not None:
                yield found


def indirect(relationships: Iterable[Relationship]) -> tuple[Relationship, ...]:
    """Returns those whose subject stands for many."""
    return tuple(one for one in relationships if one.subject.relation or one.subject.id == WILDCARD)


def ordered(relationships: Iterable[Relationship]) -> tuple[Relationship, ...]:
    """Returns all, sorted."""
    return tuple(sorted(relationships, key=lambda one: one.key))


Place = tuple[Object, str]
"""An object and a relation of it."""


class Table:
    """All versions that are kept: by places, by holders, and from which revision on (`oldest`)."""

    def __init__(self) -> None:
        self.oldest = 0
        self.places: dict[Place, Bucket] = {}
        self.holders: dict[tuple[Subject, str, str], Bucket] = {}
        self.kinds: dict[Kind, None] = {}
        self._ended: deque[Version] = deque()
        self._order: tuple[int, list[Place]] = (0, [])
        self._shape = 0

    def live(self, one: Relationship) -> Version | None:
        """Returns the newest version of a relationship's key, where it is not deleted."""
        bucket = self.places.get((one.object, one.relation))
        version = None if bucket is None else bucket.newest.get(one.subject)
        return None if version is None or version.deleted != LIVE else version

    def begin(self, one: Relationship, revision: int) -> None:
        """Adds a version."""
        self.kinds[kind_of(one)] = None
        place, holder = self._buckets(one)
        if place is None:
            place = self.places[one.object, one.relation] = Bucket(revision)
            self._shape += 1
        if holder is None:
            holder = self.holders[one.subject, one.object.type, one.relation] = Bucket(revision)
        place.changed = holder.changed = revision
        version = Version(one, revision, place.newest.get(one.subject))
        place.newest[one.subject] = holder.newest[one.object] = version

    def end(self, version: Version, revision: int) -> None:
        """Ends a version."""
        for bucket in self._buckets(version.relationship):
            if bucket is not None:
                bucket.changed = revision
        version.deleted = revision
        self._ended.append(version)

    def collect(self, oldest: int) -> int:
        """Forgets versions that ended by a revision, and returns how many they were."""
        self.oldest, count = oldest, 0
        while self._ended and self._ended[0].deleted <= oldest:
            self._forget(self._ended.popleft())
            count += 1
        return count

    def order(self) -> list[Place]:
        """Returns all places, sorted."""
        shape, found = self._shape, self._order
        if found[0] != shape:
            found = self._order = (shape, sorted(self.places))
        return found[1]

    def _buckets(self, one: Relationship) -> tuple[Bucket | None, Bucket | None]:
        return (
            self.places.get((one.object, one.relation)),
            self.holders.get((one.subject, one.object.type, one.relation)),
        )

    def _forget(self, ended: Version) -> None:
        one = ended.relationship
        place, holder = self._buckets(one)
        if place is None or holder is None:
            raise RuntimeError(f"{one} is in no table")
        version = place.newest[one.subject]
        if version is ended:
            del place.newest[one.subject], holder.newest[one.object]
            if not place.newest:
                del self.places[one.object, one.relation]
                self._shape += 1
            if not holder.newest:
                del self.holders[one.subject, one.object.type, one.relation]
        while version.older is not None:
            if version.older is ended:
                version.older = None
                break
            version = version.older


class MemorySnapshot:
    """All relationships at one revision.

    Args:
        table: that has them.
        revision: that was made.
    """

    def __init__(self, table: Table, revision: int):
        self._table, self.revision = table, revision

    def find(self, object: Object, relation: str, subject: Subject) -> Relationship | None:
        """Returns the relationship of exactly this key."""
        bucket = self._table.places.get((object, relation))
        version = None if bucket is None else bucket.newest.get(subject)
        found = None if version is None else version.at(self.revision)
        if self.revision < self._table.oldest:
            check_kept(self.revision, self._table.oldest)
        return found

    def subjects(self, object: Object, relation: str) -> Sequence[Relationship]:
        """Returns those of an object's relation."""
        return self._view(self._table.places.get((object, relation)), tuple)

    def indirect(self, object: Object, relation: str) -> Sequence[Relationship]:
        """Returns those of them whose subject has a relation or is a wildcard."""
        return self._view(self._table.places.get((object, relation)), indirect)

    def objects(self, subject: Subject, type: str, relation: str) -> Sequence[Relationship]:
        """Returns those in which a subject has a relation to objects of a type."""
        return self._view(self._table.holders.get((subject, type, relation)), tuple)

    def _view(self, bucket: Bucket | None, make: Callable) -> tuple[Relationship, ...]:
        found = () if bucket is None else bucket.view(self.revision, make)
        # Looked at last, so that what is forgotten while it is read is an error and no wrong answer.
        if self.revision < self._table.oldest:
            check_kept(self.revision, self._table.oldest)
        return found

    def read(
        self, filter: Filter, *, after: Relationship | None = None, limit: int | None = None
    ) -> Sequence[Relationship]:
        """Returns those that match, at most `limit`, that sort after `after`."""
        check_limit(limit)
        walk = self._held if filter.subject_id and not filter.id else self._placed
        found = list(islice((one for one in walk(filter, after) if filter.matches(one)), limit))
        check_kept(self.revision, self._table.oldest)
        return found

    def _held(self, filter: Filter, after: Relationship | None) -> Iterator[Relationship]:
        """Yields, sorted, the relationships of a subject's id."""
        found: list[Relationship] = []
        for kind in self._kinds(filter):
            bucket = self._table.holders.get((kind.subject(filter.subject_id), kind.type, kind.relation))
            found += () if bucket is None else bucket.view(self.revision, tuple)
        yield from (one for one in ordered(found) if after is None or one.key > after.key)

    def _placed(self, filter: Filter, after: Relationship | None) -> Iterator[Relationship]:
        """Yields, sorted, the relationships of places that a filter may match."""
        least = None if after is None else (after.object, after.relation)
        for place in self._places(filter, least):
            bucket = self._table.places.get(place)
            if bucket is not None:
                for one in bucket.view(self.revision, ordered):
                    if place != least or after is None or one.key > after.key:
                        yield one

    def _places(self, filter: Filter, least: Place | None) -> Iterator[Place]:
        if filter.id:
            named = {(Object(kind.type, filter.id), kind.relation) for kind in self._kinds(filter)}
            yield from sorted(place for place in named if least is None or place >= least)
            return
        order = self._table.order()
        first: Place = (Object(filter.type, filter.id_prefix if filter.type else ""), "")
        for place in islice(order, bisect_left(order, first if least is None else max(first, least)), None):
            object, relation = place
            if filter.type and (object.type != filter.type or not object.id.startswith(filter.id_prefix)):
                return
            if filter.relation in ("", relation):
                yield place

    def _kinds(self, filter: Filter) -> list[Kind]:
        return [kind for kind in list(self._table.kinds) if kind.matches(filter)]
