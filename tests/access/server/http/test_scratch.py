import pytest

from cupola.access.server.http import scratch
from cupola.access.server.http.scratch import Texts, run_texts

SCHEMA = """definition user {}
caveat hours(hour int) { hour >= 9 }
definition model {
    relation reader: user | user with hours
    permission use = reader
}"""
FACTS = "// readers\nmodel:kiln#reader@user:ada\n\nmodel:kiln#reader@user:temp[hours]"


def test_checks_and_assertions_are_answered_with_their_lines():
    told = run_texts(
        Texts(
            SCHEMA,
            FACTS,
            'model:kiln#use@user:ada\n\nmodel:kiln#use@user:temp with {"hour": 8}',
            "assertTrue:\n- model:kiln#use@user:ada\n- model:kiln#use@user:bob\nassertFalse:\n"
            "- model:kiln#use@user:bob\nassertCaveated:\n- 'model:kiln#use@user:temp'",
        )
    )
    assert told["mistakes"] == []
    assert [(one["line"], one["verdict"]) for one in told["checks"]] == [(1, "yes"), (3, "no")]
    assert [(one["line"], one["passed"]) for one in told["assertions"]] == [(2, True), (3, False), (5, True), (7, True)]
    assert told["checks"][0]["why"]["parts"]


@pytest.mark.parametrize(
    ("texts", "part", "line"),
    [
        (Texts("definition user {}\ndefinition m { relation r: usr }"), "schema", 2),
        (Texts("definition user {"), "schema", 1),
        (Texts(SCHEMA, "model:kiln#reader@user:ada\nmodel:kiln#use@user:ada"), "relationships", 2),
        (Texts(SCHEMA, "model:kiln#reader@user:ada\n\nmodel:kiln#reader@user:ada"), "relationships", 3),
        (Texts(SCHEMA, "nonsense"), "relationships", 1),
        (Texts(SCHEMA, FACTS, "\nmodel:kiln#fly@user:ada"), "checks", 2),
        (Texts(SCHEMA, FACTS, "model:kiln#use@user:ada with {hour}"), "checks", 1),
        (Texts(SCHEMA, FACTS, "model:kiln#use@user:ada[hours]"), "checks", 1),
        (Texts(SCHEMA, FACTS, "", "- model:kiln#use@user:ada"), "assertions", 1),
    ],
)
def test_mistakes_have_their_place(texts, part, line):
    (mistake,) = run_texts(texts)["mistakes"]
    assert (mistake["part"], mistake["line"]) == (part, line)
    assert mistake["message"]


def test_good_lines_count_beside_bad_ones():
    told = run_texts(Texts(SCHEMA, f"nonsense\n{FACTS}", "model:kiln#use@user:ada"))
    assert told["checks"][0]["verdict"] == "yes"
    assert len(told["mistakes"]) == 1


def test_openfga_models_run_too():
    model = "model\n  schema 1.1\ntype user\ntype doc\n  relations\n    define viewer: [user]\n"
    told = run_texts(Texts(model, "doc:1#viewer@user:anne", "doc:1#viewer@user:anne"))
    assert told["mistakes"] == []
    assert told["checks"][0]["verdict"] == "yes"


def test_explanations_are_bounded_and_say_so(monkeypatch):
    monkeypatch.setattr(scratch, "MOST_NODES", 20)
    groups = "definition user {}\ndefinition group { relation member: user | group#member }"
    facts = "\n".join(f"group:top#member@group:g{n}#member" for n in range(50))
    told = run_texts(Texts(groups, facts, "group:top#member@user:ada"))
    assert told["mistakes"] == []
    (check,) = told["checks"]
    assert "not drawn" in str(check["why"])
