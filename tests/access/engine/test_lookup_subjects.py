"""Lookup of subjects against the plainest evaluator, and the cases that a reader should know."""

import itertools

import pytest
from worlds import IDS, RANK, STRANGER, condition, everything, in_time, naive, schema_of, table, world

from cupola.access.decision import Verdict
from cupola.access.engine.at import Holder
from cupola.access.engine.lookup_subjects import lookup_subjects
from cupola.access.errors import UnknownName
from cupola.access.relation import Object, Subject
from cupola.access.schema.model import (
    Allowed,
    Arrow,
    Computed,
    Exclusion,
    Intersection,
    Itself,
    Quantifier,
    This,
    Union,
)

USER, PUBLIC, MEMBERS = Allowed("user"), Allowed("user", wildcard=True), Allowed("group", "member")
RELATION = (This(), (USER, PUBLIC, MEMBERS, Allowed("user", caveat="depends"), Allowed("group", "member", caveat="x")))


def look(schema, facts, object="doc:a", permission="view", kind=("user", ""), after=""):
    found = lookup_subjects(
        schema, facts, Object.parse(object), permission, *kind, after, conditions=condition, on_time=in_time
    )
    return list(found)


def verdict(holders: list[Holder], id: str) -> Verdict:
    """What a client concludes about an id from the holders that it was sent."""
    named = [0]
    for holder in holders:
        if holder.id == id:
            named.append(1 if holder.missing else 2)
        elif holder.id == "*":
            left = [1 if one.missing else 0 for one in holder.excluded if one.id == id]
            named.append(min([1 if holder.missing else 2, *left]))
    return next(verdict for verdict in Verdict if RANK[verdict] == max(named))


def schema(view, **relations):
    rest = dict.fromkeys(("a", "b", "c"), RELATION) | relations
    return schema_of(
        ("user", {}),
        ("group", {"member": RELATION, "parent": (This(), (Allowed("group"),))}),
        ("doc", {**rest, "parent": (This(), (Allowed("group"),)), "view": (view, ())}),
    )


@pytest.mark.parametrize("block", [*range(5), *(pytest.param(n, marks=pytest.mark.slow) for n in range(5, 60))])
def test_random_worlds_agree_with_the_naive_evaluator(block):
    for seed in range(block * 5, block * 5 + 5):
        drawn = world(seed)
        for kind in (("user", ""), ("group", "member"), ("doc", "view"), ("group", "")):
            expected = {
                id: naive(drawn.schema, drawn.facts, Subject(kind[0], id, kind[1]), (*IDS, STRANGER))
                for id in (*IDS, STRANGER)
            }
            for (type, relation), id in itertools.product(everything(drawn.schema), IDS):
                found = look(drawn.schema, drawn.facts, f"{type}:{id}", relation, kind)
                told = {one: verdict(found, one) for one in expected}
                wanted = {one: expected[one][Object(type, id), relation] for one in expected}
                assert told == wanted, (seed, f"{type}:{id}#{relation}", kind, found)
                assert [one.id for one in found] == sorted({one.id for one in found}, key=lambda x: (x != "*", x))


@pytest.mark.parametrize(
    ("view", "lines", "expected"),
    [
        (Computed("a"), ["a@user:*", "a@user:tom"], [Holder("*"), Holder("tom")]),
        (Exclusion(Computed("a"), Computed("b")), ["a@user:*", "b@user:tom"], [Holder("*", (), (Holder("tom"),))]),
        (Exclusion(Computed("a"), Computed("b")), ["a@user:tom", "b@user:*"], []),
        (
            Exclusion(Computed("a"), Exclusion(Computed("b"), Computed("c"))),
            ["a@user:*", "b@user:*", "c@user:tom"],
            [Holder("tom")],
        ),
        (
            Union((Exclusion(Computed("a"), Computed("b")), Computed("c"))),
            ["a@user:*", "b@user:tom", "c@user:tom"],
            [Holder("*"), Holder("tom")],
        ),
        (
            Union((Exclusion(Computed("a"), Computed("b")), Exclusion(Computed("a"), Computed("c")))),
            ["a@user:*", "b@user:tom", "c@user:sue"],
            [Holder("*")],
        ),
        (Intersection((Computed("a"), Computed("b"))), ["a@user:*", "b@user:tom", "b@user:sue"], ["sue", "tom"]),
        (
            Exclusion(Computed("a"), Computed("b")),
            ["a@user:*", "b@user:tom[depends]"],
            [Holder("*", (), (Holder("tom", ("hour",)),))],
        ),
        (
            Exclusion(Computed("a"), Computed("b")),
            ["a@user:*", "a@user:tom", "b@user:tom[depends]"],
            [Holder("*", (), (Holder("tom", ("hour",)),)), Holder("tom", ("hour",))],
        ),
        (Computed("a"), ["a@user:*[depends]", "a@user:tom"], [Holder("*", ("hour",)), Holder("tom")]),
        (Computed("a"), ["a@user:tom[depends]"], [Holder("tom", ("hour",))]),
        (Computed("a"), ["a@user:tom[never]"], []),
        (Arrow("parent", "member"), ["parent@group:g", "parent@group:h"], ["sue", "tom", "zoe"]),
        (Arrow("parent", "member", Quantifier.ALL), ["parent@group:g", "parent@group:h"], ["sue"]),
        (Arrow("parent", "member", Quantifier.ALL), [], []),
        (Arrow("parent", "nothing", Quantifier.ALL), ["parent@group:g"], []),
    ],
)
def test_wildcards_exclusions_and_conditions(view, lines, expected):
    groups = [
        "group:g#member@user:tom",
        "group:g#member@user:sue",
        "group:h#member@user:sue",
        "group:h#member@user:zoe",
    ]
    facts = table(*(f"doc:a#{line}" for line in lines), *groups)
    assert look(schema(view), facts) == [Holder(one) if isinstance(one, str) else one for one in expected]


def test_sets_as_subjects():
    facts = table("doc:a#a@group:g#member", "group:g#member@group:h#member", "group:h#member@user:tom")
    plain = schema(Computed("a"))
    assert look(plain, facts, kind=("group", "member")) == [Holder("g"), Holder("h")]
    assert look(plain, facts, "group:g", "member", ("group", "member")) == [Holder("g"), Holder("h")]
    assert look(plain, facts, kind=("doc", "view")) == [Holder("a")]
    assert look(plain, facts, kind=("doc", "b")) == []


def test_itself():
    plain = schema_of(("user", {"me": (Itself(), ())}))
    assert look(plain, table(), "user:tom", "me") == [Holder("tom")]


def test_pages_by_after_equal_the_whole():
    facts = table("doc:a#a@user:*", *(f"doc:a#a@user:u{number}" for number in range(20)), "doc:a#a@user:!early")
    whole = look(schema(Computed("a")), facts)
    assert [one.id for one in whole][:2] == ["*", "!early"]
    paged, after = [], ""
    while page := look(schema(Computed("a")), facts, after=after)[:3]:
        paged += page
        after = page[-1].id
    assert paged == whole


def test_cycles_end():
    facts = table("group:g#member@group:h#member", "group:h#member@group:g#member", "group:h#member@user:tom")
    assert look(schema(Computed("a")), facts, "group:g", "member") == [Holder("tom")]
    assert look(schema(Computed("view")), table()) == []
    odd = schema(Exclusion(Computed("a"), Computed("view")))
    assert look(odd, table("doc:a#a@user:tom")) == []  # undecided: in if and only if out


def test_what_rests_on_something_undecided_is_left_out():
    odd = schema(Exclusion(Computed("a"), Computed("view")), top=(Exclusion(Computed("a"), Computed("view")), ()))
    assert look(odd, table("doc:a#a@user:tom"), permission="top") == []


@pytest.mark.parametrize("trait", ["", "[depends]"])
def test_deep_chains(trait):
    length = 2000 if trait else 5000
    lines = [f"group:g{i}#member@group:g{i + 1}#member{trait}" for i in range(length)]
    lines += [f"group:g{i}#member@user:u{i:04}" for i in range(0, length + 1, 500)]
    found = look(schema(Computed("a")), table(*lines), "group:g0", "member")
    assert [one.id for one in found] == [f"u{i:04}" for i in range(0, length + 1, 500)]
    assert [bool(one.missing) for one in found] == [False] + [bool(trait)] * (length // 500)


def test_long_cycles_of_conditions():
    lines = [f"group:g{i}#member@group:g{(i + 1) % 400}#member[depends]" for i in range(400)]
    facts = table(*lines, "group:g300#member@user:tom", "group:g299#member@user:sue")
    assert look(schema(Computed("a")), facts, "group:g0", "member") == [
        Holder("sue", ("hour",)),
        Holder("tom", ("hour",)),
    ]
    assert look(schema(Computed("a")), facts, "group:g300", "member")[1] == Holder("tom")


def test_names_that_no_longer_matter_are_not_told():
    facts = table(
        "group:g#member@group:h#member[depends]", "group:h#member@group:g#member[depends]", "group:g#member@user:tom"
    )
    assert look(schema(Computed("a")), facts, "group:g", "member") == [Holder("tom")]


def test_deep_chains_of_exclusions():
    deep = schema_of(
        ("user", {}),
        (
            "folder",
            {
                "parent": (This(), (Allowed("folder"),)),
                "viewer": (This(), (USER,)),
                "banned": (This(), (USER,)),
                "view": (Exclusion(Union((Computed("viewer"), Arrow("parent", "view"))), Computed("banned")), ()),
            },
        ),
    )
    lines = [f"folder:f{i}#parent@folder:f{i + 1}" for i in range(2500)]
    lines += ["folder:f2500#viewer@user:tom", "folder:f2500#viewer@user:sue", "folder:f1200#banned@user:sue"]
    assert look(deep, table(*lines), "folder:f0") == [Holder("tom")]


def test_unknown_names_are_refused():
    with pytest.raises(UnknownName, match="has no relation or permission 'see' of type 'doc'") as caught:
        look(schema(Computed("a")), table(), permission="see")
    assert "parent, view" in caught.value.remedy
