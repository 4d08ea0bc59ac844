"""The algebra of members, and that it says what the engine says."""

import pytest

from cupola.access.relation import Subject
from cupola.access.validate.membership import Member, intersect, members, subtract, unite

ALL, ADA, BOB = Subject("user", "*"), Subject("user", "ada"), Subject("user", "bob")
YES, MAYBE = Member(), Member(conditional=True)


@pytest.mark.parametrize(
    ("operation", "one", "other", "expected"),
    [
        (unite, {ADA: MAYBE}, {ADA: YES}, {ADA: YES}),
        (unite, {ALL: Member(excluded={ADA: False})}, {ADA: YES}, {ALL: YES, ADA: YES}),
        (unite, {ALL: Member(excluded={ADA: False})}, {ALL: MAYBE}, {ALL: Member(excluded={ADA: True})}),
        (intersect, {ADA: YES}, {ADA: MAYBE}, {ADA: MAYBE}),
        (intersect, {ADA: YES, BOB: YES}, {ALL: Member(excluded={BOB: False})}, {ADA: YES}),
        (intersect, {ALL: Member(excluded={ADA: False})}, {ALL: MAYBE}, {ALL: Member(True, excluded={ADA: False})}),
        (subtract, {ADA: YES}, {ADA: MAYBE}, {ADA: MAYBE}),
        (subtract, {ADA: YES}, {ALL: YES}, {}),
        (subtract, {ALL: YES}, {ADA: YES}, {ALL: Member(excluded={ADA: False})}),
        (subtract, {ALL: YES}, {ALL: Member(excluded={ADA: False})}, {ADA: YES}),
    ],
)
def test_the_algebra(operation, one, other, expected):
    assert operation(one, other) == expected


def test_groups_in_each_other_end(make_graph):
    graph = make_graph(
        "definition user {} definition group { relation member: user | group#member }",
        "group:a#member@group:b#member",
        "group:b#member@group:a#member",
        "group:b#member@user:ada",
    )
    found = members(graph, Subject("group", "a").object, "member")
    assert {str(who) for who in found} == {"user:ada", "group:a#member", "group:b#member"}
    assert found[ADA].sources == {"group:b#member"}
