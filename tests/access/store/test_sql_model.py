"""Every store against a dictionary of versions, over random histories."""

import dataclasses
import time

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cupola.access.errors import AlreadyExists, PreconditionFailed, RevisionGone
from cupola.access.relation import (
    WILDCARD,
    Caveated,
    Filter,
    Must,
    Object,
    Operation,
    Precondition,
    Relationship,
    Subject,
    Update,
)
from cupola.access.store.memory import MemoryStore
from cupola.access.store.open import open_store

objects = st.builds(Object, st.sampled_from(["doc", "folder"]), st.sampled_from(["a", "ab", "b", "ü"]))
subjects = st.one_of(
    st.builds(Subject, st.sampled_from(["user", "group"]), st.sampled_from(["a", "b", WILDCARD]), st.just("")),
    st.builds(Subject, st.just("group"), st.sampled_from(["a", "b"]), st.sampled_from(["member", "owner"])),
)
relationships = st.builds(
    Relationship,
    objects,
    st.sampled_from(["reader", "writer"]),
    subjects,
    st.sampled_from([None, Caveated("c"), Caveated("c", '{"x":1}')]),
    st.sampled_from([None, 1.0, 2.0, 4e9]),
)
updates = st.lists(
    st.builds(Update, st.sampled_from(Operation), relationships), max_size=6, unique_by=lambda update: update[1].key
)
blank = st.just("")
filters = st.builds(
    Filter,
    st.one_of(blank, st.just("doc")),
    st.one_of(blank, st.just("a")),
    st.one_of(blank, st.sampled_from(["a", "ü"])),
    st.one_of(blank, st.just("reader")),
    st.one_of(blank, st.just("group")),
    st.one_of(blank, st.sampled_from(["a", WILDCARD])),
    st.one_of(st.none(), st.sampled_from(["", "member"])),
)
preconditions = st.lists(st.builds(Precondition, st.sampled_from(Must), filters), max_size=1)
steps = st.one_of(
    st.tuples(st.just("write"), updates, preconditions),
    st.tuples(st.just("delete"), filters, st.sampled_from([None, 1, 3])),
    st.tuples(st.just("load"), st.lists(relationships, max_size=5, unique_by=lambda one: one.key)),
    st.tuples(st.just("collect"), st.integers(0, 3)),
)


@dataclasses.dataclass
class Naive:
    """All revisions in full."""

    versions: list[dict] = dataclasses.field(default_factory=lambda: [{}])
    log: list[list[Update]] = dataclasses.field(default_factory=lambda: [[]])
    oldest: int = 0

    def write(self, updates, preconditions):
        rows = dict(self.versions[-1])
        for must, filter in preconditions:
            if any(filter.matches(one) for one in rows.values() if not past(one)) != (must is Must.MATCH):
                raise PreconditionFailed("")
        changed = []
        for operation, one in updates:
            old = rows.get(one.key)
            if operation is Operation.DELETE:
                if old is not None:
                    changed.append(Update(operation, rows.pop(one.key)))
                continue
            if operation is Operation.CREATE and old is not None and not past(old):
                raise AlreadyExists("")
            if operation is Operation.CREATE or old != one:
                changed.append(Update(operation, one))
            rows[one.key] = one
        self.versions.append(rows)
        self.log.append(changed)

    def delete(self, filter, limit):
        found = [one for _, one in sorted(self.versions[-1].items()) if filter.matches(one)][:limit]
        self.write([Update(Operation.DELETE, one) for one in found], [])

    def load(self, many):
        self.write([Update(Operation.CREATE, one) for one in many], [])


def past(one) -> bool:
    return one.expires_seconds is not None and one.expires_seconds < 1e9


def attempt(call):
    try:
        call()
    except (AlreadyExists, PreconditionFailed) as error:
        return type(error)


def compare(store, naive, wanted: Filter) -> None:
    assert (store.head(), store.oldest()) == (len(naive.versions) - 1, naive.oldest)
    for revision, rows in enumerate(naive.versions):
        if revision < naive.oldest:
            assert attempt_gone(store, revision)
            continue
        snapshot = store.snapshot(revision)
        expected = [one for _, one in sorted(rows.items())]
        assert list(snapshot.read(Filter())) == expected
        assert list(snapshot.read(wanted, limit=2)) == [one for one in expected if wanted.matches(one)][:2]
        for one in {key: one for each in naive.versions for key, one in each.items()}.values():
            object, relation, subject = one.key
            of = [o for o in expected if o.key[:2] == (object, relation)]
            held = [o for o in expected if (o.subject, o.object.type, o.relation) == (subject, object.type, relation)]
            assert snapshot.find(object, relation, subject) == rows.get(one.key)
            assert sorted(snapshot.subjects(object, relation), key=key) == of
            many = [o for o in of if o.subject.relation or o.subject.id == WILDCARD]
            assert sorted(snapshot.indirect(object, relation), key=key) == many
            assert sorted(snapshot.objects(subject, object.type, relation), key=key) == held
    logged = {change.revision: list(change.updates) for change in store.changes(naive.oldest)}
    assert list(logged) == list(range(naive.oldest + 1, len(naive.versions)))
    for revision, found in logged.items():
        if naive.log[revision] != found:  # A load has no order.
            assert sorted(found, key=update_key) == sorted(naive.log[revision], key=update_key)


def key(one):
    return one.key


def update_key(update):
    return update.relationship.key


def attempt_gone(store, revision) -> bool:
    try:
        store.snapshot(revision)
    except RevisionGone:
        return True
    return False


def run(store, history, wanted) -> None:
    naive = Naive()
    for kind, *arguments in history:
        if kind == "collect":
            revision = min(naive.oldest + arguments[0], store.head())
            if revision > naive.oldest:
                (change,) = store.changes(revision - 1, limit=1)
                store.collect(change.time_seconds)
                naive.oldest = revision
            continue
        named = dict(zip(("filter", "limit"), arguments, strict=True)) if kind == "delete" else None
        outcomes = [
            attempt(lambda each=each: getattr(each, kind)(**named) if named else getattr(each, kind)(*arguments))  # noqa: B023
            for each in (store, naive)
        ]
        assert outcomes[0] == outcomes[1]
        # So that times tell revisions apart.
        time.sleep(1e-5)
    compare(store, naive, wanted)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(steps, max_size=8), filters)
def test_memory(history, wanted):
    run(MemoryStore(), history, wanted)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=st.lists(steps, max_size=8), wanted=filters)
def test_database(kept, history, wanted):
    store = open_store(kept, tenant=str(time.time_ns()))
    try:
        run(store, history, wanted)
    finally:
        store.close()
