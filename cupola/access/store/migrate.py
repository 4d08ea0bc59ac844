"""The tables of a database and how an older database comes to have them, step by numbered step.

The names begin with `access_`, so that they can stand in the application's own database.

Not here: tenants' contents.
Invariant: a step is done wholly or not at all and once, however many processes open the database at the same time;
a database that a newer version made is refused and left as it is.
"""

from cupola.access.errors import StoreUnavailable
from cupola.access.store.database import Database, Dialect, Transaction
from cupola.access.store.ulid import new_ulid

FORMAT = "access_format"
SUBJECT_INDEX = "access_relationship_subject"


def subject_index(dialect: Dialect) -> str:
    """Returns the statement that makes the index from subjects to objects."""
    return (
        f"CREATE INDEX {SUBJECT_INDEX} ON access_relationship"
        f" (tenant, kind, subject, object, deleted{dialect.covering})"
    )


def _first(dialect: Dialect) -> list[str]:
    text, rows = dialect.text, dialect.without_rowid
    return [
        # One row a tenant: whoever writes holds it, so revisions become visible in their order.
        f"""CREATE TABLE access_tenant (number INTEGER PRIMARY KEY, id {text} NOT NULL UNIQUE,
            name {text} NOT NULL UNIQUE, head BIGINT NOT NULL, oldest BIGINT NOT NULL, time DOUBLE PRECISION NOT NULL,
            kinds INTEGER NOT NULL, schemas INTEGER NOT NULL)""",
        f"""CREATE TABLE access_kind (tenant INTEGER NOT NULL, number INTEGER NOT NULL, type {text} NOT NULL,
            relation {text} NOT NULL, subject_type {text} NOT NULL, subject_relation {text} NOT NULL,
            PRIMARY KEY (tenant, number)){rows}""",
        # One row a version. `deleted` stands in the key, so that there is one live row of a key and no more.
        f"""CREATE TABLE access_relationship (tenant INTEGER NOT NULL, kind INTEGER NOT NULL, object {text} NOT NULL,
            subject {text} NOT NULL, deleted BIGINT NOT NULL, created BIGINT NOT NULL, caveat {text},
            expires DOUBLE PRECISION, PRIMARY KEY (tenant, kind, object, subject, deleted)){rows}""",
        subject_index(dialect),
        "CREATE INDEX access_relationship_deleted ON access_relationship (tenant, deleted) WHERE deleted > 0",
        f"""CREATE TABLE access_change (tenant INTEGER NOT NULL, revision BIGINT NOT NULL,
            time DOUBLE PRECISION NOT NULL, metadata {text} NOT NULL, schema_id {text} NOT NULL,
            updates {text} NOT NULL, PRIMARY KEY (tenant, revision))""",
        f"""CREATE TABLE access_schema (tenant INTEGER NOT NULL, number INTEGER NOT NULL, id {text} NOT NULL,
            revision BIGINT NOT NULL, language {text} NOT NULL, text {text} NOT NULL, PRIMARY KEY (tenant, number))""",
    ]


STEPS = (_first,)
"""Step n makes format n of format n - 1."""
NEWEST = len(STEPS)


def migrate(database: Database) -> None:
    """Brings the tables to the newest format.

    Raises:
        StoreUnavailable: the database was made by a newer version.
    """
    if _format(database, where=database.name) < NEWEST:
        database.transact(_migrate)


def _format(source: Database | Transaction, *, where: str = "", lock: str = "") -> int:
    found = source.run(f"SELECT version FROM {FORMAT}{lock}") if source.has(FORMAT) else []
    version = found[0][0] if found else 0
    if version > NEWEST:
        raise StoreUnavailable(
            f"the database was made by a newer version of Cupola: its format is {version}, this one knows {NEWEST}",
            where=where,
            remedy="Type: pip install --upgrade 'cupola[access]'",
        )
    return version


def _migrate(transaction: Transaction) -> None:
    if not transaction.has(FORMAT):
        transaction.run(f"CREATE TABLE {FORMAT} (version INTEGER NOT NULL)")
        transaction.run(f"INSERT INTO {FORMAT} (version) VALUES (0)")
    for step in STEPS[_format(transaction, lock=transaction.dialect.lock) :]:
        for statement in step(transaction.dialect):
            transaction.run(statement)
    transaction.run(f"UPDATE {FORMAT} SET version = ?", (NEWEST,))


def tenant_of(database: Database, name: str) -> tuple[int, str]:
    """Returns the number and the random id of a tenant, which is made where it is not there yet."""

    def make(transaction: Transaction) -> None:
        if not transaction.run("SELECT 1 FROM access_tenant WHERE name = ?", (name,)):
            (last,) = transaction.run("SELECT coalesce(max(number), 0) FROM access_tenant")[0]
            transaction.run(
                "INSERT INTO access_tenant (number, id, name, head, oldest, time, kinds, schemas)"
                " VALUES (?, ?, ?, 0, 0, 0, 0, 0)",
                (last + 1, new_ulid(), name),
            )

    asked = "SELECT number, id FROM access_tenant WHERE name = ?"
    found = database.run(asked, (name,))
    if not found:
        database.transact(make)
        found = database.run(asked, (name,))
    return found[0]
