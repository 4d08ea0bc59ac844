"""Kills writers at random moments, and looks each time at what they leave.

A writer makes revision after revision, each of another way of writing, and tells of each that it was made. What
revision n holds follows from n, so whoever looks afterwards knows what must be there. The one who looks lives through
all crashes: its caches and its group index have followed the changelog, and must say what new ones say. Writers come
from a server of forks, which has no database open.

Type: python crash.py ADDRESS TENANT TIMES SEED
"""

import contextlib
import importlib
import multiprocessing
import os
import random
import sqlite3
import sys
import time

from cupola.access.consistency import LATEST
from cupola.access.engine.index import Index
from cupola.access.graph import Graph
from cupola.access.relation import Filter, Object, Operation, Relationship, Subject, Update, create, delete, touch

SCHEMA = """
definition user {}
definition group {
    relation member: user | group#member
}
definition doc {
    relation reader: user | group#member
}
"""
WAYS = 5
BATCH = 40


def batch(n: int) -> list[Relationship]:
    return [Relationship.parse(f"doc:{n}#reader@user:b{k:02}") for k in range(BATCH)]


def updates(n: int) -> list[Update]:
    """Returns what revision n changed."""
    if n == 1:
        return []
    match n % WAYS:
        case 0:
            above = [touch(f"group:{n}#member@group:{n - WAYS}#member")] if n > WAYS else []
            return [*above, touch(f"group:{n}#member@user:u{n % 7}"), touch(f"doc:{n}#reader@group:{n}#member")]
        case 1:
            return [touch(f"doc:{n}#reader@user:{who}") for who in "abc"]
        case 2:
            return [Update(Operation.CREATE, one) for one in batch(n)]
        case 3:
            return [Update(Operation.DELETE, one) for one in batch(n - 1)]
        case _:
            # A membership of every other group ends.
            gone = [delete(f"group:{n - 4}#member@user:u{(n - 4) % 7}")] if n > WAYS and n // WAYS % 2 else []
            return [*gone, *(create(f"doc:{n}#reader@user:c{k}") for k in range(20))]


@contextlib.contextmanager
def application(address: str, tenant: str):
    """The application's own connection, and its table."""
    if address.startswith("postgresql:"):
        connection = importlib.import_module("psycopg").connect(address, autocommit=True)
    else:
        connection = sqlite3.connect(address, isolation_level=None, timeout=30)
    table = f"app_{tenant}"
    connection.execute(f"CREATE TABLE IF NOT EXISTS {table} (n INTEGER)")
    yield connection, table
    connection.close()


def make(graph: Graph, connection, table: str, n: int) -> None:
    """Makes revision n in its way."""
    match n % WAYS:
        case 1:
            # The application's row and the right to it, together or not at all.
            connection.execute("BEGIN" if "psycopg" in type(connection).__module__ else "BEGIN IMMEDIATE")
            connection.execute(f"INSERT INTO {table} VALUES ({n})")
            graph.write(*updates(n), transaction=connection)
            connection.execute("COMMIT")
        case 2:
            assert graph.load(batch(n)) == BATCH
        case 3:
            assert graph.delete(Filter(type="doc", id=str(n - 1)))[1] == BATCH
        case _:
            graph.write(*updates(n), metadata={"n": n})


def write(address: str, tenant: str, told) -> None:
    """Writes until it is killed."""
    os.environ["PGAPPNAME"] = f"writer-{tenant}"
    with Graph.open(address, tenant=tenant) as graph, application(address, tenant) as (connection, table):
        while True:
            n = graph.store.head() + 1
            make(graph, connection, table, n)
            assert graph.store.head() == n
            told.send(n)


def wait_for_the_server(address: str, tenant: str) -> None:
    """Returns when PostgreSQL has ended what a killed writer had sent: a commit on its way is still carried out."""
    if address.startswith("postgresql:"):
        asked = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"
        with importlib.import_module("psycopg").connect(address, autocommit=True) as connection:
            while connection.execute(asked, (f"writer-{tenant}",)).fetchone() != (0,):
                time.sleep(0.002)


class Survivor:
    """One who looks at what killed writers leave."""

    def __init__(self, address: str, tenant: str, seed: int):
        self.address, self.tenant, self.chance = address, tenant, random.Random(seed)
        self.graph = Graph.open(address, tenant=tenant)
        self.graph.write_schema(SCHEMA)
        self.index = Index(self.graph.schema().schema, self.graph.store)
        self.index.build(1, "group", "member")
        self.seen, self.rows = 1, {}
        self.tokens = [self.graph.token()]

    def look(self, acknowledged: int) -> None:
        """Looks at what is new, and from there at what may be derived of it."""
        head = self.graph.store.head()
        assert acknowledged <= head <= max(acknowledged, self.seen) + 1, (acknowledged, head)
        token, changes = self.graph.changes(self.tokens[-1], limit=10**6)
        assert [change.revision for change in changes] == list(range(self.seen + 1, head + 1))
        for change in changes:
            assert list(change.updates) == updates(change.revision), change
            assert change.metadata in ("", f'{{"n": {change.revision}}}')
            for operation, one in change.updates:
                self.rows.pop(one.key, None) if operation is Operation.DELETE else self.rows.update({one.key: one})
            self.seen = change.revision
        self.tokens.append(token)
        # Asked each time, it never falls so far behind that it would be built anew.
        assert self.index.member(head, Object("group", "0"), "member", Subject("user", "u0")) is False
        # From any token, in pages of any size, the same comes again.
        place = self.chance.randrange(len(self.tokens))
        at, again = self.tokens[place], []
        while True:
            at, page = self.graph.changes(at, limit=self.chance.randrange(1, 50))
            again += [change.revision for change in page]
            if not page:
                break
        assert again == list(range(head - len(again) + 1, head + 1))
        assert at == token

    def look_closely(self) -> None:
        """Compares with one who comes anew."""
        head = self.graph.store.head()
        with Graph.open(self.address, tenant=self.tenant) as fresh:
            assert list(fresh.read(Filter(), consistency=LATEST)[1]) == [one for _, one in sorted(self.rows.items())]
            index = Index(fresh.schema().schema, fresh.store)
            index.build(head, "group", "member")
            for one in self.chance.sample(sorted(self.rows.values(), key=str), min(50, len(self.rows))):
                assert one in fresh.store.snapshot(head).objects(one.subject, one.object.type, one.relation)
            groups = sorted({one.object for one in self.rows.values() if one.object.type == "group"})
            for group in self.chance.sample(groups, min(10, len(groups))):
                for user in (Subject("user", f"u{k}") for k in range(7)):
                    asked = head, group, "member", user
                    answer = index.member(*asked)
                    assert (self.index.member(*asked), answer) in ((True, True), (False, False)), asked
                    document = Object("doc", group.id), "reader"
                    for graph in (fresh, self.graph):
                        assert graph.check(document, user, consistency=LATEST).allowed == answer
        with application(self.address, self.tenant) as (connection, table):
            kept = [n for (n,) in connection.execute(f"SELECT n FROM {table} ORDER BY n").fetchall()]
            assert kept == [n for n in range(2, head + 1) if n % WAYS == 1]
            if isinstance(connection, sqlite3.Connection):
                assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def main(address: str, tenant: str, times: int, seed: int) -> None:
    """Kills so many writers, looks each time, and prints the newest revision."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["cupola.access.graph", "cupola.access.engine.index"])
    survivor = Survivor(address, tenant, seed)
    chance = survivor.chance
    for n in range(times):
        hear, tell = processes.Pipe(duplex=False)
        writer = processes.Process(target=write, args=(address, tenant, tell))
        writer.start()
        tell.close()
        told = 0
        # Some die while they open the database, most while they write.
        if chance.random() < 0.9:
            told = hear.recv()
        time.sleep(chance.random() * 0.08)
        writer.kill()
        writer.join()
        with contextlib.suppress(EOFError):
            while True:
                told = hear.recv()
        hear.close()
        wait_for_the_server(address, tenant)
        survivor.look(told)
        if n % 20 == 19:
            survivor.look_closely()
    survivor.look_closely()
    print(survivor.seen)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
