"""Stored facts as they were read, kept across revisions until the changelog touches them.

Not here: what one question sees of them (`facts.py`), what they mean (`check.py`).
Invariant: what a row holds is what the store would answer at every revision from `since` up to, not including,
`until`. A row is open (`until` is FOREVER) only as long as no change up to `applied` touched its key, and nobody is
answered at a revision beyond `applied`.
Source: Pang et al. 2019, "Zanzibar", sections 3.2.5 (lock table, prefetched hot relations) and 2.4.1.
"""

import itertools
import sys
import threading
from collections.abc import Callable, Hashable, Iterable
from typing import Any, NamedTuple

from cupola.access.errors import RevisionGone
from cupola.access.relation import WILDCARD, Filter, Object, Relationship, Subject
from cupola.access.store.protocol import Snapshot, Store

FOREVER = sys.maxsize
UNREAD: Any = object()
"""Value of a row that nobody has read yet."""
MOST_FACTS = 1_000_000
"""Facts that the rows of one schema version may hold together, where nothing else is said."""
MOST_TOUCHED = 200_000
"""Keys of which the last change is remembered."""
MOST_ANSWERS = 200_000
MOST_REVISIONS = 10_000
"""Writes that are caught up with one by one; beyond, everything is read anew."""
WIDE = 4096
"""Objects of one subject and relation, from which on they are looked up one by one."""
HOT = 8
"""Lookups in an object's relation, after which all of it is read."""
WHOLE = 16_384
"""Relationships of an object's relation that are read at once; where there are more, each is looked up."""
BATCH = 1000
"""Writes that are caught up with at a time."""
STRIPES = 64

ForwardKey = tuple[str, str, str]
"""Type, id and relation of an object: what is written to it changes it."""
ReverseKey = tuple[Subject, str, str]
"""Subject, type and relation: likewise."""


class Fan(NamedTuple):
    """The relationships of an object's relation, and where they lead.

    Args:
        relationships: all of them.
        plain: ids by kind, of the subjects that no caveat and no expiration binds; a kind is (type,) of an arrow and
            (type, relation) of a userset; wildcards lead nowhere.
        bound: the other ones.
    """

    relationships: tuple[Relationship, ...]
    plain: dict[tuple[str, ...], frozenset[str]]
    bound: tuple[Relationship, ...]


class Held(NamedTuple):
    """The objects of a type to which a subject has a relation of its own.

    Args:
        ids: those that hold without condition and forever.
        bound: the others, by id.
    """

    ids: frozenset[str]
    bound: dict[str, Relationship]


TOO_WIDE = Held(frozenset(), {})
"""Instead of too many objects; it is no answer but a hint, and stays however they change."""


def fan(relationships: Iterable[Relationship], width: int) -> Fan:
    """Returns where relationships lead; kinds are the first `width` of (type, relation)."""
    every = tuple(relationships)
    plain: dict[tuple[str, ...], set[str]] = {}
    bound = []
    for one in every:
        subject = one.subject
        if subject.id == WILDCARD or (width == 2 and not subject.relation):
            continue
        if one.caveat is not None or one.expires_seconds is not None:
            bound.append(one)
        else:
            plain.setdefault((subject.type, subject.relation)[:width], set()).add(subject.id)
    return Fan(every, {kind: frozenset(ids) for kind, ids in plain.items()}, tuple(bound))


def held(relationships: Iterable[Relationship]) -> Held:
    """Returns the objects of relationships of one subject."""
    ids, bound = set(), {}
    for one in relationships:
        if one.caveat is not None or one.expires_seconds is not None:
            bound[one.object.id] = one
        else:
            ids.add(one.object.id)
    return Held(frozenset(ids), bound)


class Row:
    """One read, and the revisions that it is true of."""

    __slots__ = ("since", "until", "value")

    def __init__(self, since: int, until: int, value: Any = UNREAD):
        self.since, self.until, self.value = since, until, value


class Table:
    """The reads of one kind.

    Args:
        read: answers a key from a snapshot.
        weigh: how many facts a value holds.
    """

    def __init__(self, read: Callable[[Snapshot, Any], Any], weigh: Callable[[Any], int]):
        self.rows: dict[Hashable, Row] = {}
        self.read, self.weigh = read, weigh
        self.touched: dict[Hashable, int] = {}
        self.facts = 0

    def touch(self, key: Hashable, revision: int) -> None:
        """Notes that a write at a revision changed what a key answers."""
        self.touched[key] = revision
        row = self.rows.get(key)
        if row is not None and row.until > revision and row.value is not TOO_WIDE:
            row.until = revision

    def shrink(self, most: int) -> None:
        """Forgets the rows that came first, until at most so many facts are held."""
        while self.facts > most and self.rows:
            for key in list(itertools.islice(self.rows, 1 + len(self.rows) // 8)):
                row = self.rows.pop(key)
                self.facts -= 1 + (0 if row.value is UNREAD else self.weigh(row.value))
        self.facts = max(0, self.facts) if self.rows else 0


class Cache:
    """What was read of a store, under one schema: facts that it does not allow are left out.

    Args:
        allows: whether the schema allows a relationship.
        leads: whether a plan can go on from the subject of a relationship.
        most_facts: that the rows may hold together.
    """

    def __init__(
        self,
        store: Store,
        allows: Callable[[Relationship], bool],
        *,
        leads: Callable[[Relationship], bool] = lambda _: True,
        most_facts: int = MOST_FACTS,
    ):
        self._store, self.allows, self._leads, self._most_facts = store, allows, leads, most_facts
        self._lock = threading.RLock()
        self._stripes = [threading.Lock() for _ in range(STRIPES)]
        self._applied = self._floor = -1
        self._newest: tuple[int, Snapshot | None] = (-1, None)
        self._lookups: dict[ForwardKey, tuple[int, int]] = {}
        self._answers: tuple[int, dict[Hashable, bool]] = (-1, {})
        self._ways: tuple[int, dict[Hashable, Any]] = (FOREVER, {})
        self.asked: dict[Hashable, threading.Lock] = {}
        """Questions that somebody is answering (a lock table), and what to wait for."""
        self.subjects = Table(self._read_subjects, lambda value: len(value.relationships))
        self.usersets = Table(self._read_usersets, lambda value: len(value.relationships))
        self.holdings = Table(self._read_holdings, lambda value: len(value.ids))
        self.singles = Table(self._read_single, lambda _: 0)
        self.wholes = Table(self._read_whole, lambda value: 0 if value is None else len(value))
        self._tables = (self.subjects, self.usersets, self.holdings, self.singles, self.wholes)

    def snapshot(self, revision: int) -> Snapshot:
        """Returns the store's snapshot, and makes the rows fit to answer at its revision.

        Raises:
            RevisionGone: it is older than the window.
            InvalidArgument: it was never made.
        """
        known, snapshot = self._newest
        if known == revision and snapshot is not None:
            return snapshot
        snapshot = self._store.snapshot(revision)
        with self._lock:
            if revision > self._applied:
                self._advance(revision)
            if revision > self._newest[0]:
                self._newest = revision, snapshot
        return snapshot

    def answers(self, revision: int) -> dict[Hashable, bool]:
        """Returns the answers at a revision, which all who ask at the newest one share."""
        newest, found = self._answers
        if revision == newest:
            return found
        with self._lock:
            if revision > self._answers[0]:
                self._answers = revision, {}
            newest, found = self._answers
            return found if revision == newest else {}

    def ways(self, revision: int) -> dict[Hashable, Any]:
        """Returns what questions about some objects lead to at a revision, whoever they ask for; more may be added.

        No relationship that leads on was changed since: those of single users change no way.
        """
        since, found = self._ways
        return found if revision >= since else {}

    def get(self, table: Table, key: Any, revision: int, snapshot: Snapshot) -> Any:
        """Returns what a key answers at a revision; many who ask the same at once wait for one read."""
        row = self._row(table, key, revision)
        if row.value is UNREAD:
            with self._stripes[hash(key) % STRIPES]:
                if row.value is UNREAD:
                    value = table.read(snapshot, key)
                    with self._lock:
                        table.facts += table.weigh(value)
                        row.value = value
                        table.shrink(self._most_facts // len(self._tables))
        return row.value

    def single(self, key: ForwardKey, subject: Subject, revision: int, snapshot: Snapshot) -> Relationship | None:
        """Returns the relationship of exactly this key; all of a relation that is often asked about is read at once."""
        row = self.wholes.rows.get(key)
        if row is not None and row.since <= revision < row.until and row.value is not UNREAD:
            if row.value is not None:
                return row.value.get(subject)
            return self.get(self.singles, (key, subject), revision, snapshot)
        asked, enough = self._lookups.get(key, (0, HOT))
        if asked >= enough:
            whole = self.get(self.wholes, key, revision, snapshot)
            # A relation that is written to often is read whole again only when that has paid.
            self._lookups[key] = 0, max(HOT, (WHOLE if whole is None else len(whole)) // 4)
            if whole is not None:
                return whole.get(subject)
        if len(self._lookups) > MOST_TOUCHED:
            self._lookups.clear()
        self._lookups[key] = asked + 1, enough
        return self.get(self.singles, (key, subject), revision, snapshot)

    def _row(self, table: Table, key: Any, revision: int) -> Row:
        row = table.rows.get(key)
        if row is not None and row.since <= revision < row.until:
            return row
        with self._lock:
            row = table.rows.get(key)
            if row is not None and row.since <= revision < row.until:
                return row
            last = table.touched.get(key, self._floor)
            if self._floor <= last <= revision:
                kept, made = key, Row(last, FOREVER)
            else:
                # A snapshot from before what is remembered: true of it alone.
                kept, made = (revision, key), table.rows.get((revision, key)) or Row(revision, revision + 1)
            if kept not in table.rows:
                table.facts += 1
            elif kept is key:
                old = table.rows[kept].value
                table.facts -= 0 if old is UNREAD else table.weigh(old)
            table.rows[kept] = made
            return made

    def _advance(self, revision: int) -> None:
        if self._applied < 0 or revision - self._applied > MOST_REVISIONS:
            self._forget(revision)
        try:
            while self._applied < revision:
                changes = self._store.changes(self._applied, limit=BATCH)
                for change in changes:
                    for update in change.updates:
                        self._touch(update.relationship, change.revision)
                last = changes[-1].revision if changes else revision
                self._applied = last if len(changes) == BATCH else max(revision, last)
        except RevisionGone:
            self._forget(revision)
        if sum(len(table.touched) for table in self._tables) > MOST_TOUCHED:
            # Open rows stay true; what is read from now on is known to hold from here on alone.
            self._floor = self._applied
            for table in self._tables:
                table.touched.clear()

    def _touch(self, changed: Relationship, revision: int) -> None:
        (type, id), relation, subject = changed.key
        forward = type, id, relation
        if self._leads(changed):
            self._ways = revision, {}
        self.subjects.touch(forward, revision)
        self.wholes.touch(forward, revision)
        if subject.relation or subject.id == WILDCARD:
            self.usersets.touch(forward, revision)
        self.holdings.touch((subject, type, relation), revision)
        self.singles.touch((forward, subject), revision)

    def _forget(self, revision: int) -> None:
        for table in self._tables:
            table.rows.clear()
            table.touched.clear()
            table.facts = 0
        self._applied = self._floor = revision
        self._ways = revision, {}

    def _read_subjects(self, snapshot: Snapshot, key: ForwardKey) -> Fan:
        type, id, relation = key
        return fan(filter(self.allows, snapshot.subjects(Object(type, id), relation)), 1)

    def _read_usersets(self, snapshot: Snapshot, key: ForwardKey) -> Fan:
        type, id, relation = key
        return fan(filter(self.allows, snapshot.indirect(Object(type, id), relation)), 2)

    def _read_holdings(self, snapshot: Snapshot, key: ReverseKey) -> Held:
        found = snapshot.objects(*key)
        return TOO_WIDE if len(found) > WIDE else held(filter(self.allows, found))

    def _read_single(self, snapshot: Snapshot, key: tuple[ForwardKey, Subject]) -> Relationship | None:
        (type, id, relation), subject = key
        found = snapshot.find(Object(type, id), relation, subject)
        return found if found is not None and self.allows(found) else None

    def _read_whole(self, snapshot: Snapshot, key: ForwardKey) -> dict[Subject, Relationship] | None:
        type, id, relation = key
        found = snapshot.read(Filter(type=type, id=id, relation=relation), limit=WHOLE + 1)
        return None if len(found) > WHOLE else {one.subject: one for one in found if self.allows(one)}
