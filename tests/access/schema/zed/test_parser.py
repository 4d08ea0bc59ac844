import pytest
import yaml

from cupola.access.errors import SchemaError
from cupola.access.schema.model import (
    Allowed,
    Arrow,
    Computed,
    Exclusion,
    Intersection,
    Itself,
    Nil,
    Quantifier,
    Union,
)
from cupola.access.schema.zed.parser import MOST_NESTED, parse_zed
from cupola.access.schema.zed.syntax import Block, Declared

a, b, c, d = (Computed(name) for name in "abcd")


def parses(text: str) -> bool:
    try:
        return bool(parse_zed(text))
    except SchemaError as error:
        return error.line < 1 or error.column < 1


def test_conformance_set(shared):
    cases = yaml.safe_load((shared / "authz_conformance/spicedb/schema_parse.derived.yaml").read_text())
    assert len(cases) == 65
    assert {case["name"]: parses(case["schema"]) for case in cases} == {case["name"]: case["parses"] for case in cases}


def declared(line: str, use: str = "") -> Declared:
    (block,) = parse_zed(f"{use}\ndefinition doc {{\n {line}\n}}").statements
    assert isinstance(block, Block)
    (found,) = block.statements
    assert isinstance(found, Declared)
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", a),
        ("a + b + c", Union((a, b, c))),
        ("(a + b) + (c + d)", Union((a, b, c, d))),
        ("a + b & c", Intersection((Union((a, b)), c))),
        ("a & b + c", Intersection((a, Union((b, c))))),
        ("a - b - c", Exclusion(Exclusion(a, b), c)),
        ("a - b + c", Exclusion(a, Union((b, c)))),
        ("a + b - c & d", Exclusion(Union((a, b)), Intersection((c, d)))),
        ("a & b - c", Exclusion(Intersection((a, b)), c)),
        ("a - (b - c)", Exclusion(a, Exclusion(b, c))),
        ("a +\n b", Union((a, b))),
        ("a->b", Arrow("a", "b")),
        ("a.any(b)", Arrow("a", "b", Quantifier.ANY)),
        ("a.all(b) + nil", Union((Arrow("a", "b", Quantifier.ALL), Nil()))),
        ("self", Computed("self")),
    ],
)
def test_expressions(text, expected):
    assert declared(f"permission p = {text}").relation.rewrite == expected


def test_self_is_a_keyword_where_it_is_used():
    assert declared("permission p = self + a", "use self").relation.rewrite == Union((Itself(), a))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("user", Allowed("user")),
        ("user#...", Allowed("user")),
        ("a/b/user:*", Allowed("a/b/user", wildcard=True)),
        ("group#member with x/lim", Allowed("group", "member", caveat="x/lim")),
        ("user with expiration", Allowed("user", expires=True)),
        ("user:* with lim and expiration", Allowed("user", wildcard=True, caveat="lim", expires=True)),
    ],
)
def test_allowed_subjects(text, expected):
    assert declared(f"relation r: {text}", "use expiration").relation.allowed == (expected,)


def test_expiration_is_a_caveat_where_it_is_not_used():
    assert declared("relation r: user with expiration").relation.allowed == (Allowed("user", caveat="expiration"),)


def test_types_of_permissions_are_kept():
    assert declared("permission p: user | x/team = a").types == ("user", "x/team")


@pytest.mark.parametrize(
    ("comment", "doc"),
    [
        ("// one", "one"),
        ("// one\n//\n// two", "one\n\ntwo"),
        ("/* one */", "one"),
        ("/** one */", "one"),
        ("/**\n * one\n *\n * - two\n */", "one\n\n- two"),
        ("/**\n   **bold** it\n*/", "**bold** it"),
        ("// one\n/** two */", "one\ntwo"),
        ("", ""),
    ],
)
def test_doc_comments_lose_their_marks(comment, doc):
    block = parse_zed(f"{comment}\ndefinition doc {{\n{comment}\nrelation r: user // beside\n}}").statements[0]
    assert isinstance(block, Block)
    assert block.doc == doc
    assert isinstance(block.statements[0], Declared)
    assert block.statements[0].relation.doc == doc


def test_places():
    block = parse_zed("\n  definition doc {\n\n    relation r: user\n}").statements[0]
    assert isinstance(block, Block)
    assert (block.line, block.column) == (2, 3)
    assert isinstance(block.statements[0], Declared)
    assert (block.statements[0].relation.line, block.statements[0].relation.column) == (4, 5)


def test_a_caveat_is_kept_as_it_stands():
    text = "caveat c(a int, m map<list<any>>) {\n  a == 1 &&\n    m == {'}': [1]} // why\n}"
    (caveat,) = parse_zed(text).statements
    assert (caveat.name, caveat.parameters) == ("c", (("a", "int"), ("m", "map<list<any>>")))
    assert caveat.expression == "a == 1 &&\n    m == {'}': [1]} // why"


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("definition", (1, 11), "the name of a definition"),
        ("definition nil {}", (1, 12), "keyword `nil`"),
        ("model\n  schema 1.1", (1, 1), "expected a definition or a caveat"),
        ("definition d {\n relation r user\n}", (2, 13), "expected `:`"),
        ("definition d {\n permission p = a\n + b\n}", (3, 2), "a relation, a permission"),
        ("definition d {\n permission p = a b\n}", (2, 19), "goes on ends with its operator"),
        ("definition d {\n permission p = a.some(b)\n}", (2, 19), "`any` or `all`"),
        ("definition d {\n ...part\n}", (2, 2), "use partial"),
        ('import "x.zed"', (1, 1), "use import"),
        ("partial p {}", (1, 1), "use partial"),
        ("use magic", (1, 5), "no feature `magic`"),
        ("definition d {}\nuse self", (2, 1), "Move it to the top"),
        ("caveat c(a int) {}", (1, 18), "no condition"),
        ("caveat c(a int) { a == {", (1, 25), "no closing"),
        ("caveat c() { true }", (1, 10), "a parameter"),
        (
            "use expiration\ndefinition d {\n relation r: user with expiration and c\n}",
            (3, 35),
            "before the expiration",
        ),
    ],
)
def test_errors_have_places(text, place, message):
    with pytest.raises(SchemaError, match=message) as caught:
        parse_zed(text)
    assert (caught.value.line, caught.value.column) == place


@pytest.mark.parametrize("text", ["(" * 5000 + "a" + ")" * 5000, " - ".join(["a"] * 5000)], ids=["parens", "minus"])
def test_deep_expressions_are_refused_and_do_not_crash(text):
    with pytest.raises(SchemaError, match=f"more than {MOST_NESTED} levels"):
        parse_zed(f"definition d {{\n permission p = {text}\n}}")


def test_wide_expressions_are_fine():
    assert len(declared("permission p = " + " + ".join(["a"] * 5000)).relation.rewrite.operands) == 5000
