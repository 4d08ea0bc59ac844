"""Reads are kept for as long as they are true, at every revision, whoever writes meanwhile."""

import random
import threading

import pytest
from plain_store import PlainStore
from random_graph import NOW

from cupola.access.decision import Verdict
from cupola.access.engine import cache
from cupola.access.engine.at import At
from cupola.access.engine.compile import Compiled
from cupola.access.engine.engine import Engine
from cupola.access.engine.facts import Facts
from cupola.access.limits import Limits
from cupola.access.relation import Object, Relationship, Subject
from cupola.access.schema.model import Allowed, Definition, Relation, Schema, This

SCHEMA = Schema(
    (
        Definition("user"),
        Definition(
            "group",
            (Relation("member", This(), (Allowed("user"), Allowed("user", expires=True), Allowed("group", "member"))),),
        ),
    )
)
ADA, BOB = Subject("user", "ada"), Subject("user", "bob")
ONE = Object("group", "one")


def fact(text):
    return Relationship.parse(text)


@pytest.fixture
def store():
    return PlainStore(SCHEMA, [fact("group:one#member@user:ada"), fact("group:one#member@group:two#member")])


@pytest.fixture
def engine(store):
    return Engine(store, Limits())


def at(store, revision=None):
    return At(store.head() if revision is None else revision, store.version, NOW)


def test_what_was_read_is_not_read_again_until_it_is_written(store, engine):
    assert engine.check(at(store), ONE, "member", BOB)[0] is Verdict.NO
    store.reads.clear()
    store.put(fact("group:other#member@user:ada"))
    assert engine.check(at(store), ONE, "member", BOB)[0] is Verdict.NO
    assert store.reads == []
    store.put(fact("group:two#member@user:bob"))
    assert engine.check(at(store), ONE, "member", BOB)[0] is Verdict.YES
    assert store.reads == [("find", Object("group", "two"), "member", BOB)]


def test_old_and_new_revisions_side_by_side(store, engine):
    history = {}
    for step in range(30):
        (store.put if step % 2 else store.drop)(fact("group:two#member@user:bob"), fact("group:one#member@user:ada"))
        history[store.head()] = bool(step % 2)
        for revision, there in history.items():
            for who in (ADA, BOB):
                assert (engine.check(at(store, revision), ONE, "member", who)[0] is Verdict.YES) == there


def test_a_relation_that_is_often_asked_about_is_read_whole(store, engine):
    store.put(*(fact(f"group:wide#member@user:u{i}") for i in range(500)))
    for i in range(cache.HOT + 1):
        engine.check(at(store), Object("group", "wide"), "member", Subject("user", f"u{i}"))
    store.reads.clear()
    for i in range(1000):
        found = engine.check(at(store), Object("group", "wide"), "member", Subject("user", f"u{i}"))[0]
        assert (found is Verdict.YES) == (i < 500)
    assert [one for one in store.reads if one[0] == "find"] == []


def test_a_relation_too_wide_to_be_read_whole_is_not(store, engine, monkeypatch):
    monkeypatch.setattr(cache, "WHOLE", 499)
    store.put(*(fact(f"group:wide#member@user:u{i}") for i in range(500)))
    for _ in range(2):
        for i in range(1000):
            found = engine.check(at(store), Object("group", "wide"), "member", Subject("user", f"u{i}"))[0]
            assert (found is Verdict.YES) == (i < 500)
    assert len([one for one in store.reads if one[0] == "find"]) > 2 * cache.HOT


def test_memory_is_bounded(store, monkeypatch):
    monkeypatch.setattr(cache, "MOST_TOUCHED", 100)
    monkeypatch.setattr(cache, "MOST_REVISIONS", 20)
    kept = cache.Cache(store, Compiled(SCHEMA, 100).allows, most_facts=500)
    for i in range(60):
        for _ in range(1 + 40 * (i == 30)):
            store.put(fact(f"group:g{i}#member@user:u{i}"))
            store.drop(fact(f"group:g{i}#member@user:u{i}"))
        store.put(fact(f"group:g{i}#member@user:u{i}"))
        facts = Facts(kept, at(store))
        for j in range(60):
            there = facts.find(Object("group", f"g{j}"), "member", Subject("user", f"u{j}"))
            assert (there is not None) == (j <= i)
            assert len(facts.subjects(Object("group", f"g{j}"), "member")) == (j <= i)
    assert sum(len(table.rows) for table in (kept.subjects, kept.singles, kept.usersets, kept.holdings)) <= 500


def test_without_a_cache_every_question_reads_anew_and_answers_the_same(store):
    engine = Engine(store, Limits(cached_facts=0))
    for _ in range(2):
        store.reads.clear()
        assert engine.check(at(store), ONE, "member", Subject("user", "ada"))[0] is Verdict.YES
        assert store.reads
    with_cache = Engine(store, Limits())
    for again in range(2):
        store.reads.clear()
        assert with_cache.check(at(store), ONE, "member", Subject("user", "ada"))[0] is Verdict.YES
        assert bool(store.reads) == (again == 0)


def test_facts_of_one_answer(store):
    store.put(fact("group:one#member@user:old[expiration:1970-01-12T13:46:40Z]"), fact("group:two#member@user:bob"))
    kept = cache.Cache(store, Compiled(SCHEMA, 100).allows)
    extra = (fact("group:one#member@user:new"), fact("group:one#member@group:three#member"))
    facts = Facts(kept, At(store.head(), store.version, NOW, extra=extra))
    plain = Facts(kept, at(store))
    assert plain.find(ONE, "member", Subject("user", "old")) is None
    assert {one.subject.id for one in plain.subjects(ONE, "member")} == {"ada", "two"}
    assert {one.subject.id for one in facts.subjects(ONE, "member")} == {"ada", "two", "new", "three"}
    assert {one.subject.id for one in facts.indirect(ONE, "member")} == {"two", "three"}
    assert facts.objects(Subject("user", "new"), "group", "member") == [extra[0]]
    assert plain.objects(Subject("user", "new"), "group", "member") == []
    assert [one.object.id for one in plain.objects(BOB, "group", "member")] == ["two"]


@pytest.mark.usefixtures("unchecked")
def test_many_readers_while_others_write(store, engine):
    """A writer notes what each revision says; readers at any noted revision must be told just that."""
    noted, wrong, done = {store.head(): frozenset()}, [], threading.Event()

    def write():
        draw, there = random.Random(1), set()
        for _ in range(400):
            id = draw.randrange(8)
            there ^= {id}
            (store.put if id in there else store.drop)(fact(f"group:two#member@user:u{id}"))
            noted[store.head()] = frozenset(there)
        done.set()

    def read(seed):
        draw = random.Random(seed)
        while not done.is_set():
            revision = draw.choice(list(noted)[-5:])
            id = draw.randrange(8)
            found = engine.check(at(store, revision), ONE, "member", Subject("user", f"u{id}"))[0] is Verdict.YES
            if found != (id in noted[revision]):
                wrong.append((revision, id, found))

    threads = [threading.Thread(target=write), *(threading.Thread(target=read, args=(i,)) for i in range(4))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    engine.close()


def test_many_who_ask_the_same_wait_for_one_read(store, engine):
    start = threading.Barrier(8)

    def ask():
        start.wait()
        engine.check(at(store), Object("group", "cold"), "member", ADA)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    asked = [one for one in store.reads if one[1] == Object("group", "cold")]
    assert len(asked) == len(set(asked)) == 2
