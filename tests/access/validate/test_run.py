"""Files of all three kinds, as they hold and as they do not; each failure by its line."""

import pytest

from cupola.access import Graph
from cupola.access.validate import FileError, Kind, validate

STAGES = """\
tests:
  - name: two stages
    stages:
      - model: |
          model
            schema 1.1
          type user
          type doc
            relations
              define viewer: [user, user with small]
          condition small(x: int) { x < 10 }
        tuples:
          - {user: "user:jon", relation: viewer, object: "doc:1"}
          - {user: "user:if", relation: viewer, object: "doc:1", condition: {name: small}}
        checkAssertions:
          - tuple: {user: "user:jon", relation: viewer, object: "doc:1"}
            expectation: true
          - tuple: {user: "user:if", relation: viewer, object: "doc:1"}
            errorCode: 2000
          - tuple: {user: "user:if", relation: viewer, object: "doc:1"}
            context: {x: 3}
            expectation: true
          - tuple: {user: "jon", relation: viewer, object: "doc:1"}
            errorCode: 2000
          - tuple: {user: "user:new", relation: viewer, object: "doc:1"}
            contextualTuples:
              - {user: "user:new", relation: viewer, object: "doc:1"}
            expectation: true
          - tuple: {user: "user:new", relation: viewer, object: "doc:1"}
            contextualTuples:
              - {user: "user:new", relation: nothing, object: "doc:1"}
            errorCode: 2027
          - tuple: {user: "user:jon", relation: viewer, object: "doc:1"}
            errorCode: 2002
        listObjectsAssertions:
          - request: {user: "user:jon", type: doc, relation: viewer}
            expectation: ["doc:1"]
          - request: {user: "user:jon", type: nothing, relation: viewer}
            errorCode: 2021
          - request: {user: "user:jon", type: doc, relation: nothing}
            errorCode: 2022
        listUsersAssertions:
          - request: {object: "doc:1", relation: viewer, filters: [user]}
            context: {x: 30}
            expectation: ["user:jon"]
          - request: {object: "doc:1", relation: viewer, filters: [user]}
            errorCode: 2000
      - model: |
          model
            schema 1.1
          type user
          type doc
            relations
              define owner: [user]
              define viewer: owner
        tuples:
          - {user: "user:ann", relation: owner, object: "doc:1"}
        checkAssertions:
          - tuple: {user: "user:jon", relation: viewer, object: "doc:1"}
          - tuple: {user: "user:ann", relation: viewer, object: "doc:1"}
            expectation: true
"""

STORE = """\
name: a store
model: |
  model
    schema 1.1
  type user
  type doc
    relations
      define owner: [user]
      define viewer: [user] or owner
tuples:
  - {user: "user:ann", relation: owner, object: "doc:1"}
tuple_files: [more.json, more.csv]
tests:
  - name: a test
    tuples:
      - {user: "user:guest", relation: viewer, object: "doc:2"}
    check:
      - users: ["user:ann", "user:bob"]
        objects: ["doc:1"]
        assertions:
          viewer: true
          owner: true
      - user: user:guest
        object: doc:2
        assertions: {viewer: true, owner: false}
    list_objects:
      - user: user:cy
        type: doc
        assertions:
          viewer: ["doc:1"]
    list_users:
      - object: doc:1
        user_filter: [{type: user}]
        assertions:
          owner:
            users: ["user:ann", "user:bob"]
"""


@pytest.fixture
def store(tmp_path):
    (tmp_path / "more.json").write_text('[{"user": "user:bob", "relation": "owner", "object": "doc:1"}]')
    (tmp_path / "more.csv").write_text("user_type,user_id,relation,object_type,object_id\nuser,cy,viewer,doc,1\n")
    path = tmp_path / "store.fga.yaml"
    path.write_text(STORE)
    return path


def test_assertions_that_hold(validation):
    report = validate(
        validation(
            """assertions:
  assertTrue:
    - model:kiln#use@user:ada
    - 'model:kiln#use@user:temp with {"hour": 10}'
  assertFalse:
    - model:open#use@user:mallory
  assertCaveated:
    - model:kiln#use@user:temp
"""
        )
    )
    assert report.passed
    assert (report.total, report.counts[Kind.ASSERTION].held) == (4, 4)
    assert str(report).endswith("lab.yaml: 4 assertions hold")


def test_each_assertion_that_does_not_hold_is_told_with_its_line_and_why(validation):
    path = validation(
        "assertions:\n  assertTrue:\n    - model:kiln#use@user:bob\n  assertFalse:\n    - model:open#use@user:x\n"
    )
    lines = path.read_text().splitlines()
    report = validate(path)
    first, second = report.failures
    assert lines[first.place.line - 1].strip() == "- model:kiln#use@user:bob"
    assert (first.expected, first.found, first.place.column) == ("yes", "no", 7)
    assert "model:kiln#use@user:bob" in first.why
    assert lines[second.place.line - 1].strip() == "- model:open#use@user:x"
    assert str(first).startswith(f"{path}:{first.place.line}:7: model:kiln#use@user:bob\n  expected yes\n")
    assert report.counts[Kind.ASSERTION].failed == 2


EXPECTED = """validation:
  model:kiln#use:
    - "[user:ada] is <group:research#member>/<model:kiln#writer>"
    - "[group:research#member] is <model:kiln#reader>"
    - "[user:temp[...]] is <model:kiln#reader>"
  model:open#use:
    - "[user:* - {user:mallory}] is <model:open#reader>"
  model:nothing#use: []
"""


def test_expected_relations_that_hold(validation):
    report = validate(validation(EXPECTED))
    assert report.failures == []
    assert report.counts[Kind.EXPECTED].held == 5


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        (
            "<group:research#member>/<model:kiln#writer>",
            "<model:kiln#writer>",
            "<group:research#member>/<model:kiln#writer>",
        ),
        ("user:temp[...]", "user:temp", "[user:temp[...]] is <model:kiln#reader>"),
        (" - {user:mallory}", "", "{user:mallory}"),
        ("user:mallory}", "user:mallory[...]}", "{user:mallory}"),
        ("[user:ada]", "[user:eve]", "nobody such"),
    ],
)
def test_expected_relations_that_do_not_hold(validation, old, new, found):
    path = validation(EXPECTED.replace(old, new))
    failure = validate(path).failures[0]
    assert found in failure.found
    assert new in path.read_text().splitlines()[failure.place.line - 1]


def test_a_subject_that_is_not_listed_is_a_failure_of_the_permission(validation):
    path = validation(EXPECTED.replace('    - "[group:research#member] is <model:kiln#reader>"\n', ""))
    (failure,) = validate(path).failures
    assert "group:research#member" in failure.found
    assert "model:kiln#use:" in path.read_text().splitlines()[failure.place.line - 1]


def test_an_assertion_about_an_unknown_name_fails_alone(validation):
    report = validate(
        validation("assertions:\n  assertTrue:\n    - model:kiln#nope@user:a\n    - model:kiln#use@user:ada\n")
    )
    assert [failure.claim for failure in report.failures] == ["model:kiln#nope@user:a"]
    assert "error" in report.failures[0].found


def test_a_store_holds(store):
    report = validate(store)
    assert report.failures == []
    assert {kind.name: count.held for kind, count in report.counts.items()} == {"CHECK": 6, "OBJECTS": 1, "USERS": 1}


@pytest.mark.parametrize(
    ("old", "new", "kind"),
    [
        ("          owner: true", "          owner: false", Kind.CHECK),
        ('viewer: ["doc:1"]', 'viewer: ["doc:1", "doc:3"]', Kind.OBJECTS),
        ('users: ["user:ann", "user:bob"]\n', 'users: ["user:ann"]\n', Kind.USERS),
    ],
)
def test_a_store_that_claims_too_much(store, old, new, kind):
    head, tail = STORE.rsplit(old, 1)
    store.write_text(head + new + tail)
    report = validate(store)
    assert {failure.kind for failure in report.failures} == {kind}
    assert {failure.test for failure in report.failures} == {"a test"}
    changed = len((head + new).rstrip("\n").splitlines())
    assert all(abs(failure.place.line - changed) <= 1 for failure in report.failures)


def test_stages_hold_each_over_the_facts_of_those_before(tmp_path):
    path = tmp_path / "stages.yaml"
    path.write_text(STAGES)
    report = validate(path)
    assert report.failures == []
    assert report.counts[Kind.CHECK].undecided == 1
    assert "where an engine was to give up" in str(report)


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("errorCode: 2021", "errorCode: 2022", "error 2021"),
        ("errorCode: 2022", "expectation: []", "error 2022"),
        ("errorCode: 2027", "expectation: true", "error 2027"),
        ("context: {x: 3}", "context: {x: 30}", "no"),
        ("context: {x: 30}", "context: {x: 3}", "user:if"),
    ],
)
def test_stages_that_claim_what_is_not_so(tmp_path, old, new, found):
    path = tmp_path / "stages.yaml"
    path.write_text(STAGES.replace(old, new))
    (failure,) = validate(path).failures
    assert found in failure.found
    assert failure.test == "two stages"


def test_another_store_may_be_used(validation, tmp_path):
    path = validation("assertions:\n  assertTrue:\n    - model:kiln#use@user:ada\n")
    opened = []

    def open_graph(limits):
        opened.append(Graph.open(str(tmp_path / "graph.db"), limits=limits))
        return opened[-1]

    assert validate(path, open_graph=open_graph).passed
    assert len(opened) == 1


def test_many_relationships_are_no_trouble(validation):
    facts = [f"model:kiln#writer@user:u{n}" for n in range(2500)]
    assert validate(validation("assertions:\n  assertTrue:\n    - model:kiln#use@user:u2499\n", facts=facts)).passed


BAD = {
    "caveat that is not there": ("invalid_caveat.yaml", 6, "some_caveat"),
    "not allowed": ("invalid_caveated_rel.yaml", 13, "not allowed"),
    "no relationship": ("invalid_caveated_rel_syntax.yaml", 15, "some_caveat"),
    "schema": ("invalid_schemafile.zed.yaml", 8, "expected"),
    "no schema": ("just_rels.yaml", 0, "no schema"),
    "old keys": ("legacy.yaml", 2, "validation_tuples"),
    "no such file": ("loader_using_missing_schemafile.yaml", 2, "cannot be read"),
    "outside": ("loader_using_non-local_schemafile.yaml", 2, "leaves the folder"),
    "twice": ("repeated_relationship.yaml", 15, "twice"),
    "both": ("schema_and_schemafile.yaml", 2, "both"),
}


@pytest.mark.parametrize("case", BAD)
def test_files_of_spicedb_that_are_none(shared, case):
    name, line, problem = BAD[case]
    with pytest.raises(FileError, match=problem) as error:
        validate(shared / "authz_conformance/spicedb/validationfile" / name)
    assert error.value.line == line


def test_files_of_spicedb_and_openfga_hold(shared):
    held = 0
    data = shared / "authz_conformance"
    files = [*data.glob("spicedb/testconfigs/*.yaml"), *data.glob("spicedb/validationfile/*caveats.yaml")]
    for path in [*files, *data.glob("openfga_sample_stores/*temporal*.yaml")]:
        report = validate(path)
        assert report.passed, report.failures[0]
        held += report.total
    assert held > 300


def test_schema_files_are_read_with_their_lines(shared, tmp_path):
    data = shared / "authz_conformance/spicedb/validationfile"
    text = (data / "separate_schemafile.zed.yaml").read_text().partition("schema: |\n")[2]
    (tmp_path / "separate_schemafile.zed").write_text(text)
    path = tmp_path / "lab.yaml"
    path.write_text((data / "loader_using_schemafile.yaml").read_text())
    assert validate(path).passed
    (tmp_path / "separate_schemafile.zed").write_text(text.replace("owner:", "owner"))
    with pytest.raises(FileError) as error:
        validate(path)
    assert error.value.source == str(tmp_path / "separate_schemafile.zed")
    assert "owner" in text.splitlines()[error.value.line - 1]
