"""A store over a database that speaks SQL.

Not here: the databases (`sqlite.py`, `postgres.py`), what a write does (`draft.py`), what a snapshot reads
(`snapshot.py`).
Invariant: what this process knows of the tenant is of one moment, and never goes back.
"""

import bisect
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from cupola.access.errors import StoreUnavailable
from cupola.access.relation import Filter, Operation, Precondition, Relationship, Update
from cupola.access.schema.model import Language, Schema
from cupola.access.schema.read import read_schema
from cupola.access.store.database import Database, Transaction
from cupola.access.store.draft import Draft, State, Text, newest
from cupola.access.store.migrate import migrate, tenant_of
from cupola.access.store.protocol import Change, SchemaVersion
from cupola.access.store.refuse import check_kept, check_limit, check_made
from cupola.access.store.rows import relationship_of, updates_of
from cupola.access.store.snapshot import SQLSnapshot

Result = TypeVar("Result")

_DERIVED = {
    Operation.CREATE.value: "created BETWEEN ? AND ?",
    Operation.DELETE.value: "deleted > 0 AND deleted BETWEEN ? AND ?",
}
"""A change too large for the changelog has there only what was done; the rows say to what. Asked for a range, SQLite
looks into the index of what was deleted at one place; asked for what equals, it reads the whole index."""


class SQLStore:
    """A tenant's part of a database.

    Args:
        database: opened; the store closes it.
        tenant: name.

    Raises:
        StoreUnavailable: the database was made by a newer version.
    """

    def __init__(self, database: Database, *, tenant: str = "default"):
        self._database, self.tenant = database, tenant
        migrate(database)
        self._number, self.id = tenant_of(database, tenant)
        self._state = State()
        self._learning = threading.Lock()
        self._read_schemas: dict[str, SchemaVersion] = {}
        self._written, self._writes, self._listens = threading.Condition(), 0, False
        self._refresh()

    def head(self) -> int:
        """Returns the newest revision, of whatever process; 0 before the first write."""
        return self._refresh().head

    def oldest(self) -> int:
        """Returns the oldest revision that a snapshot can still show."""
        return self._refresh().oldest

    def snapshot(self, revision: int) -> SQLSnapshot:
        """Returns the relationships at a revision.

        Raises:
            RevisionGone: it is older than the window.
            InvalidArgument: it was never made.
        """
        state = self._known(revision)
        check_made(revision, state.head)
        check_kept(revision, state.oldest)
        hedged = self._database.reading(self.id, revision)
        return SQLSnapshot(self._database.run, self._number, revision, state.kinds, look_up=hedged)

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
            InvalidArgument: two changes of one relationship, or `transaction` is no open one of this database.
        """

        def work(opened: Transaction) -> State:
            draft = Draft(opened, self._number, self._state)
            draft.expect(expect_schema, expect_head)
            draft.require(preconditions)
            changed = draft.apply(updates)
            schema_id = "" if schema is None else draft.schema(*schema)
            return draft.finish(changed, metadata=metadata, schema_id=schema_id)

        if transaction is not None:
            # Not known yet to be so: the application may still roll back.
            return self._database.join(transaction, self.id, work).head
        return self._commit(work).head

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
        count = 0

        def work(opened: Transaction) -> State:
            nonlocal count
            draft = Draft(opened, self._number, self._state)
            draft.require(preconditions)
            count = draft.delete(filter, limit)
            return draft.finish(Operation.DELETE.value, metadata=metadata)

        return self._commit(work).head, count

    def load(self, relationships: Iterable[Relationship]) -> int:
        """Creates many relationships at one revision, as fast as the database can; returns how many they were.

        Raises:
            AlreadyExists: one is there; nothing was written.
        """
        count, begun = 0, False

        def work(opened: Transaction) -> State:
            nonlocal count, begun
            if begun:
                raise StoreUnavailable("another write came between and the load cannot be done over; load again")
            begun = True
            draft = Draft(opened, self._number, self._state)
            count, made = draft.load(relationships)
            return draft.finish(made)

        self._commit(work)
        return count

    def changes(self, after: int, *, limit: int = 1000) -> Sequence[Change]:
        """Returns the writes after a revision, oldest first.

        Raises:
            RevisionGone: some of them are no longer kept.
        """
        check_limit(limit)
        rows = self._database.run(
            "SELECT revision, time, metadata, schema_id, updates FROM access_change"
            " WHERE tenant = ? AND revision > ? ORDER BY revision LIMIT ?",
            (self._number, after, limit),
        )
        changes = [
            Change(revision, moment, self._updates(revision, text), metadata, schema_id)
            for revision, moment, metadata, schema_id, text in rows
        ]
        # Looked at last, so that what is forgotten while it is read is an error and no gap.
        check_kept(after, self._refresh().oldest)
        return changes

    def wait(self, after: int, timeout_seconds: float) -> bool:
        """Waits until there is a revision after this one, made by whatever process; returns whether there is."""
        if not self._listens:
            self._listens = True
            self._database.listen(self._notify)
        until = time.monotonic() + timeout_seconds
        while True:
            seen = self._writes
            if self.head() > after:
                return True
            left = until - time.monotonic()
            if left <= 0:
                return False
            with self._written:
                self._written.wait_for(lambda: self._writes != seen, min(left, self._database.poll_seconds))  # noqa: B023

    def schemas(self) -> Sequence[SchemaVersion]:
        """Returns all versions, the newest last."""
        return [self._read(text) for text in self._refresh().texts]

    def schema(self, revision: int) -> SchemaVersion | None:
        """Returns the version in force at a revision."""
        texts = self._known(revision).texts
        place = bisect.bisect_right(texts, revision, key=lambda text: text.revision)
        return self._read(texts[place - 1]) if place else None

    def collect(self, before_seconds: float) -> int:
        """Forgets what no snapshot made after this time needs; returns how many versions went."""
        count = 0

        def work(opened: Transaction) -> State:
            nonlocal count
            state, count = Draft(opened, self._number, self._state).collect(before_seconds)
            return state

        self._commit(work)
        return count

    def close(self) -> None:
        """Lets go of the database."""
        self._database.close()
        self._notify()

    def _commit(self, work: Callable[[Transaction], State]) -> State:
        state = self._database.transact(work)
        self._learn(state)
        self._notify()
        return state

    def _notify(self) -> None:
        with self._written:
            self._writes += 1
            self._written.notify_all()

    def _known(self, revision: int) -> State:
        """Returns what is known, which is enough for a revision wherever it was made."""
        state = self._state
        return state if revision <= state.head else self._refresh()

    def _refresh(self) -> State:
        return self._learn(newest(self._database.run, self._number, self._state))

    def _learn(self, state: State) -> State:
        with self._learning:
            if (state.head, state.oldest) > (self._state.head, self._state.oldest):
                self._state = state
            return self._state

    def _read(self, text: Text) -> SchemaVersion:
        found = self._read_schemas.get(text.id)
        if found is None:
            found = SchemaVersion(text.id, text.revision, text.text, read_schema(text.text, Language(text.language)))
            self._read_schemas[text.id] = found
        return found

    def _updates(self, revision: int, text: str) -> tuple[Update, ...]:
        kinds = self._known(revision).kinds
        if text not in _DERIVED:
            return updates_of(kinds, text)
        rows = self._database.run(
            "SELECT kind, object, subject, caveat, expires FROM access_relationship"
            f" WHERE tenant = ? AND {_DERIVED[text]}",
            (self._number, revision, revision),
        )
        found = (relationship_of(kinds, row[:3], *row[3:]) for row in rows)
        return tuple(Update(Operation(text), one) for one in sorted(found, key=lambda one: one.key))
