"""Lookup of resources against the plainest evaluator, and the cases that a reader should know."""

import pytest
from worlds import IDS, RANK, STRANGER, everything, in_time, naive, schema_of, subjects, table, world

from cupola.access.decision import Verdict
from cupola.access.engine.at import Resource
from cupola.access.engine.lookup_resources import lookup_resources
from cupola.access.errors import UnknownName
from cupola.access.relation import Object, Subject
from cupola.access.schema.model import Allowed, Arrow, Computed, Exclusion, Intersection, Itself, This, Union

MEMBERS = Allowed("group", "member")
PEOPLE = (This(), (Allowed("user"), Allowed("user", wildcard=True), MEMBERS, Allowed("user", caveat="depends")))
SCHEMA = schema_of(
    ("user", {"me": (Itself(), ())}),
    ("group", {"member": PEOPLE}),
    (
        "doc",
        {
            "parent": (This(), (Allowed("doc"),)),
            "reader": PEOPLE,
            "banned": PEOPLE,
            "view": (Union((Computed("reader"), Arrow("parent", "view"))), ()),
            "allowed": (Exclusion(Computed("view"), Computed("banned")), ()),
            "both": (Intersection((Computed("view"), Computed("banned"))), ()),
        },
    ),
)


class Checks:
    """Answers yes, and remembers what it was asked."""

    def __init__(self, verdict=Verdict.YES, missing=()):
        self.asked, self.answer = [], (verdict, missing)

    def __call__(self, object: Object):
        self.asked.append(str(object))
        return self.answer


def look(facts, subject, permission="view", type="doc", after="", check=None):
    check = check or Checks()
    return list(
        lookup_resources(SCHEMA, facts, check, type, permission, Subject.parse(subject), after, on_time=in_time)
    )


@pytest.mark.parametrize("block", [*range(5), *(pytest.param(n, marks=pytest.mark.slow) for n in range(5, 60))])
def test_random_worlds_agree_with_the_naive_evaluator(block):
    for seed in range(block * 5, block * 5 + 5):
        drawn = world(seed, exclusions=seed % 3 > 0)
        for subject in subjects(drawn.schema):
            expected = naive(drawn.schema, drawn.facts, subject, (*IDS, STRANGER))
            for type, permission in everything(drawn.schema):

                def check(object: Object, permission=permission, expected=expected):
                    answer = expected[object, permission]
                    return answer, ("hour",) if answer is Verdict.CONDITIONAL else ()

                found = lookup_resources(drawn.schema, drawn.facts, check, type, permission, subject, on_time=in_time)
                told = {one.id: 1 if one.missing else 2 for one in found}
                wanted = {id: RANK[expected[Object(type, id), permission]] for id in (*IDS, STRANGER)}
                assert told == {id: rank for id, rank in wanted.items() if rank}, (seed, str(subject), type, permission)


def test_what_is_certain_is_not_asked_again():
    facts = table("doc:a#reader@group:g#member", "group:g#member@user:ada", "doc:b#parent@doc:a", "doc:c#reader@user:*")
    check = Checks()
    assert look(facts, "user:ada", check=check) == [Resource("a"), Resource("b"), Resource("c")]
    assert check.asked == []


@pytest.mark.parametrize("permission", ["allowed", "both"])
def test_what_is_not_certain_is_confirmed(permission):
    facts = table("doc:a#reader@user:ada", "doc:b#parent@doc:a", "doc:c#banned@user:ada")
    check = Checks(Verdict.CONDITIONAL, ("hour",))
    assert look(facts, "user:ada", permission, check=check) == [Resource("a", ("hour",)), Resource("b", ("hour",))]
    assert check.asked == ["doc:a", "doc:b"]
    assert look(facts, "user:ada", permission, check=Checks(Verdict.NO)) == []


def test_a_condition_on_the_way_is_confirmed_unless_another_way_is_certain():
    facts = table("doc:a#reader@user:ada[depends]", "doc:b#reader@user:ada[depends]", "doc:b#reader@user:*")
    check = Checks(Verdict.CONDITIONAL, ("hour",))
    assert look(facts, "user:ada", check=check) == [Resource("a", ("hour",)), Resource("b")]
    assert check.asked == ["doc:a"]


def test_sets_and_wildcards_as_subjects():
    facts = table("doc:a#reader@group:g#member", "group:g#member@group:h#member", "doc:b#reader@user:*")
    assert look(facts, "group:h#member") == [Resource("a")]
    assert look(facts, "group:h#member", "member", "group") == [Resource("g"), Resource("h")]
    assert look(facts, "user:*") == [Resource("b")]
    assert look(facts, "doc:z#view") == [Resource("z")]


def test_itself():
    assert look(table(), "user:ada", "me", "user") == [Resource("ada")]
    assert look(table(), "user:*", "me", "user") == []


def test_pages_by_after_equal_the_whole():
    facts = table(*(f"doc:d{number}#reader@user:ada" for number in range(25)))
    whole = look(facts, "user:ada")
    paged, after = [], ""
    while page := look(facts, "user:ada", after=after)[:4]:
        paged += page
        after = page[-1].id
    assert paged == whole
    assert [one.id for one in whole] == sorted(f"d{number}" for number in range(25))


def test_checks_run_as_the_answer_is_read():
    facts = table(*(f"doc:d{number}#reader@user:ada" for number in range(5)))
    check = Checks()
    found = lookup_resources(SCHEMA, facts, check, "doc", "allowed", Subject("user", "ada"), "d1", on_time=in_time)
    assert next(found) == Resource("d2")
    assert check.asked == ["doc:d2"]


def test_cycles_end():
    facts = table("doc:a#parent@doc:b", "doc:b#parent@doc:a", "doc:b#reader@user:ada")
    assert look(facts, "user:ada") == [Resource("a"), Resource("b")]


def test_deep_chains():
    facts = table(
        *(f"doc:d{i + 1:04}#parent@doc:d{i:04}" for i in range(5000)),
        *(f"group:g{i + 1}#member@group:g{i}#member" for i in range(5000)),
        "group:g0#member@user:ada",
        "doc:d0000#reader@group:g5000#member",
    )
    found = look(facts, "user:ada")
    assert len(found) == 5001
    assert found[-1] == Resource("d5000")


def test_unknown_names_are_refused_before_anything_is_read():
    with pytest.raises(UnknownName, match="no relation or permission 'see'"):
        lookup_resources(SCHEMA, table(), Checks(), "doc", "see", Subject("user", "ada"), on_time=in_time)
    with pytest.raises(UnknownName) as caught:
        lookup_resources(SCHEMA, table(), Checks(), "dog", "see", Subject("user", "ada"), on_time=in_time)
    assert "Write a schema" in caught.value.remedy
