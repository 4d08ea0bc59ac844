"""Which relations of a schema lead to which."""

import pytest
from worlds import everything, naive, schema_of, subjects, world

from cupola.access.decision import Verdict
from cupola.access.engine.reach import Lead, Reach, reach_of
from cupola.access.errors import UnknownName
from cupola.access.schema.model import (
    Allowed,
    Arrow,
    Computed,
    Exclusion,
    Intersection,
    Itself,
    Nil,
    Quantifier,
    This,
    Union,
)

SCHEMA = schema_of(
    ("user", {}),
    ("group", {"member": (This(), (Allowed("user"), Allowed("user", wildcard=True), Allowed("group", "member")))}),
    (
        "doc",
        {
            "parent": (This(), (Allowed("doc"), Allowed("group"))),
            "reader": (This(), (Allowed("group", "member"), Allowed("user", caveat="depends"))),
            "banned": (This(), (Allowed("robot"),)),
            "plain": (Union((Computed("reader"), Arrow("parent", "plain"), Nil())), ()),
            "every": (Arrow("parent", "member", Quantifier.ALL), ()),
            "less": (Exclusion(Computed("reader"), Computed("banned")), ()),
            "both": (Intersection((Computed("reader"), Computed("banned"))), ()),
            "own": (Itself(), ()),
        },
    ),
)
REACH = Reach(SCHEMA)


@pytest.mark.parametrize(
    ("start", "leads"),
    [
        (("user", "*"), [Lead(("group", "member"), "member", "*", True)]),
        (
            ("group", "member"),
            [
                Lead(("group", "member"), "member", "member", True),
                Lead(("doc", "reader"), "reader", "member", True),
                Lead(("doc", "every"), "parent", "", False),
            ],
        ),
        (
            ("doc", "reader"),
            [
                Lead(("doc", "plain"), "", "", True),
                Lead(("doc", "less"), "", "", False),
                Lead(("doc", "both"), "", "", False),
            ],
        ),
        (("doc", "plain"), [Lead(("doc", "plain"), "parent", "", True)]),
        (("doc", "banned"), []),
    ],
)
def test_leads(start, leads):
    assert list(REACH.leads.get(start, ())) == leads


def test_what_leads_to_a_pair_and_what_a_kind_leads_to():
    assert REACH.into(("group", "member")) == {("group", "member"), ("user", ""), ("user", "*")}
    assert ("robot", "") not in REACH.into(("doc", "less"))
    assert REACH.out_of([("robot", "")]) == {("robot", ""), ("doc", "banned")}
    assert ("doc", "own") in REACH.out_of([("doc", "")])


def test_a_schema_is_read_once():
    assert reach_of(SCHEMA) is reach_of(SCHEMA)
    assert reach_of(schema_of()) is not reach_of(SCHEMA)


def test_unknown_names():
    assert REACH.require("doc", "plain") == ("doc", "plain")
    with pytest.raises(UnknownName, match="robot#run"):
        REACH.require("robot", "run")


@pytest.mark.parametrize("seed", range(10))
def test_nobody_is_where_nothing_leads_to(seed):
    drawn = world(seed)
    reach = Reach(drawn.schema)
    for subject in subjects(drawn.schema):
        kind = (subject.type, subject.relation)
        reached = reach.out_of([kind, (subject.type, "*")])
        for (object, relation), verdict in naive(drawn.schema, drawn.facts, subject, ("a", "b")).items():
            assert verdict is Verdict.NO or (object.type, relation) in reached
    for pair in everything(drawn.schema):
        assert all(pair in reach.out_of([start]) for start in reach.into(pair))
