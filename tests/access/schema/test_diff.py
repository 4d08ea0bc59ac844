import pytest

from cupola.access.schema.diff import Difference, Kind, diff
from cupola.access.schema.model import Allowed, Computed, Definition, Language, Relation, Schema, This, Union
from cupola.access.schema.zed.compose import read_zed

BEFORE = """caveat lim(amount int, zone string) { amount == 1 && zone == "a" }
definition user {}
// a document
definition doc {
 relation viewer: user
 relation editor: user
 permission view = viewer + editor
}"""
DOC = {"type": "doc"}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("definition user {}", "definition user {}\ndefinition team {}", [Difference(Kind.DEFINITION_ADDED, "team")]),
        ("// a document", "// the document", [Difference(Kind.DEFINITION_DOC_CHANGED, "doc")]),
        (" relation editor: user\n", "", [Difference(Kind.RELATION_REMOVED, "doc", "editor")]),
        (
            " relation editor",
            " relation owner: user\n relation editor",
            [Difference(Kind.RELATION_ADDED, "doc", "owner")],
        ),
        (" relation editor", "// who\n relation editor", [Difference(Kind.RELATION_DOC_CHANGED, "doc", "editor")]),
        (
            "editor: user",
            "editor: user:* | doc#viewer with lim",
            [
                Difference(Kind.SUBJECT_REMOVED, "doc", "editor", Allowed("user")),
                Difference(Kind.SUBJECT_ADDED, "doc", "editor", Allowed("user", wildcard=True)),
                Difference(Kind.SUBJECT_ADDED, "doc", "editor", Allowed("doc", "viewer", caveat="lim")),
            ],
        ),
        ("viewer + editor", "viewer", [Difference(Kind.PERMISSION_EXPRESSION_CHANGED, "doc", "view")]),
        (" permission view", "// why\n permission view", [Difference(Kind.PERMISSION_DOC_CHANGED, "doc", "view")]),
        (" permission view = viewer + editor\n", "", [Difference(Kind.PERMISSION_REMOVED, "doc", "view")]),
        (
            "relation editor: user",
            "permission editor = viewer",
            [Difference(Kind.RELATION_REMOVED, "doc", "editor"), Difference(Kind.PERMISSION_ADDED, "doc", "editor")],
        ),
        (BEFORE.split("\n")[0], "", [Difference(Kind.CAVEAT_REMOVED, caveat="lim")]),
        ("caveat lim", "// why\ncaveat lim", [Difference(Kind.CAVEAT_DOC_CHANGED, caveat="lim")]),
        ('== "a"', '== "b"', [Difference(Kind.CAVEAT_EXPRESSION_CHANGED, caveat="lim")]),
        (
            "zone string",
            "zone list<string>",
            [
                Difference(
                    Kind.PARAMETER_TYPE_CHANGED, caveat="lim", parameter="zone", before="string", after="list<string>"
                )
            ],
        ),
        (
            "amount int",
            "amount int, day int",
            [Difference(Kind.PARAMETER_ADDED, caveat="lim", parameter="day", after="int")],
        ),
        (BEFORE[: BEFORE.index("definition user")], "", [Difference(Kind.CAVEAT_REMOVED, caveat="lim")]),
        ("definition user {}", "   definition    user { }", []),
    ],
)
def test_differences(old, new, expected):
    assert old in BEFORE
    before, after = read_zed(BEFORE), read_zed(BEFORE.replace(old, new))
    assert diff(before, after) == expected
    assert len(diff(after, before)) == len(expected)
    assert diff(before, before) == []


def test_from_nothing_and_to_nothing():
    schema = read_zed(BEFORE)
    added = [Kind.DEFINITION_ADDED, Kind.DEFINITION_ADDED, Kind.CAVEAT_ADDED]
    assert [one.kind for one in diff(Schema(), schema)] == added
    removed = [Kind.DEFINITION_REMOVED, Kind.DEFINITION_REMOVED, Kind.CAVEAT_REMOVED]
    assert [one.kind for one in diff(schema, Schema())] == removed


def test_a_relation_of_openfga_that_is_computed_too():
    def schema(*operands: This | Computed) -> Schema:
        relation = Relation("viewer", Union(operands), (Allowed("doc"),))
        return Schema((Definition("doc", (relation,)),), language=Language.FGA)

    changed = diff(schema(This()), schema(This(), Computed("owner")))
    assert changed == [Difference(Kind.PERMISSION_EXPRESSION_CHANGED, "doc", "viewer")]
