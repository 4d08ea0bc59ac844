"""A SQLite file that others use too."""

import resource
import sqlite3
import threading
import time

import pytest

from cupola.access.errors import Conflict, InvalidArgument, StoreUnavailable
from cupola.access.relation import Filter, Object, Relationship, Subject, create, touch
from cupola.access.store.open import open_store
from cupola.access.store.sql import SQLStore
from cupola.access.store.sqlite import SQLiteDatabase

LINE = "doc:a#reader@user:ada"


@pytest.fixture
def path(tmp_path) -> str:
    return str(tmp_path / "access.db")


@pytest.fixture
def store(path):
    store = SQLStore(SQLiteDatabase(path, timeout_seconds=0.2))
    yield store
    store.close()


@pytest.fixture
def application(path):
    connection = sqlite3.connect(path)
    connection.row_factory = sqlite3.Row
    connection.execute("CREATE TABLE IF NOT EXISTS document (name TEXT)")
    connection.commit()
    yield connection
    connection.close()


def documents(connection) -> list[str]:
    return [row[0] for row in connection.execute("SELECT name FROM document")]


def test_is_kept(path, store):
    store.write([touch(LINE)])
    again, other = open_store(path), open_store(f"sqlite:///{path}", tenant="other")
    try:
        assert (again.id, again.head()) == (store.id, 1)
        assert [str(one) for one in again.snapshot(1).read(Filter())] == [LINE]
        assert (other.head(), other.id == store.id) == (0, False)
        assert other.write([create(LINE)]) == 1
        again.write([touch("doc:b#writer@group:g#member")])
        assert store.snapshot(2).indirect(Object("doc", "b"), "writer")
    finally:
        again.close()
        other.close()


def test_joins_the_applications_transaction(store, application):
    application.execute("INSERT INTO document VALUES ('a')")
    assert store.write([touch(LINE)], transaction=application) == 1
    assert store.write([touch("doc:b#writer@user:ada")], transaction=application) == 2
    assert store.head() == 0
    application.commit()
    assert (store.head(), len(store.snapshot(2).read(Filter())), documents(application)) == (2, 2, ["a"])
    application.execute("INSERT INTO document VALUES ('b')")
    store.write([touch("doc:c#other@user:ada")], transaction=application)
    application.rollback()
    assert (store.head(), documents(application)) == (2, ["a"])
    assert store.write([touch("doc:c#third@user:ada")]) == 3
    assert store.snapshot(3).find(Object("doc", "c"), "other", Subject("user", "ada")) is None


def test_a_refused_write_leaves_the_applications_rows(store, application):
    store.write([touch(LINE)])
    application.execute("INSERT INTO document VALUES ('a')")
    with pytest.raises(Exception, match="there already"):
        store.write([touch("doc:b#reader@user:ada"), create(LINE)], transaction=application)
    application.commit()
    assert (store.head(), documents(application)) == (1, ["a"])


def test_refuses_what_is_no_open_transaction(store, application, tmp_path):
    with pytest.raises(InvalidArgument, match="open transaction"):
        store.write([touch(LINE)], transaction=application)
    with pytest.raises(InvalidArgument, match="str is no"):
        store.write([touch(LINE)], transaction="BEGIN")
    foreign = sqlite3.connect(tmp_path / "other.db", isolation_level=None)
    foreign.execute("BEGIN")
    with pytest.raises(InvalidArgument, match="another database"):
        store.write([touch(LINE)], transaction=foreign)
    foreign.close()
    assert store.head() == 0


def test_a_transaction_that_sees_the_past_is_a_conflict(store, application):
    application.isolation_level = None
    application.execute("BEGIN")
    documents(application)
    store.write([touch(LINE)])
    with pytest.raises(Conflict, match="began before"):
        store.write([touch("doc:b#reader@user:ada")], transaction=application)
    application.execute("ROLLBACK")
    assert store.head() == 1


def test_locked(store, application):
    application.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match=r"locked: another writer held it for 0.2 seconds"):
        store.write([touch(LINE)])
    assert store.head() == 0
    application.rollback()
    assert store.write([touch(LINE)]) == 1


def test_full_disk(store, path):
    store.write([touch(LINE)])
    many = [Relationship(Object("doc", f"{n}{'x' * 500}"), "reader", Subject("user", "ada")) for n in range(20_000)]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 20, before[1]))
    try:
        with pytest.raises(StoreUnavailable):
            store.load(many)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (store.head(), [str(one) for one in store.snapshot(1).read(Filter())]) == (1, [LINE])
    assert store.write([touch("doc:b#reader@user:ada")]) == 2


def test_wakes_for_another_connection(store, application):
    waited: list[float] = []

    def wait() -> None:
        store.wait(0, 20.0)
        waited.append(time.monotonic())

    waiter = threading.Thread(target=wait)
    waiter.start()
    application.execute("BEGIN IMMEDIATE")
    store.write([touch(LINE)], transaction=application)
    time.sleep(0.05)
    assert not waited
    application.commit()
    began = time.monotonic()
    waiter.join()
    assert waited[0] - began < 5


@pytest.mark.parametrize(("made", "match"), [("file", "not a database"), ("folder", "unable to open")])
def test_no_database(tmp_path, made, match):
    path = tmp_path / "access.db"
    path.mkdir() if made == "folder" else path.write_text("A letter, of more than a hundred characters. " * 40)
    with pytest.raises(StoreUnavailable, match=match):
        open_store(str(path))


def test_closed(store):
    store.write([touch(LINE)])
    snapshot = store.snapshot(1)
    store.close()
    for ask in (store.head, lambda: snapshot.read(Filter()), lambda: store.write([]), lambda: store.changes(0)):
        with pytest.raises(StoreUnavailable, match="closed"):
            ask()
    store.close()


def test_lone_surrogates_are_no_text(store):
    with pytest.raises(InvalidArgument, match="no Unicode text"):
        store.write([touch(Relationship(Object("doc", "\ud800"), "reader", Subject("user", "ada")))])
    assert store.write([touch(LINE)]) == 1


def test_looks_up_through_indexes(store):
    """Each look-up is one statement that scans nothing."""
    store.write([touch(LINE), touch("doc:a#reader@group:g#member")])
    asked = []
    snapshot = store.snapshot(1)
    run = store._database.run
    snapshot._run = lambda sql, values: asked.append((sql, values)) or run(sql, values)
    ada, doc = Subject("user", "ada"), Object("doc", "a")
    snapshot.find(doc, "reader", ada)
    snapshot.subjects(doc, "reader")
    snapshot.indirect(doc, "reader")
    snapshot.objects(ada, "doc", "reader")
    assert len(asked) == 4
    for sql, values in asked:
        plan = [row[3] for row in run(f"EXPLAIN QUERY PLAN {sql}", values)]
        assert all(step.startswith("SEARCH") for step in plan), plan


def test_looks_up_what_a_revision_deleted(store, monkeypatch):
    """The changelog of a mass deletion finds its rows at one place of the index, not among all that were ever there."""
    store.write([touch(LINE), touch("doc:a#reader@group:g#member")])
    store.delete(Filter(type="doc"))
    asked = []
    run = store._database.run
    monkeypatch.setattr(store._database, "run", lambda sql, values: asked.append((sql, values)) or run(sql, values))
    (change,) = store.changes(1)
    assert len(change.updates) == 2
    (sql, values) = next(one for one in asked if "access_relationship" in one[0])
    (step,) = [row[3] for row in run(f"EXPLAIN QUERY PLAN {sql}", values)]
    assert step.endswith("access_relationship_deleted (tenant=? AND deleted>? AND deleted<?)")
