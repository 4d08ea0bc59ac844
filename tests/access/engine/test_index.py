"""The flattened group index against recursion over a snapshot, at every revision."""

import dataclasses
import random
import threading
import time

import pytest
from worlds import naive, schema_of

from cupola.access.decision import Verdict
from cupola.access.engine.index import BACKLOG, Index
from cupola.access.errors import RevisionGone
from cupola.access.relation import Object, Operation, Relationship, Subject, create, delete, touch
from cupola.access.schema.model import Allowed, Arrow, Computed, Exclusion, Intersection, Nil, This, Union
from cupola.access.store.memory import MemoryStore

USER, PUBLIC, MEMBER, STAFF = (
    Allowed("user"),
    Allowed("user", wildcard=True),
    Allowed("group", "member"),
    Allowed("team", "staff"),
)
ANYBODY = (USER, PUBLIC, MEMBER, STAFF, Allowed("user", caveat="depends"), Allowed("user", expires=True))
SCHEMA = schema_of(
    ("user", {}),
    (
        "group",
        {
            "owner": (This(), (USER, Allowed("group", "member"))),
            "member": (Union((This(), Computed("owner"), Nil())), (*ANYBODY, Allowed("group", "both"))),
            "both": (Union((Computed("owner"), Computed("member"))), ()),
            "some": (Intersection((Computed("owner"), Computed("member"))), ()),
            "top": (This(), (Allowed("group", "some"),)),
        },
    ),
    ("team", {"lead": (This(), (USER,)), "staff": (Union((This(), Computed("lead"))), (USER, MEMBER, STAFF))}),
    (
        "doc",
        {
            "parent": (This(), (Allowed("doc"),)),
            "reader": (This(), (USER, MEMBER, Allowed("group", "some"))),
            "banned": (This(), (USER, Allowed("group", "both"), Allowed("team", "lead"), Allowed("doc", "view"))),
            "view": (Exclusion(Union((Computed("reader"), Arrow("parent", "view"))), Computed("banned")), ()),
        },
    ),
)
NESTED = dataclasses.replace(SCHEMA, definitions=SCHEMA.definitions[1:3])
GROUPS = [("group", "member"), ("group", "both"), ("team", "staff"), ("team", "lead")]


class Counting(MemoryStore):
    """Counts what is read."""

    def __init__(self):
        super().__init__()
        self.snapshots = self.reads = 0

    def snapshot(self, revision):
        self.snapshots += 1
        return super().snapshot(revision)

    def changes(self, after, *, limit=1000):
        self.reads += 1
        return super().changes(after, limit=limit)


@pytest.fixture
def store():
    return Counting()


def built(store, *pairs) -> Index:
    index = Index(SCHEMA, store)
    for pair in pairs or GROUPS:
        index.build(store.head(), *pair)
    return index


def ask(index, store, group, subject="user:ada", revision=None):
    type, _, rest = group.partition(":")
    id, _, relation = rest.partition("#")
    at = store.head() if revision is None else revision
    return index.member(at, Object(type, id), relation or "member", Subject.parse(subject))


def test_groups_are_unions_of_groups_that_somebody_names():
    index = Index(SCHEMA, MemoryStore())
    covered = {(d.name, r.name) for d in SCHEMA.definitions for r in d if index.covers(d.name, r.name)}
    assert covered == set(GROUPS)
    assert not index.covers("nothing", "member")


def test_membership_through_groups_and_computed_relations(store):
    store.write([create(line) for line in (
        "group:a#member@group:b#member",
        "group:b#member@team:t#staff",
        "team:t#lead@user:ada",
        "group:c#owner@user:bob",
        "team:t#staff@group:c#member",
        "group:a#member@group:d#both",
        "group:d#owner@user:eve",
    )])  # fmt: skip
    index = built(store)
    assert [ask(index, store, f"group:{id}") for id in "abcd"] == [True, True, False, False]
    assert ask(index, store, "group:a", "user:bob") is True
    assert ask(index, store, "group:a", "user:eve") is True
    assert ask(index, store, "group:d#both", "user:eve") is True
    assert ask(index, store, "group:z#both", "user:eve") is False
    assert ask(index, store, "group:a", "team:t#staff") is True
    assert ask(index, store, "group:a", "team:t#lead") is True
    assert ask(index, store, "group:z#both", "group:z#owner") is True
    assert ask(index, store, "group:z", "group:z#member") is True
    assert ask(index, store, "group:z", "group:a#member") is False
    groups = [Subject("group", "z", "member"), Subject("group", "b", "member")]
    assert index.member_of_any(store.head(), groups, Subject("user", "ada")) is True
    assert index.member_of_any(store.head(), groups[:1], Subject("user", "ada")) is False
    assert index.member_of_any(store.head(), [], Subject("user", "ada")) is False


def test_relationships_that_the_schema_does_not_allow_do_not_count(store):
    store.write([create("team:t#staff@user:ada"), create("group:a#owner@team:t#staff")])
    assert ask(built(store), store, "group:a") is False


@pytest.mark.parametrize("trait", ["user:ada[depends]", "user:ada[expiration:2100-01-01T00:00:00Z]", "user:*"])
def test_what_has_a_condition_on_the_way_is_left_to_others(store, trait):
    store.write([create(f"group:b#member@{trait}"), create("group:a#member@group:b#member")])
    index = built(store)
    assert ask(index, store, "group:a") is None
    assert ask(index, store, "group:a", "user:bob") is None
    assert ask(index, store, "group:c") is False
    store.write([create("group:a#member@user:ada")])
    assert ask(index, store, "group:a") is True
    store.write([delete("group:a#member@user:ada"), delete(f"group:b#member@{trait.split('[')[0]}")])
    assert ask(index, store, "group:a") is False
    assert ask(index, store, "group:a", "user:*") is None


def test_a_condition_that_comes_and_goes(store):
    store.write([create("group:a#member@user:ada")])
    index = built(store)
    assert ask(index, store, "group:a") is True
    store.write([touch("group:a#member@user:ada[depends]")])
    assert ask(index, store, "group:a") is None
    store.write([touch("group:a#member@user:ada")])
    assert ask(index, store, "group:a") is True


def test_an_answer_is_of_the_revision_that_was_asked_for(store):
    first = store.write([create("group:a#member@group:b#member")])
    index = built(store)
    second = store.write([create("group:b#member@user:ada")])
    third = store.write([create("doc:x#reader@user:ada")])
    assert ask(index, store, "group:a", revision=first) is False
    assert ask(index, store, "group:a", revision=third) is True
    assert ask(index, store, "group:a", revision=second) is True  # nothing that is kept changed since
    assert ask(index, store, "group:a", revision=first) is None  # it did since this one
    fourth = store.write([delete("group:a#member@group:b#member")])
    assert ask(index, store, "group:a", revision=fourth) is False
    assert ask(index, store, "group:a", revision=third) is None


def test_a_computed_part_survives_a_relationship_that_says_the_same(store):
    same = "group:a#member@group:a#both"
    store.write([create(same), create("group:a#owner@user:ada")])
    index = built(store)
    assert ask(index, store, "group:a#both") is True
    store.write([delete(same)])
    assert ask(index, store, "group:a") is True
    assert ask(index, store, "group:a#both") is True


def test_nothing_is_read_until_a_group_is_asked_about_often(store):
    store.write([create("group:a#member@user:ada"), create("doc:x#reader@user:ada")])
    before = store.snapshots, store.reads
    index = Index(SCHEMA, store, asks=3)
    assert [ask(index, store, "group:a") for _ in range(2)] == [None, None]
    assert ask(index, store, "doc:x#reader") is None
    assert ask(index, store, "doc:x#view") is None
    assert (store.snapshots, store.reads) == before
    deadline = time.monotonic() + 10
    while ask(index, store, "group:a") is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert ask(index, store, "group:a") is True
    assert ask(index, store, "doc:x#reader") is None
    index.close()


def test_what_is_too_far_behind_is_built_anew(store, monkeypatch):
    monkeypatch.setattr("cupola.access.engine.index.BACKLOG", 10)
    index = built(store)
    store.write([create(f"group:a#member@user:u{number}") for number in range(11)])
    assert BACKLOG > 10
    assert ask(index, store, "group:a", "user:u3") is None
    index.close()


def test_a_changelog_that_is_gone_is_no_error(store, monkeypatch):
    index = built(store)
    store.write([create("group:a#member@user:ada")])

    def gone(*_, **__):
        raise RevisionGone("it is older than the window")

    monkeypatch.setattr(store, "changes", gone)
    assert ask(index, store, "group:a") is None
    index.close()
    monkeypatch.undo()
    index = built(store)
    assert ask(index, store, "group:a") is True
    monkeypatch.setattr(store, "snapshot", gone)
    with pytest.raises(RevisionGone):
        index.build(1, "team", "lead")


def mixed(store, index, seed, count, every):
    """Writes random relationships and takes them away again; compares with recursion now and then."""
    chance, live, checked = random.Random(seed), set(), 0
    users, ids = [f"u{number}" for number in range(6)], [f"g{number}" for number in range(9)]
    kinds = {("group", "owner"): ["user", "group#member"], ("group", "member"): ["user", "group#member", "team#staff", "group#both"], ("team", "staff"): ["user", "group#member", "team#staff"], ("team", "lead"): ["user"]}  # fmt: skip
    step = last = 0
    while step < count:
        updates = {}
        for _ in range(chance.randint(1, 6)):
            if live and chance.random() < len(live) / 60:
                update = delete(chance.choice(sorted(live)))
            else:
                type, relation = chance.choice(list(kinds))
                kind, _, inner = chance.choice(kinds[type, relation]).partition("#")
                subject = Subject(kind, chance.choice(users if kind == "user" else ids), inner)
                update = touch(Relationship(Object(type, chance.choice(ids)), relation, subject))
            updates.setdefault(update.relationship, update)
        for relationship, update in updates.items():
            (live.discard if update.operation is Operation.DELETE else live.add)(relationship)
        revision = store.write(list(updates.values()))
        step += len(updates)
        if chance.random() < 0.5:
            ask(index, store, "group:g0", revision=revision)
        if step - last >= every or step >= count:
            last = step
            for subject in [Subject("user", chance.choice(users)), Subject("group", chance.choice(ids), "member")]:
                expected = naive(NESTED, store.snapshot(revision), subject, ids)
                for id in ids:
                    for type, relation in GROUPS:
                        found = index.member(revision, Object(type, id), relation, subject)
                        assert found is (expected[Object(type, id), relation] is Verdict.YES), (step, id, relation)
                        checked += 1
    return checked


def test_the_index_equals_recursion_after_many_updates(store):
    assert mixed(store, built(store), 1, 10_000, 2000) > 300


@pytest.mark.slow
def test_the_index_equals_recursion_after_very_many_updates(store):
    assert mixed(store, built(store), 2, 100_000, 2000) > 3000


def test_the_index_is_exact_while_others_write(store):
    store.write([create("group:a#member@group:b#member")])
    index, wrong = built(store), []
    stop = threading.Event()

    def read():
        while not stop.is_set():
            revision = store.head()
            found = ask(index, store, "group:a", revision=revision)
            if found is not None and found is not (revision % 2 == 0):
                wrong.append((revision, found))

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for revision in range(2, 400):
        change = create if revision % 2 == 0 else delete
        assert store.write([change("group:b#member@user:ada")]) == revision
    stop.set()
    for reader in readers:
        reader.join()
    assert not wrong


def test_deep_nesting(store):
    store.write([create(f"group:g{i}#member@group:g{i + 1}#member") for i in range(5000)])
    index = built(store, ("group", "member"))
    assert ask(index, store, "group:g0") is False
    store.write([create("group:g5000#member@user:ada")])
    assert ask(index, store, "group:g0") is True
    store.write([delete("group:g2500#member@group:g2501#member")])
    assert ask(index, store, "group:g0") is False
    assert ask(index, store, "group:g2501") is True
