"""One new revision of a tenant, from the open transaction to the changelog.

Not here: reading at a revision (`snapshot.py`), transactions (`database.py`).
Invariant: whoever drafts holds the tenant's row until the transaction ends. So drafts of a tenant come one after
another, the order of their commits is the order of their revisions, and no reader sees a revision before all that are
smaller. Everything a draft looks at, it looks at under that lock.
Source: Pang et al. 2019, "Zanzibar", section 3.1.1: tuple and changelog are written in one transaction.
"""

import dataclasses
import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from cupola.access.errors import StoreUnavailable
from cupola.access.relation import WILDCARD, Filter, Must, Operation, Precondition, Relationship, Update, create
from cupola.access.schema.model import Schema
from cupola.access.store.database import Run, Transaction
from cupola.access.store.kinds import Kind, Kinds
from cupola.access.store.migrate import SUBJECT_INDEX, subject_index
from cupola.access.store.refuse import already_exists, check_expected, check_once, precondition_failed
from cupola.access.store.rows import (
    INSERT,
    LIVE,
    Key,
    Row,
    caveat_text,
    key_of,
    relationship_of,
    updates_text,
)
from cupola.access.store.snapshot import SQLSnapshot, conditions
from cupola.access.store.ulid import new_ulid

KEYS = 256
"""How many keys one statement looks for."""
ROWS = 20_000
"""How many rows a load adds at a time."""


class Text(NamedTuple):
    """A version of the schema as it is kept."""

    id: str
    revision: int
    language: str
    text: str


@dataclasses.dataclass(frozen=True)
class State:
    """What is known of a tenant, all as of one moment.

    Args:
        time_seconds: of the newest change.
        kinds: that there are.
        texts: versions of the schema, the newest last.
    """

    head: int = 0
    oldest: int = 0
    time_seconds: float = 0.0
    kinds: Kinds = Kinds()
    texts: tuple[Text, ...] = ()


def newest(run: Run, tenant: int, known: State, *, lock: str = "") -> State:
    """Returns what is so now.

    Args:
        known: what was so before.
        lock: of the dialect, to let nobody else write until the transaction ends.
    """
    head, oldest, moment, kinds, schemas = run(
        f"SELECT head, oldest, time, kinds, schemas FROM access_tenant WHERE number = ?{lock}", (tenant,)
    )[0]
    more: list[Any] = []
    if kinds > len(known.kinds):
        more = run(
            "SELECT type, relation, subject_type, subject_relation FROM access_kind"
            " WHERE tenant = ? AND number > ? AND number <= ? ORDER BY number",
            (tenant, len(known.kinds), kinds),
        )
    texts: list[Any] = []
    if schemas > len(known.texts):
        texts = run(
            "SELECT id, revision, language, text FROM access_schema"
            " WHERE tenant = ? AND number > ? AND number <= ? ORDER BY number",
            (tenant, len(known.texts), schemas),
        )
    return State(
        head,
        oldest,
        moment,
        known.kinds.plus([Kind(*row) for row in more]),
        (*known.texts, *(Text(*row) for row in texts)),
    )


class Draft:
    """A revision that is being made.

    Args:
        transaction: an open one.
        tenant: number of the tenant.
        known: of it.
    """

    def __init__(self, transaction: Transaction, tenant: int, known: State):
        self._transaction, self._tenant = transaction, tenant
        self._before = newest(transaction.run, tenant, known, lock=transaction.dialect.lock)
        self._revision = self._before.head + 1
        # Time never goes back: `collect` finds revisions by it.
        self._now = max(time.time(), self._before.time_seconds)
        self._kinds, self._texts = self._before.kinds, self._before.texts

    def expect(self, schema_id: str | None, head: int | None) -> None:
        """Refuses to go on where another write came between.

        Raises:
            Conflict: the newest schema or revision is another one.
        """
        newest_id = self._texts[-1].id if self._texts else None
        check_expected(schema_id, head, newest_schema_id=newest_id, newest_head=self._before.head)

    def require(self, preconditions: Sequence[Precondition]) -> None:
        """Refuses to go on where something taken for granted is not so; what has expired is not there.

        Raises:
            PreconditionFailed: one does not hold.
        """
        for must, filter in preconditions:
            if self._any(filter) != (must is Must.MATCH):
                raise precondition_failed(must, filter)

    def _any(self, filter: Filter) -> bool:
        kinds = self._kinds.matching(filter)
        if not kinds:
            return False
        where, values = conditions(filter)
        return bool(
            self._transaction.run(
                "SELECT 1 FROM access_relationship r WHERE r.tenant = ?"
                f" AND r.kind IN ({', '.join('?' * len(kinds))}){where} AND r.deleted = 0"
                " AND (r.expires IS NULL OR r.expires > ?) LIMIT 1",
                (self._tenant, *kinds, *values, self._now),
            )
        )

    def apply(self, updates: Sequence[Update]) -> str:
        """Makes changes and returns the changelog's text of what truly changed.

        Raises:
            AlreadyExists: one to be created is there.
            InvalidArgument: two changes of one relationship.
        """
        check_once(updates)
        self._learn(one for operation, one in updates if operation is not Operation.DELETE)
        keys = [None if self._kinds.number(one) is None else key_of(self._kinds, one) for _, one in updates]
        live = self._live([key for key in keys if key is not None])
        gone: list[Key] = []
        made: list[Row] = []
        changed: list[Update] = []
        for (operation, one), key in zip(updates, keys, strict=True):
            old = None if key is None else live.get(key)
            if key is not None and old is not None:
                caveat, expires, _ = old
                if operation is Operation.CREATE and not self._expired(expires):
                    raise already_exists(one)
                if operation is Operation.TOUCH and (caveat, expires) == (caveat_text(one.caveat), one.expires_seconds):
                    continue
                gone.append(key)
                if operation is Operation.DELETE:
                    changed.append(Update(operation, relationship_of(self._kinds, key, caveat, expires)))
            if operation is not Operation.DELETE:
                made.append(self._row(one))
                changed.append(Update(operation, one))
        self._delete(gone)
        if made:
            self._transaction.each(INSERT, made)
        return updates_text(self._kinds, changed)

    def delete(self, filter: Filter, limit: int | None) -> int:
        """Deletes what matches, at most `limit`, and returns how many they were."""
        before = SQLSnapshot(self._transaction.run, self._tenant, self._before.head, self._kinds)
        found = [key_of(self._kinds, one) for one in before.read(filter, limit=limit)]
        self._delete(found)
        return len(found)

    def load(self, relationships: Iterable[Relationship]) -> tuple[int, str]:
        """Adds many relationships and returns how many they were and the changelog's text of them.

        Raises:
            AlreadyExists: one is there, or comes twice.
        """
        transaction, count, chunk = self._transaction, 0, list[Relationship]()
        index_last = transaction.dialect.index_last and not transaction.run("SELECT 1 FROM access_relationship LIMIT 1")
        if index_last:
            transaction.run(f"DROP INDEX {SUBJECT_INDEX}")
        for one in relationships:
            chunk.append(one)
            if len(chunk) == ROWS:
                count += self._fill(chunk)
                chunk = []
        count += self._fill(chunk)
        if index_last:
            transaction.run(subject_index(transaction.dialect))
        # To find what was created by reading all that there is pays only for a large load.
        listed = count == len(chunk)
        made = updates_text(self._kinds, [create(one) for one in chunk]) if listed else Operation.CREATE.value
        return count, made

    def _fill(self, relationships: Sequence[Relationship]) -> int:
        self._learn(relationships)
        numbers, tenant, revision = self._kinds.numbers, self._tenant, self._revision
        # Millions pass here: plain tuples, and `key_of` written out.
        rows: list[Row] = [
            (
                tenant,
                numbers[type, relation, who, WILDCARD if subject == WILDCARD else subject_relation],
                object,
                subject,
                LIVE,
                revision,
                None if caveat is None else caveat_text(caveat),
                expires,
            )
            for (type, object), relation, (who, subject, subject_relation), caveat, expires in relationships
        ]
        done = self._transaction.fill(rows)
        while done < len(rows):
            self._make_way(rows[done:])
            done += self._transaction.fill(rows[done:])
        return len(rows)

    def _make_way(self, rows: Sequence[Row]) -> None:
        """Deletes what has expired and stands in the way of rows that are to be added."""
        live = self._live([row[1:4] for row in rows])
        seen: set[Key] = set()
        expired: list[Key] = []
        for row in rows:
            key = row[1:4]
            if key in live:
                _, expires, created = live[key]
                if created == self._revision or not self._expired(expires):
                    raise already_exists(relationship_of(self._kinds, key, None, None))
                expired.append(key)
            if key in seen:
                raise already_exists(relationship_of(self._kinds, key, None, None))
            seen.add(key)
        if not expired:
            raise StoreUnavailable("the database refuses relationships that it does not have")
        self._delete(expired)

    def schema(self, text: str, schema: Schema) -> str:
        """Adds a version of the schema and returns its id."""
        last = self._texts[-1].id if self._texts else ""
        made = Text(new_ulid(last), self._revision, schema.language.value, text)
        self._texts = (*self._texts, made)
        self._transaction.run(
            "INSERT INTO access_schema (tenant, number, id, revision, language, text) VALUES (?, ?, ?, ?, ?, ?)",
            (self._tenant, len(self._texts), *made),
        )
        return made.id

    def finish(self, updates: str, *, metadata: str = "", schema_id: str = "") -> State:
        """Writes the changelog, makes the revision the newest, and returns what is so once it is committed."""
        self._transaction.run(
            "INSERT INTO access_change (tenant, revision, time, metadata, schema_id, updates)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (self._tenant, self._revision, self._now, metadata, schema_id, updates),
        )
        self._transaction.run(
            "UPDATE access_tenant SET head = ?, time = ?, kinds = ?, schemas = ? WHERE number = ?",
            (self._revision, self._now, len(self._kinds), len(self._texts), self._tenant),
        )
        return State(self._revision, self._before.oldest, self._now, self._kinds, self._texts)

    def collect(self, before_seconds: float) -> tuple[State, int]:
        """Forgets versions that ended by the revision of a time; returns what is so then and how many they were."""
        run, change, tenant = self._transaction.run, self._transaction.change, self._tenant
        (found,) = run(
            "SELECT max(revision) FROM access_change WHERE tenant = ? AND time <= ?", (tenant, before_seconds)
        )[0]
        oldest = max(self._before.oldest, found or 0)
        count = change(
            "DELETE FROM access_relationship WHERE tenant = ? AND deleted > 0 AND deleted <= ?", (tenant, oldest)
        )
        change("DELETE FROM access_change WHERE tenant = ? AND revision <= ?", (tenant, oldest))
        change("UPDATE access_tenant SET oldest = ? WHERE number = ?", (oldest, tenant))
        return dataclasses.replace(self._before, oldest=oldest), count

    def _expired(self, expires: float | None) -> bool:
        return expires is not None and expires <= self._now

    def _row(self, one: Relationship) -> Row:
        kind, object, subject = key_of(self._kinds, one)
        caveat = caveat_text(one.caveat)
        return self._tenant, kind, object, subject, LIVE, self._revision, caveat, one.expires_seconds

    def _learn(self, relationships: Iterable[Relationship]) -> None:
        lacking = self._kinds.lacking(relationships)
        if lacking:
            first = len(self._kinds) + 1
            self._transaction.each(
                "INSERT INTO access_kind (tenant, number, type, relation, subject_type, subject_relation)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                [(self._tenant, number, *kind) for number, kind in enumerate(lacking, first)],
            )
            self._kinds = self._kinds.plus(lacking)

    def _live(self, keys: Sequence[Key]) -> dict[Key, tuple[str | None, float | None, int]]:
        """Returns caveat, expiration and creation of those keys that are there."""
        found: dict[Key, tuple[str | None, float | None, int]] = {}
        for start in range(0, len(keys), KEYS):
            some = keys[start : start + KEYS]
            rows = self._transaction.run(
                "SELECT r.kind, r.object, r.subject, r.caveat, r.expires, r.created"
                f" FROM (VALUES {', '.join(['(?, ?, ?)'] * len(some))}) k CROSS JOIN access_relationship r"
                " WHERE r.tenant = ? AND r.kind = k.column1 AND r.object = k.column2 AND r.subject = k.column3"
                " AND r.deleted = 0",
                [*(part for key in some for part in key), self._tenant],
            )
            found |= {row[:3]: row[3:] for row in rows}
        return found

    def _delete(self, keys: Sequence[Key]) -> None:
        if keys:
            self._transaction.each(
                "UPDATE access_relationship SET deleted = ?"
                " WHERE tenant = ? AND kind = ? AND object = ? AND subject = ? AND deleted = 0",
                [(self._revision, self._tenant, *key) for key in keys],
            )
