"""A PostgreSQL or CockroachDB database.

Not here: what is in it (`migrate.py`).
Invariant: the statements are the same on both. Where the database cannot order a transaction among others it is done
over; nothing rests on notifications, which CockroachDB has not: they only shorten a wait.
"""

import functools
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import psycopg
from psycopg import conninfo, errors
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout

from cupola.access.errors import Conflict, InvalidArgument, StoreUnavailable
from cupola.access.store.database import Dialect, Result, Run, Transaction
from cupola.access.store.hedge import Hedge
from cupola.access.store.rows import COLUMNS, Row

POSTGRES = Dialect(
    # Code points in their order, whatever the language of the database.
    text='TEXT COLLATE "C"',
    without_rowid="",
    # An entry of an index must fit into a third of a page, and a caveat's context need not.
    covering="",
    lock=" FOR UPDATE",
    index_last=True,
)
COCKROACH = POSTGRES._replace(text="TEXT", index_last=False)
CHANNEL = "access_written"
ATTEMPTS = 10
"""How often a transaction is done over."""
CONNECTIONS = 16

_AGAIN = (errors.SerializationFailure, errors.DeadlockDetected, errors.UniqueViolation, errors.DuplicateTable)
"""Somebody else did the same at the same time."""
_LOCKED = (errors.LockNotAvailable, errors.QueryCanceled)
_SECOND_SECONDS = 1.0
"""How long a second read waits for a connection."""
_HEAD = "SELECT head FROM access_tenant WHERE id = %s"
_HAS = "SELECT to_regclass(?) IS NOT NULL"
_COPY = f"COPY access_relationship ({', '.join(COLUMNS)}) FROM STDIN"


@functools.cache
def _marked(sql: str) -> str:
    return sql.replace("?", "%s")


def _is_cut(error: Exception) -> bool:
    """Whether the server, or the way to it, was gone: it was started again perhaps."""
    lost = isinstance(error, psycopg.OperationalError) and error.sqlstate is None
    return lost or isinstance(error, errors.AdminShutdown | errors.CrashShutdown)


class Behind(Exception):
    """Another copy of the database has not heard of a revision yet, or is of something else."""


class PostgresTransaction:
    """An open transaction of a connection."""

    def __init__(self, connection: psycopg.Connection[Any], dialect: Dialect):
        self.dialect = dialect
        self._connection = connection
        self._cursor = connection.cursor(row_factory=tuple_row)

    def run(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        """Returns the rows of a statement."""
        self._cursor.execute(_marked(sql), values)
        return [] if self._cursor.description is None else self._cursor.fetchall()

    def change(self, sql: str, values: Sequence[Any] = ()) -> int:
        """Returns how many rows a statement changed."""
        return self._cursor.execute(_marked(sql), values).rowcount

    def each(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Runs a statement once for each row of values."""
        self._cursor.executemany(_marked(sql), rows)

    def fill(self, rows: Sequence[Row]) -> int:
        """Adds all rows, or none where one is there already; returns how many."""
        try:
            with (
                self._connection.transaction(),
                self._cursor.copy(_COPY) as copy,
            ):
                for row in rows:
                    copy.write_row(row)
        except errors.UniqueViolation:
            return 0
        return len(rows)

    def has(self, table: str) -> bool:
        """Whether there is a table of this name."""
        return bool(self.run(_HAS, (table,))[0][0])


class PostgresDatabase:
    """A database on a server.

    Args:
        address: "postgresql://USER:PASSWORD@HOST:PORT/DATABASE".
        timeout_seconds: how long a writer waits for another one, and anybody for a connection.
        second_address: of a replica, or the same again: look-ups that take long are made there too, and the first
            answer counts. "": they are not.

    Raises:
        InvalidArgument: the address cannot be read.
        StoreUnavailable: the server cannot be reached.
    """

    poll_seconds = 0.1

    def __init__(self, address: str, *, timeout_seconds: float = 5.0, second_address: str = ""):
        self._address, self._timeout = address, timeout_seconds
        self._closing = threading.Event()
        self._listener: threading.Thread | None = None
        try:
            parts = conninfo.conninfo_to_dict(address)
        except psycopg.ProgrammingError:
            # The error quotes the address, and with it the password.
            raise InvalidArgument(
                "the address cannot be read", where="address", remedy='Write "postgresql://USER@HOST/DATABASE".'
            ) from None
        self.name = f"{parts.get('dbname', 'postgres')} at {parts.get('host', 'localhost')}"
        try:
            # Asked once without the pool, which would not tell what is wrong.
            with psycopg.connect(address, connect_timeout=max(2, round(timeout_seconds))) as connection:
                self._cockroach = "CockroachDB" in connection.execute("SELECT version()").fetchall()[0][0]
        except psycopg.Error as error:
            raise self._explained(error) from error
        self._dialect = COCKROACH if self._cockroach else POSTGRES
        self._pool = self._connect(address, timeout_seconds)
        self._second = self._connect(second_address, _SECOND_SECONDS) if second_address else None
        self._hedge = Hedge(2 * CONNECTIONS) if second_address else None

    def _connect(self, address: str, timeout_seconds: float) -> ConnectionPool:
        return ConnectionPool(
            address,
            min_size=1,
            max_size=CONNECTIONS,
            timeout=timeout_seconds,
            kwargs={"autocommit": True},
            configure=self._configure,
            open=True,
        )

    def run(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        """Returns the rows of a statement, run by itself."""
        try:
            try:
                return self._run(sql, values)
            except psycopg.OperationalError as error:
                if not _is_cut(error):
                    raise
                self._pool.check()
                return self._run(sql, values)
        except (psycopg.Error, PoolTimeout, PoolClosed, UnicodeEncodeError) as error:
            raise self._explained(error) from error

    def _run(self, sql: str, values: Sequence[Any]) -> list[Any]:
        with self._pool.connection() as connection:
            return connection.execute(_marked(sql), values).fetchall()

    def reading(self, store_id: str, revision: int) -> Run:
        """Returns what runs a statement that asks about a revision, on another copy too where that takes long."""
        second, hedge = self._second, self._hedge
        if second is None or hedge is None:
            return self.run

        def run(sql: str, values: Sequence[Any] = ()) -> list[Any]:
            def elsewhere() -> list[Any]:
                with second.connection() as connection:
                    # A copy never goes back, so what has this revision now has it in the next statement.
                    heads = connection.execute(_HEAD, (store_id,)).fetchall()
                    if not heads or heads[0][0] < revision:
                        raise Behind
                    return connection.execute(_marked(sql), values).fetchall()

            try:
                return hedge.run(lambda: self.run(sql, values), elsewhere)
            except RuntimeError:
                # It takes no more questions, because the store is closed; and that says so.
                return self.run(sql, values)

        return run

    def has(self, table: str) -> bool:
        """Whether there is a table of this name."""
        return bool(self.run(_HAS, (table,))[0][0])

    def transact(self, work: Callable[[Transaction], Result]) -> Result:
        """Returns what work returns, done in a transaction of its own: all or nothing."""
        for attempt in range(1, ATTEMPTS + 1):
            begun = False
            try:
                with self._pool.connection() as connection, connection.transaction():
                    begun = True
                    result = work(PostgresTransaction(connection, self._dialect))
                    if not self._cockroach:
                        connection.execute(f"NOTIFY {CHANNEL}")
                return result
            except _AGAIN as error:
                if attempt == ATTEMPTS:
                    raise Conflict(
                        f"other writes came between {ATTEMPTS} times", where=self.name, remedy="Try again later."
                    ) from error
                self._closing.wait(0.005 * 2**attempt)
            except (psycopg.Error, PoolTimeout, PoolClosed, UnicodeEncodeError) as error:
                # A connection that was cut while nobody used it has lost nothing.
                if begun or attempt > 1 or not _is_cut(error):
                    raise self._explained(error) from error
                self._pool.check()
        raise RuntimeError("unreachable: the last attempt returns or raises")

    def join(self, transaction: Any, store_id: str, work: Callable[[Transaction], Result]) -> Result:
        """Returns what work returns, done in the application's open transaction."""
        if (
            not isinstance(transaction, psycopg.Connection)
            or transaction.info.transaction_status != TransactionStatus.INTRANS
        ):
            raise InvalidArgument(
                f"{type(transaction).__name__} is no psycopg.Connection with an open transaction",
                where="transaction",
                remedy="Write inside: with connection.transaction():",
            )
        joined = PostgresTransaction(transaction, self._dialect)
        try:
            with transaction.transaction():
                if not joined.has("access_tenant") or not joined.run(
                    "SELECT 1 FROM access_tenant WHERE id = ?", (store_id,)
                ):
                    raise InvalidArgument(
                        "the connection is to another database", where="transaction", remedy=f"Connect to {self.name}."
                    )
                result = work(joined)
                if not self._cockroach:
                    joined.run(f"NOTIFY {CHANNEL}")
                return result
        except _AGAIN as error:
            raise Conflict(
                "another write came between", where="transaction", remedy="Roll back and do the transaction over."
            ) from error
        except (psycopg.Error, UnicodeEncodeError) as error:
            raise self._explained(error) from error

    def listen(self, heard: Callable[[], None]) -> None:
        """Calls back, from now on, when another process may have written."""
        if not self._cockroach and self._listener is None:
            self._listener = threading.Thread(target=self._hear, args=(heard,), name="access-listener", daemon=True)
            self._listener.start()

    def _hear(self, heard: Callable[[], None]) -> None:
        while not self._closing.is_set():
            try:
                with psycopg.connect(self._address, autocommit=True) as connection:
                    connection.execute(f"LISTEN {CHANNEL}")
                    while not self._closing.is_set():
                        for _ in connection.notifies(timeout=0.2, stop_after=1):
                            heard()
            except psycopg.Error:
                # Who waits looks by itself too, so a lost connection costs only time.
                self._closing.wait(1.0)

    def close(self) -> None:
        """Lets go of all connections."""
        self._closing.set()
        if self._listener is not None:
            self._listener.join()
        if self._hedge is not None and self._second is not None:
            self._second.close()
            self._hedge.close()
        self._pool.close()

    def _configure(self, connection: psycopg.Connection[Any]) -> None:
        connection.execute(f"SET lock_timeout = {round(self._timeout * 1000)}")

    def _explained(self, error: Exception) -> Exception:
        """Returns what a failure means to the user."""
        if isinstance(error, UnicodeEncodeError | psycopg.DataError):
            return InvalidArgument(f"the database refuses a text: {error}", where="relationship")
        if isinstance(error, errors.ProgramLimitExceeded):
            return InvalidArgument("the ids are too long for the database's index", where="relationship")
        if isinstance(error, _LOCKED):
            return StoreUnavailable(
                f"the tenant is locked: another writer held it for {self._timeout:g} seconds",
                where=self.name,
                remedy="End the other transaction, or try again later.",
            )
        if isinstance(error, PoolClosed):
            return StoreUnavailable("the store is closed", where=self.name, remedy="Open it again.")
        return StoreUnavailable(str(error), where=self.name, remedy="Look at the server and the address.")
