import json

import pytest

from cupola.access.schema.fga.errors import FgaError, Kind
from cupola.access.schema.fga.mod import read_mod


def errors_of(text):
    try:
        read_mod(text)
    except FgaError as error:
        return [error, *error.others]
    return []


def span(place):
    return place["line"]["start"], place["column"]["start"], place["column"]["end"]


def test_conformance(cases):
    all_cases = cases("fga-mod-transformer-cases")
    for case in all_cases:
        got = [((e.line - 1, e.column - 1, e.end_column - 1), e.problem) for e in errors_of(case["modFile"])]
        assert got == [(span(e), e["msg"]) for e in case.get("expected_errors", [])], case["name"]
        if "json" in case:
            expected, mod = json.loads(case["json"]), read_mod(case["modFile"])
            entries = [(e.text, (e.place.line - 1, e.place.column - 1, e.place.end_column - 1)) for e in mod.contents]
            assert entries == [(e["value"], span(e)) for e in expected["contents"]["value"]]
            assert mod.schema.text == expected["schema"]["value"]
    assert len(all_cases) == 9


def test_comments_and_quotes_are_read():
    mod = read_mod(
        "# ours\n---\nschema: '1.2' # the version\n\ncontents:\n- core.fga # first\n- 'it''s.fga'\n- \"a.fga\"\n"
    )
    assert [entry.text for entry in mod.contents] == ["core.fga", "it's.fga", "a.fga"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("schema: '1.2'\ncontents:\n  - a.fga\nother: x\n", 4),
        ("schema: '1.2'\nschema: '1.2'\ncontents:\n  - a.fga\n", 2),
        ("- a.fga\nschema: '1.2'\ncontents:\n", 1),
        ("schema: '1.2' 1.3\ncontents:\n  - a.fga\n", 1),
        ("schema: 1.2\ncontents:\n  - a.fga\n", 1),
        ("schema: '1.2'\ncontents:\n  - ..\\a.fga\n", 3),
        ("schema: '1.2'\ncontents:\n  -\n", 3),
        ("schema: '1.2'\ncontents:\n  - [a.fga]\n", 3),
        ("schema: '1.2'\ncontents: [a.fga]\n", 2),
        ("schema: '1.2'\ncontents: # a comment alone is no value\n  - 7\n", 3),
    ],
)
def test_what_is_strange_is_refused(text, line):
    errors = errors_of(text)
    assert [(error.line, error.kind) for error in errors][:1] == [(line, Kind.MODULE)]
