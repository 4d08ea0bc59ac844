"""A PostgreSQL database that others use too."""

import threading
import time

import pytest

from cupola.access.errors import Conflict, InvalidArgument, StoreUnavailable
from cupola.access.relation import Filter, Object, Relationship, Subject, create, touch
from cupola.access.store.open import open_store
from cupola.access.store.sql import SQLStore

psycopg = pytest.importorskip("psycopg", reason="needs psycopg")
LINE = "doc:a#reader@user:ada"


@pytest.fixture
def store(postgres_address, opening):
    return opening(postgres_address)


@pytest.fixture
def application(postgres_address):
    with psycopg.connect(postgres_address, autocommit=True, row_factory=psycopg.rows.dict_row) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS document (name TEXT)")
        connection.execute("DELETE FROM document")
        yield connection


def documents(connection) -> list[str]:
    return [row["name"] for row in connection.execute("SELECT name FROM document")]


def test_joins_the_applications_transaction(store, application):
    with application.transaction():
        application.execute("INSERT INTO document VALUES ('a')")
        assert store.write([touch(LINE)], transaction=application) == 1
        assert store.head() == 0
    assert (store.head(), documents(application)) == (1, ["a"])
    with application.transaction(force_rollback=True):
        application.execute("INSERT INTO document VALUES ('b')")
        assert store.write([touch("doc:b#other@user:ada")], transaction=application) == 2
    assert (store.head(), documents(application)) == (1, ["a"])
    with application.transaction():
        application.execute("INSERT INTO document VALUES ('c')")
        with pytest.raises(Exception, match="there already"):
            store.write([touch("doc:b#reader@user:ada"), create(LINE)], transaction=application)
    assert (store.head(), documents(application)) == (1, ["a", "c"])


def test_refuses_what_is_no_open_transaction(store, application, postgres_address):
    for wrong in (application, "BEGIN"):
        with pytest.raises(InvalidArgument, match="open transaction"):
            store.write([touch(LINE)], transaction=wrong)
    application.execute("CREATE DATABASE elsewhere")
    address = postgres_address.replace("/postgres?", "/elsewhere?")
    with psycopg.connect(address) as foreign, foreign.transaction(), pytest.raises(InvalidArgument, match="another"):
        store.write([touch(LINE)], transaction=foreign)
    application.execute("DROP DATABASE elsewhere")


def test_a_transaction_that_sees_the_past_is_a_conflict(store, application):
    application.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    with application.transaction():
        documents(application)
        store.write([touch(LINE)])
        with pytest.raises(Conflict, match="came between"):
            store.write([touch("doc:b#reader@user:ada")], transaction=application)
    assert store.head() == 1


def test_locked(postgres_address, store, application):
    module = pytest.importorskip("cupola.access.store.postgres")
    hasty = SQLStore(module.PostgresDatabase(postgres_address, timeout_seconds=0.2), tenant=store.tenant)
    with application.transaction():
        store.write([touch(LINE)], transaction=application)
        with pytest.raises(StoreUnavailable, match=r"locked: another writer held it for 0.2 seconds"):
            hasty.write([touch("doc:b#reader@user:ada")])
        assert hasty.head() == 0
    assert hasty.write([touch("doc:b#reader@user:ada")]) == 2
    hasty.close()


def test_no_revision_before_a_smaller_one(store, application):
    """A slow commit keeps later revisions back, so none is seen whose smaller ones are to come."""
    with application.transaction():
        assert store.write([touch(LINE)], transaction=application) == 1
        made: list[int] = []
        writer = threading.Thread(target=lambda: made.append(store.write([touch("doc:b#reader@user:ada")])))
        writer.start()
        time.sleep(0.1)
        assert (store.head(), made) == (0, [])
    writer.join()
    assert made == [2]
    assert len(store.snapshot(2).read(Filter())) == 2


def test_hears_of_others(store, application):
    assert store.wait(0, 0.3) is False  # The listener listens by now.
    waited: list[float] = []

    def wait() -> None:
        store.wait(0, 20.0)
        waited.append(time.monotonic())

    waiter = threading.Thread(target=wait)
    waiter.start()
    with application.transaction():
        store.write([touch(LINE)], transaction=application)
    began = time.monotonic()
    waiter.join()
    assert waited[0] - began < 5


def test_goes_on_after_its_connections_were_cut(store, application):
    def cut() -> None:
        others = "pid <> pg_backend_pid() AND datname = 'postgres'"
        application.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")

    store.write([touch(LINE)])
    cut()
    assert store.head() == 1
    cut()
    assert store.write([touch("doc:b#reader@user:ada")]) == 2


@pytest.mark.parametrize(
    "one",
    [
        Relationship(Object("doc", "a\0b"), "reader", Subject("user", "ada")),
        Relationship(Object("doc", "\ud800"), "reader", Subject("user", "ada")),
    ],
    ids=["nul", "surrogate"],
)
def test_texts_that_it_cannot_keep(store, one):
    with pytest.raises(InvalidArgument, match="refuses a text"):
        store.write([touch(one)])
    assert store.head() == 0


def test_no_server(tmp_path):
    with pytest.raises(StoreUnavailable, match="access at") as caught:
        open_store(f"postgresql://ada:secret@/access?host={tmp_path}")
    assert "secret" not in str(caught.value)
    with pytest.raises(InvalidArgument, match="address cannot be read") as refused:
        open_store("postgresql://ada:secret@host/access?port=x=y&wrong=1")
    assert "secret" not in str(refused.value)


def test_closed(postgres_address):
    store = open_store(postgres_address)
    store.close()
    for ask in (store.head, lambda: store.write([])):
        with pytest.raises(StoreUnavailable, match="closed"):
            ask()


def test_a_slow_look_up_is_made_on_a_second_connection_too(postgres_address, opening, monkeypatch):
    module = pytest.importorskip("cupola.access.store.postgres")
    writer = opening(postgres_address)
    writer.write([touch(LINE), touch("doc:a#reader@user:bob")])
    database = module.PostgresDatabase(postgres_address, second_address=postgres_address)
    hedged = SQLStore(database, tenant=writer.tenant)
    doc = Object("doc", "a")
    for _ in range(64):
        assert len(hedged.snapshot(1).subjects(doc, "reader")) == 2
    run, slow = database.run, threading.Event()
    monkeypatch.setattr(database, "run", lambda sql, values=(): (slow.wait(3), run(sql, values))[1])
    snapshot = hedged.snapshot(1)  # Which revisions there are is asked of the first alone.
    began = time.monotonic()
    assert len(snapshot.subjects(doc, "reader")) == 2
    assert snapshot.find(doc, "reader", Subject("user", "bob")) is not None
    assert time.monotonic() - began < 2.5
    slow.set()
    hedged.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        snapshot.subjects(doc, "reader")


def test_a_second_connection_that_is_behind_or_elsewhere_says_nothing(postgres_address, opening):
    module = pytest.importorskip("cupola.access.store.postgres")
    writer = opening(postgres_address)
    writer.write([touch(LINE)])
    database = module.PostgresDatabase(postgres_address, second_address=postgres_address)
    for store_id, revision in ((writer.id, 2), ("another", 1)):
        asked = []
        database._hedge.run = lambda first, second, asked=asked: asked.append(second) or []
        database.reading(store_id, revision)("SELECT 1")
        with pytest.raises(module.Behind):
            asked[0]()
    database.close()
