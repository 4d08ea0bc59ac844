"""A store in the memory of one process.

Not here: how versions are found (`table.py`).
Invariant: what can refuse a write has looked before the first change is made; readers see the revision afterwards.
"""

import bisect
import threading
import time
from collections.abc import Iterable, Sequence
from typing import Any

from cupola.access.errors import InvalidArgument, StoreUnavailable
from cupola.access.relation import Filter, Must, Operation, Precondition, Relationship, Update
from cupola.access.schema.model import Schema
from cupola.access.store.protocol import Change, SchemaVersion
from cupola.access.store.refuse import (
    already_exists,
    check_expected,
    check_kept,
    check_limit,
    check_made,
    check_once,
    precondition_failed,
)
from cupola.access.store.table import MemorySnapshot, Table, Version
from cupola.access.store.ulid import new_ulid


class MemoryStore:
    """One tenant's schema and relationships, for as long as the process lives.

    Args:
        tenant: name.
    """

    def __init__(self, *, tenant: str = "default"):
        self.id, self.tenant = new_ulid(), tenant
        self._table, self._head = Table(), 0
        self._log: list[Change] = []
        self._schemas: tuple[SchemaVersion, ...] = ()
        self._written, self._closed = threading.Condition(), False

    def head(self) -> int:
        """Returns the newest revision; 0 before the first write."""
        if self._closed:
            raise StoreUnavailable("the store is closed", where=":memory:", remedy="Open a new one.")
        return self._head

    def oldest(self) -> int:
        """Returns the oldest revision that a snapshot can still show."""
        return self._table.oldest

    def snapshot(self, revision: int) -> MemorySnapshot:
        """Returns the relationships at a revision.

        Raises:
            RevisionGone: it is older than the window.
            InvalidArgument: it was never made.
        """
        check_made(revision, self.head())
        check_kept(revision, self._table.oldest)
        return MemorySnapshot(self._table, revision)

    def write(
        self,
        updates: Sequence[Update],
        preconditions: Sequence[Precondition] = (),
        *,
        metadata: str = "",
        schema: tuple[str, Schema] | None = None,
        expect_schema: str | None = None,
        expect_head: int | None = None,
        transaction: Any = None,
    ) -> int:
        """Makes all changes or none, at one new revision, and returns it; see `Store.write`.

        Raises:
            InvalidArgument: two changes of one relationship, or a transaction, which memory has not.
        """
        if transaction is not None:
            raise InvalidArgument(
                "a store in memory has no transactions to join",
                where="transaction",
                remedy="Open the graph on the application's own database.",
            )
        check_once(updates)
        with self._written:
            newest = self._schemas[-1].id if self._schemas else None
            check_expected(expect_schema, expect_head, newest_schema_id=newest, newest_head=self.head())
            now = self._require(preconditions)
            ended, changed = self._weigh(updates, now)
            return self._commit(ended, changed, now, metadata=metadata, schema=schema)

    def delete(
        self,
        filter: Filter,
        preconditions: Sequence[Precondition] = (),
        *,
        limit: int | None = None,
        metadata: str = "",
    ) -> tuple[int, int]:
        """Deletes what matches, at most `limit`, and returns the revision and how many they were."""
        check_limit(limit)
        with self._written:
            now = self._require(preconditions)
            found = self.snapshot(self._head).read(filter, limit=limit)
            ended = [version for one in found if (version := self._table.live(one)) is not None]
            changed = [Update(Operation.DELETE, one) for one in found]
            return self._commit(ended, changed, now, metadata=metadata), len(found)

    def load(self, relationships: Iterable[Relationship]) -> int:
        """Creates many relationships at one revision; returns how many they were.

        Raises:
            AlreadyExists: one is there, or comes twice; nothing was written.
        """
        updates, seen = [Update(Operation.CREATE, one) for one in relationships], set()
        for _, one in updates:
            if one.key in seen:
                raise already_exists(one)
            seen.add(one.key)
        with self._written:
            now = self._require(())
            ended, changed = self._weigh(updates, now)
            self._commit(ended, changed, now)
        return len(updates)

    def changes(self, after: int, *, limit: int = 1000) -> Sequence[Change]:
        """Returns the writes after a revision, oldest first.

        Raises:
            RevisionGone: some of them are no longer kept.
        """
        check_limit(limit)
        with self._written:
            check_kept(after, self._table.oldest)
            # Revisions have no gaps, and the log begins after the oldest.
            start = after - self._table.oldest
            return self._log[start : start + limit]

    def wait(self, after: int, timeout_seconds: float) -> bool:
        """Waits until there is a revision after this one; returns whether there is."""
        with self._written:
            return self._written.wait_for(lambda: self.head() > after, timeout_seconds)

    def schemas(self) -> Sequence[SchemaVersion]:
        """Returns all versions, the newest last."""
        return self._schemas

    def schema(self, revision: int) -> SchemaVersion | None:
        """Returns the version in force at a revision."""
        versions = self._schemas
        place = bisect.bisect_right(versions, revision, key=lambda version: version.revision)
        return versions[place - 1] if place else None

    def collect(self, before_seconds: float) -> int:
        """Forgets what no snapshot made after this time needs; returns how many versions went."""
        with self._written:
            gone = bisect.bisect_right(self._log, before_seconds, key=lambda change: change.time_seconds)
            count = self._table.collect(self._table.oldest + gone)
            del self._log[:gone]
            return count

    def close(self) -> None:
        """Ends the store: whoever waits for a write is told so."""
        with self._written:
            self._closed = True
            self._written.notify_all()

    def _require(self, preconditions: Sequence[Precondition]) -> float:
        """Refuses what is taken for granted and is not so; returns the time of the write."""
        # Time never goes back: `collect` finds revisions by it.
        now = max(time.time(), self._log[-1].time_seconds if self._log else 0.0)
        snapshot = self.snapshot(self.head())
        for must, filter in preconditions:
            there = any(not _expired(one, now) for one in snapshot.read(filter))
            if there != (must is Must.MATCH):
                raise precondition_failed(must, filter)
        return now

    def _weigh(self, updates: Sequence[Update], now: float) -> tuple[list[Version], list[Update]]:
        """Returns the versions that updates end, and those of them that change anything."""
        ended: list[Version] = []
        changed: list[Update] = []
        for update in updates:
            operation, one = update
            version = self._table.live(one)
            if version is None:
                changed += [update] if operation is not Operation.DELETE else []
                continue
            old = version.relationship
            if operation is Operation.CREATE and not _expired(old, now):
                raise already_exists(one)
            if operation is Operation.TOUCH and old[3:] == one[3:]:
                continue
            ended.append(version)
            changed.append(Update(operation, old) if operation is Operation.DELETE else update)
        return ended, changed

    def _commit(
        self,
        ended: Sequence[Version],
        changed: Sequence[Update],
        now: float,
        *,
        metadata: str = "",
        schema: tuple[str, Schema] | None = None,
    ) -> int:
        revision, schema_id = self._head + 1, ""
        for version in ended:
            self._table.end(version, revision)
        for operation, one in changed:
            if operation is not Operation.DELETE:
                self._table.begin(one, revision)
        if schema is not None:
            schema_id = new_ulid(self._schemas[-1].id if self._schemas else "")
            self._schemas = (*self._schemas, SchemaVersion(schema_id, revision, *schema))
        self._log.append(Change(revision, now, tuple(changed), metadata, schema_id))
        self._head = revision
        self._written.notify_all()
        return revision


def _expired(one: Relationship, now: float) -> bool:
    return one.expires_seconds is not None and one.expires_seconds <= now
