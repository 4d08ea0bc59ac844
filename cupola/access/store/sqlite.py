"""A SQLite file, which other processes may read and write at the same time.

Not here: what is in it (`migrate.py`).
Invariant: a commit is on the disk before it is told of. Readers never wait for writers, nor writers for readers (WAL);
writers wait for each other, and not for ever.
"""

import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from cupola.access.errors import Conflict, InvalidArgument, StoreUnavailable
from cupola.access.store.database import Dialect, Result, Run, Transaction
from cupola.access.store.rows import INSERT, Row

DIALECT = Dialect(
    text="TEXT",
    without_rowid=" WITHOUT ROWID",
    covering=", created, caveat, expires",
    # BEGIN IMMEDIATE has locked the whole file.
    lock="",
    index_last=True,
)
_CACHE_KIB = 64 << 10
_HAS = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"


class SQLiteTransaction:
    """An open transaction of a connection."""

    dialect = DIALECT

    def __init__(self, connection: sqlite3.Connection):
        self._connection = connection
        self._cursor = connection.cursor()
        # The application's connection may make other rows than tuples.
        self._cursor.row_factory = None

    def run(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        """Returns the rows of a statement."""
        return self._cursor.execute(sql, values).fetchall()

    def change(self, sql: str, values: Sequence[Any] = ()) -> int:
        """Returns how many rows a statement changed."""
        return self._cursor.execute(sql, values).rowcount

    def each(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Runs a statement once for each row of values."""
        self._cursor.executemany(sql, rows)

    def fill(self, rows: Sequence[Row]) -> int:
        """Adds rows until one is there already; returns how many."""
        before = self._connection.total_changes
        try:
            self._cursor.executemany(INSERT, rows)
        except sqlite3.IntegrityError:
            return self._connection.total_changes - before
        return len(rows)

    def has(self, table: str) -> bool:
        """Whether there is a table of this name."""
        return bool(self.run(_HAS, (table,)))


class SQLiteDatabase:
    """A file.

    Args:
        path: of the file, which is made where it is not there yet.
        timeout_seconds: how long a writer waits for another one.

    Raises:
        StoreUnavailable: it cannot be opened, or is no SQLite database.
    """

    poll_seconds = 0.005

    def __init__(self, path: str, *, timeout_seconds: float = 5.0):
        self.name, self._path, self._timeout = path, os.path.abspath(path), timeout_seconds
        self._idle: deque[sqlite3.Connection] = deque()
        self._writing, self._closed = threading.Lock(), False
        self._writer = self._connect()

    def run(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        """Returns the rows of a statement, run by itself."""
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._connect()
        try:
            rows = connection.execute(sql, values).fetchall()
        except BaseException as error:
            connection.close()
            raise self._explained(error)  # noqa: B904
        self._idle.append(connection)
        if self._closed:
            self._drain()
        return rows

    def reading(self, store_id: str, revision: int) -> Run:
        """Returns what runs a statement; there is one copy of a file."""
        return self.run

    def has(self, table: str) -> bool:
        """Whether there is a table of this name."""
        return bool(self.run(_HAS, (table,)))

    def transact(self, work: Callable[[Transaction], Result]) -> Result:
        """Returns what work returns, done in a transaction of its own: all or nothing."""
        if not self._writing.acquire(timeout=self._timeout):
            raise self._locked()
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            result = work(SQLiteTransaction(self._writer))
            self._writer.execute("COMMIT")
            return result
        except BaseException as error:
            # SQLite may have rolled back by itself, where the disk is full.
            if not self._closed and self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            raise self._explained(error)  # noqa: B904
        finally:
            self._writing.release()

    def join(self, transaction: Any, store_id: str, work: Callable[[Transaction], Result]) -> Result:
        """Returns what work returns, done in the application's open transaction."""
        if not isinstance(transaction, sqlite3.Connection) or not transaction.in_transaction:
            raise InvalidArgument(
                f"{type(transaction).__name__} is no sqlite3.Connection with an open transaction",
                where="transaction",
                remedy='Type: connection.execute("BEGIN IMMEDIATE"), then write, then connection.commit()',
            )
        joined = SQLiteTransaction(transaction)
        if not joined.has("access_tenant") or not joined.run("SELECT 1 FROM access_tenant WHERE id = ?", (store_id,)):
            raise InvalidArgument(
                "the connection is to another database", where="transaction", remedy=f"Connect to {self.name}."
            )
        joined.run("SAVEPOINT access_write")
        try:
            result = work(joined)
            joined.run("RELEASE access_write")
            return result
        except BaseException as error:
            if transaction.in_transaction:
                joined.run("ROLLBACK TO access_write")
                joined.run("RELEASE access_write")
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY_SNAPSHOT:
                raise Conflict(
                    "the transaction began before another write and cannot write any more",
                    where="transaction",
                    remedy='Roll back and begin with connection.execute("BEGIN IMMEDIATE").',
                ) from error
            raise self._explained(error)  # noqa: B904

    def listen(self, heard: Callable[[], None]) -> None:
        """Does nothing: asking for the newest revision costs as little as asking whether anything happened."""

    def close(self) -> None:
        """Lets go of all connections."""
        with self._writing:
            self._closed = True
            self._writer.close()
            self._drain()

    def _drain(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def _connect(self) -> sqlite3.Connection:
        if self._closed:
            raise StoreUnavailable("the store is closed", where=self.name, remedy="Open it again.")
        try:
            connection = sqlite3.connect(
                self._path,
                timeout=self._timeout,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=256,
            )
        except sqlite3.Error as error:
            raise self._explained(error)  # noqa: B904
        try:
            self._set_up(connection)
        except BaseException as error:
            connection.close()
            raise self._explained(error)  # noqa: B904
        return connection

    def _set_up(self, connection: sqlite3.Connection) -> None:
        until = time.monotonic() + self._timeout
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL").fetchall()
                break
            except sqlite3.OperationalError as error:
                # Who turns a new file to WAL does not let others wait, however long their timeout.
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                    raise
                time.sleep(0.01)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")

    def _locked(self) -> StoreUnavailable:
        return StoreUnavailable(
            f"the database is locked: another writer held it for {self._timeout:g} seconds",
            where=self.name,
            remedy="End the other transaction, or try again later.",
        )

    def _explained(self, error: BaseException) -> BaseException:
        """Returns what a failure means to the user; what is no failure of the database stays as it is."""
        if isinstance(error, UnicodeEncodeError):
            return InvalidArgument(f"{error.object!r} is no Unicode text", where="relationship")
        if not isinstance(error, sqlite3.Error):
            return error
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return self._locked()
        if self._closed:
            return StoreUnavailable("the store is closed", where=self.name, remedy="Open it again.")
        return StoreUnavailable(str(error), where=self.name, remedy="Look at the file, its folder and the free space.")
