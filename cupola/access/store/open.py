"""From an address to a store.

Not here: the stores.
Invariant: the memory and SQLite stores need nothing that Python does not bring.
"""

import importlib
from pathlib import Path

from cupola.access.errors import InvalidArgument, StoreUnavailable
from cupola.access.store.database import Database
from cupola.access.store.memory import MemoryStore
from cupola.access.store.protocol import Store
from cupola.access.store.sql import SQLStore
from cupola.access.store.sqlite import SQLiteDatabase

MEMORY = ":memory:"
SCHEME = "sqlite://"
POSTGRES = ("postgresql://", "postgres://")


def open_store(address: str, *, tenant: str = "default", second_address: str = "") -> Store:
    """Opens a tenant's part of a database; makes both where they are not there yet.

    Args:
        address: ":memory:", a new one each time; a file, also as "sqlite:///file"; or "postgresql://...".
        tenant: name.
        second_address: of a replica of a PostgreSQL database, or the same again: look-ups that take long are made
            there too. "": they are not.

    Raises:
        InvalidArgument: there is no such kind of database.
        StoreUnavailable: the database cannot be opened, or was made by a newer version, or a package is missing.
    """
    if not tenant:
        raise InvalidArgument("a tenant needs a name", where="tenant", remedy='Leave it out for "default".')
    if second_address and not (address.startswith(POSTGRES) and second_address.startswith(POSTGRES)):
        raise InvalidArgument(
            "only PostgreSQL has a second address", where="second_address", remedy="Leave it out, or use postgresql://"
        )
    if address == MEMORY:
        return MemoryStore(tenant=tenant)
    if address.startswith(POSTGRES):
        return _store(_postgres(address, second_address), tenant)
    # Three slashes begin a path here, four an absolute one.
    path = address.removeprefix(SCHEME).removeprefix("/") if address.startswith(f"{SCHEME}/") else address
    if "://" in path or not path:
        raise InvalidArgument(
            f"{address.partition('://')[0]!r} is no database that is known here",
            where="address",
            remedy='Write ":memory:", a file, or "postgresql://USER@HOST/DATABASE".',
        )
    if not Path(path).absolute().parent.is_dir():
        raise StoreUnavailable("the folder is not there", where=path, remedy=f"Type: mkdir -p {Path(path).parent}")
    return _store(SQLiteDatabase(path), tenant)


def _postgres(address: str, second_address: str) -> Database:
    try:
        module = importlib.import_module("cupola.access.store.postgres")
    except ImportError as error:
        if str(error.name).split(".")[0] == "cupola":
            raise
        # Also where psycopg is there and the library of PostgreSQL that it needs is not.
        raise StoreUnavailable(
            f"PostgreSQL needs psycopg: {error}", where="address", remedy="Type: pip install 'cupola[access]'"
        ) from error
    return module.PostgresDatabase(address, second_address=second_address)


def _store(database: Database, tenant: str) -> Store:
    try:
        return SQLStore(database, tenant=tenant)
    except BaseException:
        database.close()
        raise
