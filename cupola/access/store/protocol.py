"""What every store can do: snapshots by revision, atomic writes, a changelog.

Not here: what relationships mean (`engine/`), tokens (`token.py`), the stores themselves.
Invariant: a revision is a whole number that grows with every write of a tenant; what a snapshot of it shows never
changes, until it is older than the window that `collect` keeps, and then it raises instead. All methods may be
called by many threads at once.
Source: Pang et al. 2019, "Zanzibar", section 3.1: tuples with commit timestamps, a changelog in the same transaction.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from cupola.access.relation import Filter, Object, Precondition, Relationship, Subject, Update
from cupola.access.schema.model import Schema


class SchemaVersion(NamedTuple):
    """A schema as it was written.

    Args:
        id: of the version; OpenFGA calls it the authorization model's id. Later ones sort later (ULID).
        revision: that it was written at.
        text: as it was written.
        schema: that the text says.
    """

    id: str
    revision: int
    text: str
    schema: Schema


@dataclasses.dataclass(frozen=True)
class Change:
    """One write, as the changelog has it.

    Args:
        revision: that it made.
        time_seconds: since 1970, by the store's clock.
        updates: what truly changed, in the order they were written; a touch that changes nothing is left out,
            and so is a delete of what was not there; a delete carries the relationship as it was.
        metadata: that the writer sent along: a JSON object as text; "": none.
        schema_id: of the schema version that was written; "": none was.
    """

    revision: int
    time_seconds: float
    updates: tuple[Update, ...]
    metadata: str = ""
    schema_id: str = ""


@runtime_checkable
class Snapshot(Protocol):
    """All relationships as they are at one revision, those that have expired too: whoever reads them looks at the time.

    Methods that return several return all of them; those of `read` are sorted as `Relationship.key` sorts.
    """

    revision: int

    def find(self, object: Object, relation: str, subject: Subject) -> Relationship | None:
        """Returns the relationship of exactly this key."""

    def subjects(self, object: Object, relation: str) -> Sequence[Relationship]:
        """Returns those of an object's relation."""

    def indirect(self, object: Object, relation: str) -> Sequence[Relationship]:
        """Returns those of them whose subject has a relation or is a wildcard: what `find` does not answer."""

    def objects(self, subject: Subject, type: str, relation: str) -> Sequence[Relationship]:
        """Returns those in which a subject (exactly: `user:*` is not `user:ada`) has a relation to objects of a type."""

    def read(
        self, filter: Filter, *, after: Relationship | None = None, limit: int | None = None
    ) -> Sequence[Relationship]:
        """Returns those that match, at most `limit`, that sort after `after`."""


@runtime_checkable
class Store(Protocol):
    """A tenant's part of a database.

    Args:
        id: random, made with the tenant, so that a token of another store is known for one.
        tenant: name.
    """

    id: str
    tenant: str

    def head(self) -> int:
        """Returns the newest revision, of whatever process; 0 before the first write."""

    def oldest(self) -> int:
        """Returns the oldest revision that a snapshot can still show."""

    def snapshot(self, revision: int) -> Snapshot:
        """Returns the relationships at a revision.

        Raises:
            RevisionGone: it is older than the window.
            InvalidArgument: it was never made.
        """

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
        """Makes all changes or none, at one new revision, and returns it.

        Args:
            updates: no two of the same key (the caller has looked).
            preconditions: hold at the moment of the write.
            schema: (text, what it says) of a new version.
            expect_schema: id of the version that must be in force at the moment of the write; None: any.
            expect_head: the newest revision that must be, likewise; None: any.
            transaction: a connection of the application's to the same database, with its transaction open: the
                changes become true when the application commits, and not before; None: one of our own.

        Raises:
            AlreadyExists: a relationship to be created is there and has not expired.
            PreconditionFailed: one does not hold.
            Conflict: another write came between: what was expected is no more so.
            StoreUnavailable: the database is locked, full or gone.
        """

    def delete(
        self,
        filter: Filter,
        preconditions: Sequence[Precondition] = (),
        *,
        limit: int | None = None,
        metadata: str = "",
    ) -> tuple[int, int]:
        """Deletes what matches, at most `limit`, and returns the revision and how many they were."""

    def load(self, relationships: Iterable[Relationship]) -> int:
        """Creates many relationships at one revision, as fast as the database can; returns how many they were.

        Raises:
            AlreadyExists: one is there; nothing was written.
        """

    def changes(self, after: int, *, limit: int = 1000) -> Sequence[Change]:
        """Returns the writes after a revision, oldest first.

        Raises:
            RevisionGone: some of them are no longer kept.
        """

    def wait(self, after: int, timeout_seconds: float) -> bool:
        """Waits until there is a revision after this one, made by whatever process; returns whether there is."""

    def schemas(self) -> Sequence[SchemaVersion]:
        """Returns all versions, the newest last."""

    def schema(self, revision: int) -> SchemaVersion | None:
        """Returns the version in force at a revision."""

    def collect(self, before_seconds: float) -> int:
        """Forgets what no snapshot made after this time (since 1970) needs; returns how many versions of
        relationships went."""

    def close(self) -> None:
        """Lets go of the database."""
