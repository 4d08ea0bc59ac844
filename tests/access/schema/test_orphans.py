from collections.abc import Sequence

import pytest
import yaml

from cupola.access.errors import PreconditionFailed, SchemaError
from cupola.access.relation import Filter, Object, Relationship, Subject
from cupola.access.schema import orphans
from cupola.access.schema.check import check_schema
from cupola.access.schema.orphans import refuse_orphans
from cupola.access.schema.zed.compose import read_zed


class Kept:
    """A snapshot that answers `read` alone."""

    revision = 1

    def __init__(self, lines: str):
        rows = (line.split("//")[0].strip() for line in lines.splitlines())
        self._rows = sorted((Relationship.parse(row) for row in rows if row), key=lambda row: row.key)

    def read(
        self, filter: Filter, *, after: Relationship | None = None, limit: int | None = None
    ) -> list[Relationship]:
        found = [row for row in self._rows if filter.matches(row) and (after is None or row.key > after.key)]
        return found[:limit]

    def find(self, object: Object, relation: str, subject: Subject) -> Relationship | None:
        raise NotImplementedError

    def subjects(self, object: Object, relation: str) -> Sequence[Relationship]:
        raise NotImplementedError

    def indirect(self, object: Object, relation: str) -> Sequence[Relationship]:
        raise NotImplementedError

    def objects(self, subject: Subject, type: str, relation: str) -> Sequence[Relationship]:
        raise NotImplementedError


BEFORE = """use expiration
caveat lim(amount int, zone string) { amount == 1 && zone == "a" }
definition user {}
definition group {
 relation member: user
}
definition doc {
 relation viewer: user | user:* | user with lim | group#member | user with expiration
 relation spare: user
}"""
ROWS = """
doc:1#viewer@user:ada
doc:2#viewer@user:*
doc:3#viewer@user:bob[lim:{"amount":1}]
doc:4#viewer@group:g#member
doc:5#viewer@user:old[expiration:2001-01-01T00:00:00Z]
"""


def refuse(old: str, new: str, rows: str = ROWS) -> None:
    after = read_zed(BEFORE.replace(old, new))
    assert old in BEFORE
    check_schema(after)
    refuse_orphans(read_zed(BEFORE), after, Kept(rows))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("user | user:*", "user:*", "cannot remove allowed type `user` .*: doc:1#viewer@user:ada"),
        ("| user:*", "", r"cannot remove allowed type `user:\*` .*: doc:2#viewer@user:\*"),
        ("| user with lim", "", r"allowed type `user with lim` .*: doc:3#viewer@user:bob\[lim"),
        ("| group#member", "", "allowed type `group#member` .*: doc:4#viewer@group:g#member"),
        (BEFORE[BEFORE.index(" relation viewer") : BEFORE.index(" relation spare")], "", "delete relation `viewer`"),
        (
            BEFORE[BEFORE.index(" relation viewer") : BEFORE.index(" relation spare")],
            " permission viewer = spare\n",
            "delete relation `viewer`",
        ),
        (BEFORE[BEFORE.index("definition doc") :], "", "cannot delete object definition `doc`.*: doc:1"),
        ("amount int", "amount uint", "cannot change the type of parameter `amount` on caveat `lim`.*doc:3"),
        (
            '(amount int, zone string) { amount == 1 && zone == "a" }',
            "(zone string) { zone == '' }",
            "remove parameter `amount`",
        ),
    ],
)
def test_what_would_be_orphaned_is_named(old, new, message):
    with pytest.raises(PreconditionFailed, match=message):
        refuse(old, new)
    refuse(old, new, rows="")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("relation spare: user", ""),
        ("| user with expiration", ""),
        ("zone string", "zone bytes"),
        ("definition user {}", "definition user {}\ndefinition more {}"),
    ],
)
def test_what_nobody_uses_may_go(old, new):
    refuse(old, new)


def test_it_reads_page_by_page(monkeypatch):
    monkeypatch.setattr(orphans, "_PAGE", 2)
    rows = "\n".join(f"doc:1#viewer@user:u{at}" for at in range(9)) + "\ndoc:2#viewer@user:*"
    refuse("| user with lim", "", rows)
    rows += "\ndoc:9#viewer@user:zoe[lim]"
    with pytest.raises(PreconditionFailed, match="zoe"):
        refuse("| user with lim", "", rows)


def test_steelthread(shared):
    folder = shared / "authz_conformance/spicedb/steelthread"
    cases = yaml.safe_load((folder / "operations.derived.yaml").read_text())
    seen = 0
    for case in cases:
        data = yaml.safe_load((folder / "testdata" / case["datafile"]).read_text())
        before, snapshot = read_zed(data["schema"]), Kept(data["relationships"])
        for operation in case["operations"]:
            if operation["operationName"] != "writeSchema":
                continue
            seen += 1
            expected = yaml.safe_load((folder / "steelresults" / operation["resultsFileName"]).read_text())
            after = read_zed(operation["arguments"]["schema"])
            if "error" not in expected:
                check_schema(after)
                refuse_orphans(before, after, snapshot)
                before = after
            elif "not found" in expected["error"]:
                with pytest.raises(SchemaError, match="object definition `user` not found"):
                    check_schema(after)
            else:
                check_schema(after)
                with pytest.raises(PreconditionFailed) as caught:
                    refuse_orphans(before, after, snapshot)
                assert expected["error"].endswith(caught.value.problem)
    assert seen == 7
