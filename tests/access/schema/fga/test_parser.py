import random

import pytest

from cupola.access.schema.fga.errors import FgaError, Kind
from cupola.access.schema.fga.parser import parse, read_fga
from cupola.access.schema.fga.validate import validate
from cupola.access.schema.model import (
    Allowed,
    Arrow,
    Computed,
    Exclusion,
    Intersection,
    Language,
    This,
    Union,
)

MODEL = """# everything at once
model
  schema 1.1
type user
type folder # of documents
  relations
    define viewer: [user, user:*, folder#viewer with warm] or (owner and (banned from parent but not a.b))
    define owner: [
      user,
      user with warm
    ]
    # nobody
    define a.b: owner
    define parent: [folder]
    define banned: [user]

condition warm(degrees: int,
  days: list<string>, x: map<double>) {
  // CEL says so, don't } here
  degrees > 20 && # and a comment of ours
    {"a": "}"}["a"] != "it's # no comment"
}
"""


def found(text):
    with pytest.raises(FgaError) as raised:
        read_fga(text)
    return [raised.value, *raised.value.others]


def test_syntax_conformance(cases):
    all_cases, wrong = cases("dsl-syntax-validation-cases"), {}
    for index, case in enumerate(all_cases):
        try:
            parse(case["dsl"])
            got = []
        except FgaError as error:
            got = [error, *error.others]
        wanted = case.get("expected_errors") or []
        places = [(e.line - 1, e.column - 1, e.end_column - 1) for e in got]
        symbols = [e.symbol for e, want in zip(got, wanted, strict=False) if "metadata" in want]
        if (
            places != [(e["line"]["start"], e["column"]["start"], e["column"]["end"]) for e in wanted]
            or symbols != [e["metadata"]["symbol"] for e in wanted if "metadata" in e]
            or any(e.kind is not Kind.SYNTAX for e in got)
        ):
            wrong[index, case["name"]] = [str(e) for e in got]
    assert wrong == {}
    assert len(all_cases) == 81


def test_a_model_is_read_whole():
    schema = read_fga(MODEL)
    assert (schema.language, schema.version) == (Language.FGA, "1.1")
    folder = schema.types["folder"]
    assert [relation.name for relation in folder] == ["viewer", "owner", "a.b", "parent", "banned"]
    assert folder.get("viewer").rewrite == Union(
        (
            This(),
            Intersection((Computed("owner"), Exclusion(Arrow("parent", "banned"), Computed("a.b")))),
        )
    )
    assert folder.get("viewer").allowed == (
        Allowed("user"),
        Allowed("user", wildcard=True),
        Allowed("folder", "viewer", caveat="warm"),
    )
    assert folder.get("owner").allowed == (Allowed("user"), Allowed("user", caveat="warm"))
    assert (folder.get("a.b").line, folder.get("a.b").column) == (13, 12)


def test_a_condition_keeps_its_parameters_and_its_expression_without_our_comments():
    warm = read_fga(MODEL).conditions["warm"]
    assert warm.parameters == (("degrees", "int"), ("days", "list<string>"), ("x", "map<double>"))
    assert warm.expression.split("\n") == [
        "// CEL says so, don't } here",
        "  degrees > 20 &&",
        '    {"a": "}"}["a"] != "it\'s # no comment"',
    ]


def test_line_ends_of_other_systems_mean_the_same():
    assert read_fga(MODEL.replace("\n", "\r\n")) == read_fga(MODEL)


def test_comments_of_openfga_tools_say_where_a_part_is_from():
    text = "model\n  schema 1.2\ntype user # module: core, file: core.fga\ntype a # my module: core\n"
    assert [definition.doc for definition in read_fga(text).definitions] == ["module: core, file: core.fga", ""]


def test_errors_know_their_source_and_each_other():
    with pytest.raises(FgaError) as raised:
        read_fga("model\n  schema 1.1\ntype user\n  relations\n    define x: []\n", source="x.fga")
    assert str(raised.value).startswith("x.fga:5:16: `]`")
    assert raised.value.others


@pytest.mark.parametrize(
    ("line", "column", "symbol"),
    [
        ("define x: [user] or", 24, "\n"),
        ("define x: [user]or y", 21, "or"),
        ("define x: y from", 21, "\n"),
        ("define x: [user with ]", 26, "]"),
        ("define x: (y or z", 22, "\n"),
        ("define x: $", 15, "$"),
        ("define from: [user]", 12, "from"),
        ("define x", 13, "\n"),
    ],
)
def test_what_is_not_there_is_missed_where_it_should_be(line, column, symbol):
    first = found(f"model\n  schema 1.1\ntype user\n  relations\n    {line}\n")[0]
    assert (first.line, first.column, first.symbol, first.kind) == (5, column, symbol, Kind.SYNTAX)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "model",
        "model\n  schema 1.1\ncondition c(x: int) {\n  x > 1\n",
        "model\n  schema 1.1\n\ntype user\n\nhello\n",
    ],
)
def test_a_text_that_stops_or_strays_is_refused(text):
    assert found(text)[0].kind is Kind.SYNTAX


def test_a_type_after_a_condition_is_refused():
    text = "model\n  schema 1.1\ncondition c(x: int) {\n  x > 1\n}\ntype user\n"
    assert (found(text)[0].line, found(text)[0].symbol) == (6, "type")


def test_a_module_alone_is_no_model():
    error = found("module core\n\ntype user\n")[0]
    assert error.kind is Kind.SCHEMA_VERSION_REQUIRED
    assert "read_modules" in error.remedy


def test_brackets_without_end_are_refused_and_not_followed():
    text = f"model\n  schema 1.1\ntype user\n  relations\n    define x: {'(' * 5000}[user]{')' * 5000}\n"
    assert "deep" in found(text)[0].problem


def test_a_large_model_is_read_in_time():
    lines = [f"    define r{n}: [user] or r{n + 1}" for n in range(1000)]
    text = "\n".join(["model", "  schema 1.1", "type user", "  relations", *lines, "    define r1000: [user]", ""])
    schema = read_fga(text)
    assert len(schema.types["user"].relations) == 1001
    assert validate(schema) == []


def test_spoiled_texts_are_refused_with_an_error_of_ours_or_read():
    chance, places = random.Random(7), []
    for _ in range(250):
        text = list(MODEL)
        for _ in range(chance.randint(1, 3)):
            place = chance.randrange(len(text))
            text[place : place + chance.randint(0, 4)] = chance.choice(
                ["", " ", "\n", "(", "]", "#", "or", "'", '"', "}"]
            )
        try:
            validate(read_fga("".join(text)), "".join(text))
        except FgaError as error:
            places += [(e.line, e.column, text.count("\n") + 1) for e in (error, *error.others)]
    assert len(places) > 60
    assert all(0 < line <= lines and column > 0 for line, column, lines in places)
