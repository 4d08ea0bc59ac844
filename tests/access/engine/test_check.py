"""Questions and their answers, case by case: each operator, each kind of subject, cycles, conditions, depth."""

import dataclasses
import time

import pytest
from plain_store import PlainStore
from random_graph import CAVEATS, NOW

from cupola.access.decision import Question, Verdict
from cupola.access.engine.at import At
from cupola.access.engine.cache import Cache
from cupola.access.engine.compile import Compiled
from cupola.access.engine.deadline import Deadline
from cupola.access.engine.engine import Engine
from cupola.access.errors import InvalidArgument, Late, RevisionGone, UnknownName
from cupola.access.limits import Limits
from cupola.access.relation import Object, Relationship, Subject
from cupola.access.schema.model import (
    Allowed,
    Arrow,
    Computed,
    Definition,
    Exclusion,
    Intersection,
    Itself,
    Nil,
    Quantifier,
    Relation,
    Schema,
    This,
    Union,
)

USER, ANYONE, GROUP = Allowed("user"), Allowed("user", wildcard=True), Allowed("group", "member")
SCHEMA = Schema(
    (
        Definition("user", (Relation("me", Itself()),)),
        Definition("other"),
        Definition("group", (Relation("member", This(), (USER, ANYONE, GROUP)),)),
        Definition(
            "folder",
            (
                Relation("parent", This(), (Allowed("folder"), Allowed("group"))),
                Relation("viewer", This(), (USER, GROUP, Allowed("user", caveat="one"))),
                Relation("guest", This(), (Allowed("user", expires=True),)),
                Relation("banned", This(), (USER, GROUP)),
                Relation("view", Union((Computed("viewer"), Computed("guest"), Arrow("parent", "view")))),
                Relation("safe", Exclusion(Computed("view"), Computed("banned"))),
                Relation("both", Intersection((Computed("viewer"), Computed("banned")))),
                Relation("every", Arrow("parent", "viewer", Quantifier.ALL)),
                Relation("empty", Nil()),
                Relation("loop", Exclusion(Computed("viewer"), Computed("loop"))),
                Relation("chain", Exclusion(Union((Computed("viewer"), Arrow("parent", "chain"))), Computed("banned"))),
            ),
        ),
    ),
    CAVEATS,
)
FACTS = """
group:a#member@user:ada
group:b#member@group:a#member
group:c#member@group:d#member
group:d#member@group:c#member
group:d#member@user:dan
group:open#member@user:*
folder:x#viewer@user:ada
folder:x#viewer@group:b#member
folder:x#banned@user:bob
folder:x#viewer@user:bob
folder:y#parent@folder:x
folder:y#parent@folder:z
folder:z#viewer@user:ada
folder:z#viewer@group:open#member
folder:g#parent@group:a
folder:h#parent@folder:x
folder:h#parent@group:a
folder:k#viewer@user:cat[one]
folder:k#viewer@user:fox[one:{"x":1}]
folder:k#viewer@user:owl[one:{"x":2}]
folder:k#banned@user:cat
folder:r1#parent@folder:r2
folder:r2#parent@folder:r1
folder:r2#viewer@user:ada
folder:t#guest@user:ada[expiration:1970-01-12T13:46:41Z]
folder:t#guest@user:bob[expiration:1970-01-12T13:46:40Z]
"""


@pytest.fixture(scope="module")
def store():
    return PlainStore(SCHEMA, [Relationship.parse(line) for line in FACTS.split("\n") if line])


@pytest.fixture(scope="module")
def engine(store):
    return Engine(store, Limits())


@pytest.fixture
def ask(engine, store):
    def answer(text, context=None, extra=()):
        permission, subject = text.split("@")
        object, name = permission.split("#")
        at = At(store.head(), store.version, NOW, context or {}, tuple(map(Relationship.parse, extra)))
        found = engine.check(at, Object.parse(object), name, Subject.parse(subject))
        why = engine.explain(at, Object.parse(object), name, Subject.parse(subject))
        assert (why.verdict, why.missing) == found
        return found[0].value if not found[1] else ",".join(found[1])

    return answer


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("folder:x#viewer@user:ada", "yes"),
        ("folder:x#viewer@user:cat", "no"),
        ("folder:x#viewer@other:ada", "no"),
        ("folder:none#viewer@user:ada", "no"),
        # groups in groups, and in circles
        ("group:b#member@user:ada", "yes"),
        ("group:c#member@user:dan", "yes"),
        ("group:c#member@user:ada", "no"),
        # sets of subjects: exactly, by nesting, and in themselves
        ("folder:x#viewer@group:b#member", "yes"),
        ("folder:x#viewer@group:a#member", "yes"),
        ("folder:x#viewer@group:c#member", "no"),
        ("folder:x#viewer@folder:x#viewer", "yes"),
        ("folder:x#view@folder:x#viewer", "yes"),
        ("folder:x#viewer@folder:x#view", "no"),
        ("group:none#member@group:none#member", "yes"),
        # all of a type, but no sets and no other types
        ("group:open#member@user:nobody", "yes"),
        ("group:open#member@user:*", "yes"),
        ("group:a#member@user:*", "no"),
        ("group:open#member@user:eve#me", "no"),
        ("group:open#member@other:eve", "no"),
        # arrows
        ("folder:y#view@user:ada", "yes"),
        ("folder:y#view@user:eve", "yes"),
        ("folder:g#view@user:ada", "no"),
        ("folder:r1#view@user:ada", "yes"),
        ("folder:r1#view@user:bob", "no"),
        # over all: x and z; none; a type that lacks it
        ("folder:y#every@user:ada", "yes"),
        ("folder:y#every@user:bob", "yes"),
        ("folder:y#every@user:eve", "no"),
        ("folder:x#every@user:ada", "no"),
        ("folder:h#every@user:ada", "no"),
        # operators
        ("folder:x#safe@user:ada", "yes"),
        ("folder:x#safe@user:bob", "no"),
        ("folder:x#both@user:bob", "yes"),
        ("folder:x#both@user:ada", "no"),
        ("folder:x#empty@user:ada", "no"),
        ("user:eve#me@user:eve", "yes"),
        ("user:eve#me@user:ada", "no"),
        # in the set only if not in it: undefined, which is denied
        ("folder:x#loop@user:ada", "no"),
        ("folder:x#loop@user:cat", "no"),
        # conditions
        ("folder:k#viewer@user:cat", "x"),
        ("folder:k#viewer@user:fox", "yes"),
        ("folder:k#viewer@user:owl", "no"),
        ("folder:k#safe@user:cat", "no"),
        ("folder:k#both@user:cat", "x"),
        # expirations
        ("folder:t#view@user:ada", "yes"),
        ("folder:t#view@user:bob", "no"),
    ],
)
def test_answers(ask, question, answer):
    assert ask(question) == answer


def test_a_relationship_beats_the_question(ask):
    assert ask("folder:k#viewer@user:cat", {"x": 1}) == "yes"
    assert ask("folder:k#viewer@user:cat", {"x": 2}) == "no"
    assert ask("folder:k#viewer@user:fox", {"x": 2}) == "yes"


def test_relationships_of_one_question(ask):
    extra = ["group:a#member@user:new", "folder:new#parent@folder:x", "folder:k#viewer@user:owl[one]"]
    assert ask("folder:x#viewer@user:new", extra=extra) == "yes"
    assert ask("folder:new#view@user:ada", extra=extra) == "yes"
    assert ask("folder:k#viewer@user:owl", extra=extra) == "x"
    assert ask("folder:x#viewer@user:new") == "no"
    assert ask("folder:new#view@user:ada") == "no"


def test_the_schema_in_force_hides_what_it_does_not_allow(store):
    narrow = Schema((Definition("user"), Definition("folder", (Relation("viewer", This(), (ANYONE,)),))))
    at = At(store.head(), store.version._replace(id="narrow", schema=narrow), NOW)
    engine = Engine(store, Limits())
    question = Object("folder", "x"), "viewer", Subject("user", "ada")
    assert engine.check(at, *question)[0] is Verdict.NO
    why = engine.explain(at, *question)
    assert "the schema does not allow it" in str(why)
    assert engine.check(dataclasses.replace(at, version=store.version), *question)[0] is Verdict.YES


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("permission", "length"),
    [
        ("view", 3_000),
        ("chain", 2_000),
        pytest.param("view", 10_000, marks=pytest.mark.slow),
        pytest.param("chain", 4_000, marks=pytest.mark.slow),
    ],
)
def test_depth_is_no_wall(permission, length):
    links = [Relationship.parse(f"folder:{i}#parent@folder:{i + 1}") for i in range(length)]
    store = PlainStore(SCHEMA, [*links, Relationship.parse(f"folder:{length}#viewer@user:ada")])
    engine = Engine(store, Limits())
    at = At(store.head(), store.version, NOW)
    first = Object("folder", "0")
    assert engine.check(at, first, permission, Subject("user", "ada"))[0] is Verdict.YES
    assert engine.check(at, first, permission, Subject("user", "eve"))[0] is Verdict.NO
    near = Object("folder", str(length - 1500))
    step = engine.explain(at, near, permission, Subject("user", "ada"))
    assert step.verdict is Verdict.YES
    while step.parts:
        step = step.parts[0]
    assert str(step.relationship) == f"folder:{length}#viewer@user:ada"
    assert engine.expand(at, near, permission).object == near


def test_a_long_way_is_kept_for_others_until_something_is_written():
    links = [Relationship.parse(f"folder:{i}#parent@folder:{i + 1}") for i in range(20)]
    grants = [f"folder:{i}#viewer@user:{i}" for i in range(21)] + ["folder:20#viewer@user:cat[one]"]
    store = PlainStore(SCHEMA, [*links, *map(Relationship.parse, grants)])
    engine = Engine(store, Limits())

    def ask(folder, user, extra=(), context=None):
        at = At(store.head(), store.version, NOW, context or {}, tuple(map(Relationship.parse, extra)))
        found = engine.check(at, Object("folder", str(folder)), "view", Subject("user", str(user)))
        return found[0].value if not found[1] else ",".join(found[1])

    for first in (20, "eve"):
        for start in (0, 10):
            assert ask(start, first) == ("yes" if first == 20 else "no")
            assert [ask(start, user) for user in range(21)] == ["no"] * start + ["yes"] * (21 - start)
            assert ask(start, "eve") == "no"
            assert (ask(start, "cat"), ask(start, "cat", context={"x": 1})) == ("x", "yes")
            assert ask(start, "eve", extra=["folder:15#parent@folder:new", "folder:new#viewer@user:eve"]) == "yes"
        store.put(Relationship.parse("folder:other#viewer@user:eve"))
    store.put(Relationship.parse("folder:12#parent@folder:other"))
    assert ask(0, "eve") == "yes"
    store.drop(Relationship.parse("folder:12#parent@folder:other"), links[15])
    assert (ask(0, "eve"), ask(0, 15), ask(0, 16)) == ("no", "yes", "no")


def test_what_leads_nowhere_changes_no_way():
    schema = dataclasses.replace(SCHEMA, definitions=(Definition("user"), *SCHEMA.definitions[1:]))
    compiled = Compiled(schema, 100)
    store = PlainStore(schema, [Relationship.parse(f"folder:{i}#parent@folder:{i + 1}") for i in range(9)])
    cache = Cache(store, compiled.allows, leads=compiled.leads)

    def ways():
        cache.snapshot(store.head())
        return cache.ways(store.head())

    before, first = ways(), store.head()
    store.put(Relationship.parse("folder:3#viewer@user:ada"))
    assert ways() is before
    for leading in ("folder:3#viewer@group:a#member", "folder:3#parent@folder:x"):
        store.put(Relationship.parse(leading))
        assert ways() is not before
        before = ways()
    store.drop(Relationship.parse("folder:3#parent@folder:x"))
    assert ways() is not before
    assert cache.ways(first) is not ways()


@pytest.mark.parametrize(
    ("object", "permission", "subject", "named"),
    [
        ("nothing:x", "viewer", "user:ada", "nothing"),
        ("folder:x", "nothing", "user:ada", "viewer"),
        ("folder:x", "viewer", "nobody:ada", "nobody"),
        ("folder:x", "viewer", "group:a#nothing", "member"),
    ],
)
def test_unknown_names(engine, store, object, permission, subject, named):
    at = At(store.head(), store.version, NOW)
    question = Object.parse(object), permission, Subject.parse(subject)
    for method in (engine.check, engine.explain):
        with pytest.raises(UnknownName, match=named):
            method(at, *question)
    (found,) = engine.check_many(at, [Question(*question)])
    assert isinstance(found, UnknownName)


def test_questions_of_a_batch_have_their_own_context(engine, store):
    at = At(store.head(), store.version, NOW, {"x": 2})
    question = Question(Object("folder", "k"), "viewer", Subject("user", "cat"))
    found = engine.check_many(at, [question, dataclasses.replace(question, context={"x": 1})])
    assert found == [(Verdict.NO, ()), (Verdict.YES, ())]


def test_time_is_limited(store):
    engine = Engine(store, Limits())
    at = At(store.head(), store.version, NOW, deadline=Deadline(-1))
    folder, ada = Object("folder", "x"), Subject("user", "ada")
    for ask in (
        lambda: engine.check(at, folder, "view", ada),
        lambda: engine.explain(at, folder, "view", ada),
        lambda: engine.expand(at, folder, "view"),
        lambda: engine.lookup_resources(at, "folder", "view", ada, after=""),
        lambda: engine.lookup_subjects(at, folder, "view", "user", "", after=""),
    ):
        with pytest.raises(Late):
            ask()
    assert isinstance(engine.check_many(at, [Question(folder, "view", ada)])[0], Late)


def test_revisions_that_are_not_there():
    store = PlainStore(SCHEMA, [Relationship.parse("folder:x#viewer@user:ada")])
    before = store.head()
    store.put(Relationship.parse("folder:x#viewer@user:bob"))
    engine = Engine(store, Limits())
    at = At(store.head(), store.version, NOW)
    question = Object("folder", "x"), "view", Subject("user", "bob")
    assert engine.check(at, *question)[0] is Verdict.YES
    assert engine.check(dataclasses.replace(at, revision=before), *question)[0] is Verdict.NO
    store.collect(time.time() + 1)
    with pytest.raises(RevisionGone):
        engine.check(dataclasses.replace(at, revision=before), *question)
    with pytest.raises(InvalidArgument):
        engine.check(dataclasses.replace(at, revision=99), *question)
