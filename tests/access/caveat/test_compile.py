import re
from pathlib import Path

import pytest

from cupola.access.caveat.compile import compile_caveat
from cupola.access.errors import SchemaError
from cupola.access.schema.model import Caveat, Language

CONDITION = re.compile(r"^[ \t]*(caveat|condition) ([\w/]+)\s*\(([^)]*)\)\s*\{([^{}]*)\}", re.MULTILINE)


def made(parameters: str, expression: str, language: Language = Language.ZED):
    pairs = tuple(tuple(p.replace(":", " ").split(None, 1)) for p in parameters.split(",") if p.strip())
    caveat = Caveat("some", tuple((name, type.strip()) for name, type in pairs), expression, line=7, column=3)
    return compile_caveat(caveat, language)


def conditions(folder: Path) -> set[tuple[str, str, str]]:
    """Returns (keyword, parameters, expression) of each."""
    texts = [file.read_text() for file in sorted(folder.rglob("*.yaml"))]
    return {(keyword, parameters, body) for text in texts for keyword, _, parameters, body in CONDITION.findall(text)}


@pytest.mark.parametrize("folder", ["spicedb/testconfigs", "openfga_sample_stores"])
def test_every_condition_of_the_conformance_data_compiles(shared, folder):
    found = conditions(shared / "authz_conformance" / folder)
    for keyword, parameters, expression in found:
        made(parameters, expression, Language.ZED if keyword == "caveat" else Language.FGA)
    assert len(found) >= 12


@pytest.mark.parametrize(
    ("parameters", "expression", "message"),
    [
        ("a int", "a ==", r"7:3: caveat some: Syntax error.* at 1:5"),
        ("a int", "a == 1 `", "token recognition error.* at 1:8"),
        ("a int", "\n\n a == b", "undeclared reference to 'b' at 3:7"),
        ("a int", "a == 'x'", r"no matching overload for '_==_' applied to '\(int, string\)' at 1:3"),
        ("a int", "a + 1", "type int and must give a bool"),
        ("a any", "a", "type dyn and must give a bool"),
        ("a int", "a.nothing() == 1", "nothing"),
        ("a map<int>", "a.contains(1)", "contains"),
        ("a int, b int", "a == 1", "parameter b is not used"),
        ("a int, a string", "a == 1", "two parameters a"),
        ("a integer", "a == 1", "'integer' is no type; there are any, bool"),
        ("a list", "a == []", "list needs the type"),
        ("a map", "a == {}", "map needs the type"),
        ("a int<string>", "a == 1", "int has no types in it"),
        ("a " + "list<" * 99 + "int" + ">" * 99, "a == []", "at most 64 deep"),
        ("int int", "int == 1", "int"),
        ("a string", "a.matches('(')", "no regular expression"),
        ("a string", r"a.matches('(\\pL{1000}){1000}')", "no regular expression"),
        ("a int", "a" + " + 1" * 500 + " == 1", "at most about 32"),
        ("a int", "(" * 500 + "a" + ")" * 500 + " == 1", "at most about 32"),
        ("a int", "google.protobuf.Duration{seconds: a} == duration('1s')", "messages cannot be made"),
        ("a int", "", "Syntax error"),
        ("a int", "a == " + "1" * 200_000, "size exceeds"),
        ("a string", "a == '\ud800'", "incompatible"),
        ("a string", "ipaddress(a) == ipaddress(a)", "undeclared reference to 'ipaddress'"),
    ],
)
def test_what_cannot_be_is_refused_with_its_place(parameters, expression, message):
    with pytest.raises(SchemaError, match=message) as caught:
        made(parameters, expression)
    assert (caught.value.line, caught.value.column) == (7, 3)
    assert len(str(caught.value)) < 600


def test_each_language_has_its_own_types_and_functions():
    made("a: TYPE_NAME_LIST<TYPE_NAME_STRING>, b: uint", "a == [] && b == 1u && true", Language.FGA)
    made("a: int, b: int", "a == 1", Language.FGA)
    made("a: ipaddress", "a == ipaddress('10.0.0.1') && a != null", Language.FGA)
    made("a map<any>, b uint", "a.isSubtreeOf({'x': 1}) && b < 5")
    for parameters, expression in [("a: bytes", "a == b''"), ("a: map<any>", "a.isSubtreeOf(a)")]:
        with pytest.raises(SchemaError):
            made(parameters, expression, Language.FGA)
    with pytest.raises(SchemaError):
        made("a TYPE_NAME_INT", "a == 1")


def test_long_chains_of_alternatives_compile():
    compiled = made("a int", " || ".join(f"a == {number}" for number in range(300)))
    assert compiled.evaluate({"a": 299}, cost=10_000).verdict.value == "yes"
    assert compiled.evaluate({}, cost=10_000).missing == ("a",)
