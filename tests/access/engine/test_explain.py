"""Explanations say which facts an answer rests on; trees say who is where."""

import pytest
from plain_store import PlainStore
from random_graph import CAVEATS, NOW

from cupola.access.decision import Verdict
from cupola.access.engine.at import At
from cupola.access.engine.engine import Engine
from cupola.access.limits import Limits
from cupola.access.relation import Object, Relationship, Subject
from cupola.access.schema.model import (
    Allowed,
    Arrow,
    Computed,
    Definition,
    Exclusion,
    Intersection,
    Relation,
    Schema,
    This,
    Union,
)

USER, GROUP = Allowed("user"), Allowed("group", "member")
SCHEMA = Schema(
    (
        Definition("user"),
        Definition("group", (Relation("member", This(), (USER, GROUP)),)),
        Definition(
            "doc",
            (
                Relation("parent", This(), (Allowed("doc"),)),
                Relation(
                    "viewer", This(), (USER, GROUP, Allowed("user", caveat="both"), Allowed("user", expires=True))
                ),
                Relation("banned", This(), (USER,)),
                Relation("view", Union((Computed("viewer"), Arrow("parent", "view")))),
                Relation("safe", Exclusion(Computed("view"), Computed("banned"))),
                Relation("both", Intersection((Computed("view"), Computed("banned")))),
            ),
        ),
    ),
    CAVEATS,
)
FACTS = """
group:a#member@group:b#member
group:b#member@group:a#member
group:b#member@user:ada
doc:x#viewer@group:a#member
doc:x#viewer@user:cat[both:{"x":1}]
doc:x#viewer@user:old[expiration:1970-01-12T13:46:40Z]
doc:y#parent@doc:x
doc:y#banned@user:bob
"""


@pytest.fixture
def ask():
    store = PlainStore(SCHEMA, [Relationship.parse(line) for line in FACTS.split("\n") if line])
    engine, at = Engine(store, Limits()), At(store.head(), store.version, NOW)

    def explain(object, permission, subject):
        return engine.explain(at, Object.parse(object), permission, Subject.parse(subject))

    explain.expand = lambda object, permission: engine.expand(at, Object.parse(object), permission)
    explain.engine, explain.at = engine, at
    return explain


def test_the_path_that_allowed_ends_at_a_fact(ask):
    lines = str(ask("doc:y", "safe", "user:ada")).split("\n")
    assert all(line.strip().startswith(("+", "-")) for line in lines)
    assert any(line.strip().startswith("+") and line.endswith("+ group:b#member@user:ada") for line in lines)
    assert "cycle" not in "\n".join(line for line in lines if line.strip().startswith("+"))


def test_every_path_that_was_tried(ask):
    text = str(ask("doc:y", "safe", "user:eve"))
    for tried in (
        "doc:x#viewer@user:eve",
        "group:a#member@user:eve",
        "group:b#member@user:eve",
        "(already being asked: a cycle)",
    ):
        assert tried in text
    assert "+" not in [line.strip()[0] for line in text.split("\n")[:2]]


def test_what_is_missing_and_what_has_expired(ask):
    step = ask("doc:y", "safe", "user:cat")
    assert (step.verdict, step.missing) == (Verdict.CONDITIONAL, ("y",))
    assert "lacks y" in str(step)
    assert "(expired)" in str(ask("doc:x", "viewer", "user:old"))


def test_trees(ask):
    tree = ask.expand("doc:y", "safe")
    assert (tree.operator, [child.relation for child in tree.children]) == ("exclusion", ["view", "banned"])
    view, banned = tree.children
    assert view.operator == "union"
    assert [str(one) for one in banned.subjects] == ["user:bob"]
    (parent,) = view.children[1].children
    assert (parent.object, parent.relation) == (Object("doc", "x"), "view")
    assert {str(one) for one in parent.children[0].subjects} == {"group:a#member", "user:cat"}
    assert ask.expand("doc:none", "view").children[1].operator == ""


def test_a_circle_of_parents_has_a_finite_tree():
    store = PlainStore(SCHEMA, [Relationship.parse("doc:x#parent@doc:y"), Relationship.parse("doc:y#parent@doc:x")])
    tree = Engine(store, Limits()).expand(At(store.head(), store.version, NOW), Object("doc", "x"), "view")
    (below,) = tree.children[1].children
    (again,) = below.children[1].children
    assert (again.object, again.operator, again.subjects) == (Object("doc", "x"), "", ())


def test_lookups_go_through_the_engine(ask):
    engine, at = ask.engine, ask.at
    found = engine.lookup_resources(at, "doc", "safe", Subject("user", "ada"), after="")
    assert [one.id for one in found] == ["x", "y"]
    assert [one.id for one in engine.lookup_resources(at, "doc", "safe", Subject("user", "ada"), after="x")] == ["y"]
    holders = list(engine.lookup_subjects(at, Object("doc", "y"), "safe", "user", "", after=""))
    assert [(one.id, one.missing) for one in holders] == [("ada", ()), ("cat", ("y",))]
