"""What every store does alike."""

import threading
import time

import pytest

from cupola.access.errors import AlreadyExists, Conflict, InvalidArgument, PreconditionFailed, RevisionGone
from cupola.access.relation import (
    Filter,
    Must,
    Object,
    Operation,
    Precondition,
    Relationship,
    Subject,
    Update,
    create,
    delete,
    touch,
)
from cupola.access.schema.model import Language
from cupola.access.schema.read import read_schema
from cupola.access.store.protocol import Snapshot, Store
from cupola.access.token import revision_of, token_of

DOC = Object("doc", "a")
ADA = Subject("user", "ada")
PAST, FUTURE = "[expiration:2001-01-01T00:00:00Z]", "[expiration:2999-01-01T00:00:00.250000Z]"


def texts(relationships) -> list[str]:
    return [str(one) for one in relationships]


def shown(store, revision=None) -> list[str]:
    return texts(store.snapshot(store.head() if revision is None else revision).read(Filter()))


def test_is_a_store(store):
    assert isinstance(store, Store)
    assert (store.head(), store.oldest(), shown(store)) == (0, 0, [])
    assert isinstance(store.snapshot(0), Snapshot)
    assert revision_of(token_of(store.id, 7), store.id) == 7


def test_finds_by_object_and_by_subject(store):
    lines = [
        'doc:a#reader@user:ada[office:{"net":"ä b"}]' + FUTURE,
        "doc:a#reader@user:*",
        "doc:a#reader@group:g#member",
        "doc:a#owner@user:ada",
        "doc:b#reader@user:ada",
        "folder:a#reader@user:ada",
    ]
    snapshot = store.snapshot(store.write([touch(line) for line in lines]))
    assert str(snapshot.find(DOC, "reader", ADA)) == lines[0]
    assert snapshot.find(DOC, "reader", Subject("user", "*")) == Relationship.parse(lines[1])
    assert snapshot.find(DOC, "reader", Subject("group", "g")) is None
    assert snapshot.find(DOC, "nobody", ADA) is None
    assert sorted(texts(snapshot.subjects(DOC, "reader"))) == sorted(lines[:3])
    assert sorted(texts(snapshot.indirect(DOC, "reader"))) == sorted(lines[1:3])
    assert not snapshot.indirect(DOC, "owner")
    assert sorted(texts(snapshot.objects(ADA, "doc", "reader"))) == sorted([lines[0], lines[4]])
    assert texts(snapshot.objects(Subject("user", "*"), "doc", "reader")) == [lines[1]]
    assert not snapshot.objects(Subject("group", "g"), "doc", "reader")


def test_revisions_stay_what_they_were(store):
    first = store.write([touch("doc:a#reader@user:ada"), touch("doc:a#reader@user:bob")])
    second = store.write([delete("doc:a#reader@user:ada"), touch(f"doc:a#reader@user:bob{FUTURE}")])
    third = store.write([create("doc:a#reader@user:ada")])
    assert (first, second, third) == (1, 2, 3) == tuple(change.revision for change in store.changes(0))
    assert shown(store, 0) == []
    assert shown(store, first) == ["doc:a#reader@user:ada", "doc:a#reader@user:bob"]
    assert shown(store, second) == [f"doc:a#reader@user:bob{FUTURE}"]
    assert len(shown(store, third)) == 2
    old = store.snapshot(second)
    assert old.find(DOC, "reader", ADA) is None
    assert len(old.subjects(DOC, "reader")) == 1
    assert old.objects(ADA, "doc", "reader") in ((), [])


@pytest.mark.parametrize("revision", [-1, 2, 99])
def test_refuses_a_revision_that_was_never_made(store, revision):
    store.write([touch("doc:a#reader@user:ada")])
    with pytest.raises(InvalidArgument, match="never made"):
        store.snapshot(revision)


def test_changelog_has_what_truly_changed(store):
    store.write([touch("doc:a#reader@user:ada"), create("doc:a#reader@user:bob[c:{}]")], metadata='{"by":"ü"}')
    store.write([touch("doc:a#reader@user:ada"), delete("doc:x#reader@user:eve"), delete("doc:a#reader@user:bob")])
    store.write([])
    first, second, third = store.changes(0)
    assert [(u.operation, str(u.relationship)) for u in first.updates] == [
        (Operation.TOUCH, "doc:a#reader@user:ada"),
        (Operation.CREATE, "doc:a#reader@user:bob[c]"),
    ]
    assert (first.metadata, first.schema_id, second.metadata) == ('{"by":"ü"}', "", "")
    assert second.updates == (delete("doc:a#reader@user:bob[c]"),)
    assert third.updates == ()
    assert abs(first.time_seconds - time.time()) < 60
    assert first.time_seconds <= second.time_seconds <= third.time_seconds
    assert store.changes(1, limit=1) == [second] or store.changes(1, limit=1) == (second,)
    assert not store.changes(3)


def test_creating_what_is_there_is_refused_unless_it_has_expired(store):
    store.write([touch("doc:a#reader@user:ada"), touch(f"doc:a#reader@user:old{PAST}")])
    with pytest.raises(AlreadyExists, match="doc:a#reader@user:ada"):
        store.write([create("doc:b#reader@user:ada"), create("doc:a#reader@user:ada[c]")])
    assert store.head() == 1
    assert len(shown(store)) == 2
    store.write([create("doc:a#reader@user:old")])
    assert shown(store) == ["doc:a#reader@user:ada", "doc:a#reader@user:old"]
    assert len(shown(store, 1)) == 2


def test_two_changes_of_one_relationship_are_refused(store):
    with pytest.raises(InvalidArgument, match="twice"):
        store.write([touch("doc:a#reader@user:ada"), delete("doc:a#reader@user:ada")])
    assert store.head() == 0


@pytest.mark.parametrize(
    ("must", "filter", "holds"),
    [
        (Must.MATCH, Filter("doc", "a"), True),
        (Must.MATCH, Filter("doc", "b"), False),
        (Must.MATCH, Filter("doc", id_prefix="a", subject_relation=""), True),
        (Must.MATCH, Filter(subject_id="old"), False),
        (Must.NOT_MATCH, Filter(subject_id="old"), True),
        (Must.NOT_MATCH, Filter(subject_type="user"), False),
        (Must.NOT_MATCH, Filter("nothing"), True),
    ],
)
def test_preconditions(store, must, filter, holds):
    store.write([touch("doc:a#reader@user:ada"), touch(f"doc:a#reader@user:old{PAST}")])
    condition = [Precondition(must, filter)]
    if holds:
        assert store.write([touch("doc:z#reader@user:ada")], condition) == 2
        assert store.delete(Filter("doc", "z"), condition) == (3, 1)
    else:
        with pytest.raises(PreconditionFailed, match="match"):
            store.write([touch("doc:z#reader@user:ada")], condition)
        with pytest.raises(PreconditionFailed):
            store.delete(Filter(), condition)
        assert store.head() == 1


def test_conflicts(store):
    text = "definition user {}"
    store.write([], schema=(text, read_schema(text)), expect_head=0)
    with pytest.raises(Conflict, match="newest revision is 1"):
        store.write([], expect_head=0)
    with pytest.raises(Conflict, match="schema"):
        store.write([], expect_schema="01ANOTHER")
    assert store.write([], expect_schema=store.schema(1).id, expect_head=1) == 2


def test_schemas_are_versions(store):
    assert store.schema(0) is None
    assert not store.schemas()
    texts = ["definition user {}", "definition user {}\ndefinition doc { relation reader: user }"]
    for text in texts:
        store.write([], schema=(text, read_schema(text)))
        store.write([touch(f"doc:{len(text)}#reader@user:ada")])
    first, second = store.schemas()
    assert [version.text for version in (first, second)] == texts
    assert first.id < second.id
    assert (first.revision, second.revision) == (1, 3)
    assert second.schema == read_schema(texts[1])
    assert second.schema.language is Language.ZED
    assert [store.schema(revision) for revision in range(5)] == [None, first, first, second, second]
    assert [change.schema_id for change in store.changes(0)] == [first.id, "", second.id, ""]


READ = [
    "doc:a#owner@user:ada",
    "doc:a#reader@group:g",
    "doc:a#reader@group:g#admin",
    "doc:a#reader@group:g#member",
    "doc:a#reader@user:*",
    "doc:a#reader@user:ada",
    "doc:a!#reader@user:ada",
    "doc:ab#reader@user:bob",
    "doc:aé#reader@user:bob",
    "doc:b#reader@user:ada",
    "folder:a#reader@user:ada",
    "folder:\U0010ffff#reader@user:\U0010ffff",
]
FILTERS = [
    Filter(),
    Filter("doc"),
    Filter("doc", "a"),
    Filter(id="a"),
    Filter("doc", id_prefix="a"),
    Filter(id_prefix="\U0010ffff"),
    Filter(id_prefix="a", relation="reader"),
    Filter("doc", "a", relation="reader", subject_type="group"),
    Filter(subject_type="user", subject_id="ada"),
    Filter(subject_id="*"),
    Filter(subject_id="g", subject_relation="member"),
    Filter(subject_relation=""),
    Filter(subject_relation="member"),
    Filter("doc", subject_type="user", subject_id="bob", id_prefix="aé"),
    Filter("doc", "b", id_prefix="a"),
    Filter("nothing"),
]


@pytest.mark.parametrize("filter", FILTERS, ids=str)
def test_reads_sorted_by_pages(store, filter):
    store.write([touch(line) for line in reversed(READ)])
    store.write([delete("doc:b#reader@user:ada"), touch("doc:a#zzz@user:ada")])
    snapshot = store.snapshot(1)
    everything = sorted((Relationship.parse(line) for line in READ), key=lambda one: one.key)
    expected = [one for one in everything if filter.matches(one)]
    assert list(snapshot.read(filter)) == expected
    for size in (1, 2, 5):
        pages, after = [], None
        while page := snapshot.read(filter, after=after, limit=size):
            assert len(page) <= size
            pages += page
            after = page[-1]
        assert pages == expected
    for after in everything:
        assert list(snapshot.read(filter, after=after)) == [one for one in expected if one.key > after.key]


@pytest.mark.parametrize("limit", [0, -1])
def test_a_page_of_nothing_is_refused(store, limit):
    with pytest.raises(InvalidArgument, match="page"):
        store.snapshot(0).read(Filter(), limit=limit)
    with pytest.raises(InvalidArgument, match="page"):
        store.changes(0, limit=limit)
    with pytest.raises(InvalidArgument, match="page"):
        store.delete(Filter(), limit=limit)


def test_deletes_by_filter(store):
    store.write([touch(f"doc:{name}#reader@user:{who}") for name in "abc" for who in ("ada", "bob")])
    assert store.delete(Filter("doc", subject_id="ada"), limit=2, metadata='{"x":1}') == (2, 2)
    assert store.delete(Filter("doc", subject_id="ada")) == (3, 1)
    assert store.delete(Filter("doc", subject_id="ada")) == (4, 0)
    assert shown(store) == [f"doc:{name}#reader@user:bob" for name in "abc"]
    changes = store.changes(1)
    assert changes[0].updates == (delete("doc:a#reader@user:ada"), delete("doc:b#reader@user:ada"))
    assert changes[0].metadata == '{"x":1}'
    assert changes[1].updates == (delete("doc:c#reader@user:ada"),)


def test_loads(store):
    store.write([touch(f"doc:1#reader@user:ada{PAST}"), touch("doc:x#reader@user:ada")])
    many = [Relationship(Object("doc", str(n)), "reader", ADA) for n in range(3000)]
    assert store.load(iter(many)) == 3000
    assert store.head() == 2
    assert len(store.snapshot(2).read(Filter())) == 3001
    assert len(store.snapshot(1).read(Filter())) == 2
    assert len(store.snapshot(2).objects(ADA, "doc", "reader")) == 3001
    (change,) = store.changes(1)
    assert {update.relationship for update in change.updates} == set(many)
    assert {update.operation for update in change.updates} == {Operation.CREATE}
    assert store.load([]) == 0


@pytest.mark.parametrize("twice", [False, True])
def test_a_load_is_all_or_nothing(store, twice):
    store.write([touch("doc:7#reader@user:ada")] if not twice else [])
    many = [Relationship(Object("doc", str(n)), "reader", ADA) for n in range(100)]
    with pytest.raises(AlreadyExists, match="doc:7#reader@user:ada"):
        store.load([*many, many[7]])
    assert store.head() == 1
    assert len(shown(store)) == (0 if twice else 1)
    assert store.load(many[8:]) == 92


def test_what_a_load_is_fed_with_may_fail(store):
    def feed():
        yield Relationship(DOC, "reader", ADA)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.load(feed())
    assert store.head() == 0
    assert store.write([touch("doc:a#reader@user:ada")]) == 1


def test_collects(store):
    for line in ("doc:a#reader@user:ada", "doc:a#reader@user:bob", "doc:a#reader@user:eve"):
        store.write([touch(line)])
        time.sleep(0.002)
    store.write([delete("doc:a#reader@user:ada"), touch("doc:a#reader@user:bob[c]")])
    time.sleep(0.002)
    store.write([touch("doc:a#reader@user:bob")])
    times = [change.time_seconds for change in store.changes(0)]
    old = store.snapshot(1)
    assert store.collect(times[0] - 1) == 0
    assert (store.oldest(), len(old.subjects(DOC, "reader"))) == (0, 1)
    assert store.collect(times[3]) == 2
    assert store.oldest() == 4
    for ask in (
        lambda: old.find(DOC, "reader", ADA),
        lambda: old.subjects(DOC, "reader"),
        lambda: old.objects(ADA, "doc", "reader"),
        lambda: old.read(Filter()),
        lambda: store.snapshot(3),
        lambda: store.changes(3),
    ):
        with pytest.raises(RevisionGone, match="oldest is 4"):
            ask()
    assert shown(store, 4) == ["doc:a#reader@user:bob[c]", "doc:a#reader@user:eve"]
    assert shown(store) == ["doc:a#reader@user:bob", "doc:a#reader@user:eve"]
    assert [change.revision for change in store.changes(4)] == [5]
    assert store.collect(time.time() + 1) == 1
    assert (store.oldest(), store.head(), len(shown(store))) == (5, 5, 2)
    assert store.write([create("doc:a#reader@user:ada")]) == 6


def test_waits(store):
    assert store.wait(0, 0.01) is False
    threading.Timer(0.05, store.write, [[touch("doc:a#reader@user:ada")]]).start()
    began = time.monotonic()
    assert store.wait(0, 20.0) is True
    assert time.monotonic() - began < 10
    assert store.wait(0, 0.0) is True


def test_long_and_odd_ids(store):
    odd = Relationship(Object("tenant/doc", "a'\"%?\\|/+=_-" + "x" * 1000), "reader", Subject("user", "ï" * 300))
    store.write([Update(Operation.TOUCH, odd)])
    assert store.snapshot(1).find(*odd.key) == odd
    assert store.snapshot(1).read(Filter(id_prefix="a'\"%")) == [odd]


def test_context_longer_than_a_page(store):
    line = f'doc:a#reader@user:ada[c:{{"x":"{"y" * 40_000}"}}]'
    store.write([touch(line)])
    assert str(store.snapshot(1).find(DOC, "reader", ADA)) == line
    assert store.write([touch(line)]) == 2
    assert store.changes(1)[0].updates == ()
