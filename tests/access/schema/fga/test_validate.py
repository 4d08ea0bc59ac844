import pytest

from cupola.access.schema.fga.errors import FgaError, Kind
from cupola.access.schema.fga.json import read_fga_json
from cupola.access.schema.fga.parser import read_fga
from cupola.access.schema.fga.validate import validate


def errors_of(text):
    try:
        return validate(read_fga(text), text)
    except FgaError as error:
        return [error, *error.others]


def facts(message):
    """The names in a message: all that stands in quotes."""
    return set(message.replace("`", "'").split("'")[1::2])


def test_semantic_conformance(cases):
    wrong, told = {}, 0
    all_cases = cases("dsl-semantic-validation-cases")
    for index, case in enumerate(all_cases):
        if case.get("skip"):
            continue
        got, wanted = errors_of(case["dsl"]), case["expected_errors"]
        told += len(wanted)
        if [(e.line - 1, e.column - 1, e.end_column - 1, e.kind.value) for e in got] != [
            (e["line"]["start"], e["column"]["start"], e["column"]["end"], e["metadata"]["errorType"]) for e in wanted
        ] or any(
            not facts(want["msg"]) <= facts(e.problem) or want["metadata"].get("symbol", e.symbol) != e.symbol
            for e, want in zip(got, wanted, strict=False)
        ):
            wrong[index, case["name"]] = [str(e) for e in got]
    assert wrong == {}
    assert (len(all_cases), told) == (91, 108)


def test_json_conformance(cases):
    for case in cases("json-validation-cases"):
        try:
            got = validate(read_fga_json(case["json"]))
        except FgaError as error:
            got = [error]
        wanted = [(e["metadata"]["errorType"], e["metadata"]["symbol"]) for e in case["expected_errors"] or []]
        assert [(e.kind.value, e.symbol) for e in got] == wanted, case["name"]


def test_without_the_text_an_error_stands_at_the_relation():
    text = "model\n  schema 1.1\ntype user\n  relations\n    define a: b\n"
    (blunt,), (sharp,) = validate(read_fga(text)), validate(read_fga(text), text)
    assert (blunt.line, blunt.column, blunt.problem) == (5, 12, sharp.problem)
    assert (sharp.line, sharp.column) == (5, 15)


@pytest.mark.parametrize(
    ("relations", "kind"),
    [
        ("define a: (b or x) and b\n    define b: [user]", Kind.MISSING_DEFINITION),
        ("define a: (b or b) and c\n    define b: [user]\n    define c: [user]", Kind.DUPLICATED),
        (
            "define a: [user#a] or (b but not (b and c))\n    define b: [user]\n    define c: [user#c]",
            Kind.NO_ENTRY_POINT,
        ),
        ("define a: [user, nobody#x]", Kind.INVALID_TYPE),
    ],
)
def test_rules_hold_within_brackets(relations, kind):
    text = f"model\n  schema 1.1\ntype user\n  relations\n    {relations}\n"
    assert {error.kind for error in errors_of(text)} == {kind}


@pytest.mark.parametrize(
    ("rewrite", "types", "kinds"),
    [
        ({"this": {}}, [], [Kind.MUST_HAVE_TYPE]),
        ({"union": {"child": [{"computedUserset": {"relation": "b"}}, {"this": {}}]}}, [], [Kind.MUST_HAVE_TYPE]),
        ({"computedUserset": {"relation": "b"}}, [{"type": "user"}], [Kind.MUST_NOT_HAVE_TYPE]),
        ({"this": {}}, [{"type": "user"}], []),
    ],
)
def test_a_relation_has_types_where_it_is_direct(rewrite, types, kinds):
    described = {"a": {"directly_related_user_types": types}, "b": {"directly_related_user_types": [{"type": "user"}]}}
    user = {"type": "user", "relations": {"a": rewrite, "b": {"this": {}}}, "metadata": {"relations": described}}
    model = {"schema_version": "1.1", "type_definitions": [user]}
    assert [error.kind for error in validate(read_fga_json(model))] == kinds


def test_sample_stores_hold(models):
    assert models
    for text in models:
        assert validate(read_fga(text), text) == []
