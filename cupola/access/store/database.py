"""What the SQL of this room needs of a database.

Not here: the databases (`sqlite.py`, `postgres.py`), the SQL (`snapshot.py`, `draft.py`, `sql.py`). Statements
are the same for all; `?` stands for a value.
Invariant: a failure of the database leaves here as `StoreUnavailable`, and its transaction has written nothing.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

from cupola.access.store.rows import Row

Run = Callable[[str, Sequence[Any]], list[Any]]
"""Runs a statement with its values and returns the rows."""
Result = TypeVar("Result")


class Dialect(NamedTuple):
    """Where databases differ.

    Args:
        text: the type of texts that sort by code points.
        without_rowid: what follows a table whose rows are to lie in its primary key.
        covering: columns of a row that an index repeats, so that a look-up needs the index alone.
        lock: what follows a query whose rows nobody else may change before the transaction ends.
        index_last: whether a load into an empty table had better make the index afterwards.
    """

    text: str
    without_rowid: str
    covering: str
    lock: str
    index_last: bool


@runtime_checkable
class Transaction(Protocol):
    """An open transaction."""

    dialect: Dialect

    def run(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        """Returns the rows of a statement."""

    def change(self, sql: str, values: Sequence[Any] = ()) -> int:
        """Returns how many rows a statement changed."""

    def each(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Runs a statement once for each row of values."""

    def fill(self, rows: Sequence[Row]) -> int:
        """Adds rows to the table of relationships, as fast as the database can.

        Returns how many, counted from the first: where a row is there already, some before it may be missing too.
        """

    def has(self, table: str) -> bool:
        """Whether there is a table of this name."""


@runtime_checkable
class Database(Protocol):
    """A database that many threads use at once."""

    name: str
    """For messages: no secret is in it."""
    poll_seconds: float
    """How long a change by another process may stay unnoticed."""

    def run(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        """Returns the rows of a statement, run by itself."""

    def reading(self, store_id: str, revision: int) -> Run:
        """Returns what runs a statement that asks about a revision, whose answer another copy may give as well."""

    def has(self, table: str) -> bool:
        """Whether there is a table of this name."""

    def transact(self, work: Callable[[Transaction], Result]) -> Result:
        """Returns what work returns, done in a transaction of its own: all or nothing.

        Work may be done over where the database cannot order it among others.
        """

    def join(self, transaction: Any, store_id: str, work: Callable[[Transaction], Result]) -> Result:
        """Returns what work returns, done in the application's open transaction.

        Raises:
            InvalidArgument: it is no open transaction of this database.
            Conflict: the transaction sees a past that is over; the application begins it again.
        """

    def listen(self, heard: Callable[[], None]) -> None:
        """Calls back, from now on, when another process may have written."""

    def close(self) -> None:
        """Lets go of all connections."""
