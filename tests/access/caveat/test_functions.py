"""Random expressions with all parameters given: Google's own evaluator gives the same answers."""

import random
import re

import pytest
from cel_expr_python import cel

from cupola.access.caveat.compile import compile_caveat
from cupola.access.caveat.evaluate import EvaluationFailed
from cupola.access.caveat.functions import write_double
from cupola.access.decision import Verdict
from cupola.access.schema.model import Caveat, Language

LEAVES = {
    "int": ["0", "1", "-2", "7", "9223372036854775807", "-9223372036854775808", "i", "j", "size(l)", "int(d)", "0x1F"],
    "uint": ["0u", "3u", "18446744073709551615u", "u", "uint(i)"],
    "double": ["0.0", "-1.5", "1e300", "2.5", "d", "double(i)", "double('nan')", ".5"],
    "string": [
        "''",
        "'a'",
        "s",
        "'é😀'",
        "r'\\d'",
        '"""b"c"""',
        "'\\u00e9\\x41\\101\\n'",
        "string(i)",
        "string(p)",
        "t",
    ],
    "bytes": ["b''", "b'ab'", "b'\\xff'", "b'\\x01\\x02\\xff'", "bytes(s)"],
    "bool": ["true", "false", "p", "q"],
    "list(int)": ["l", "[]", "[1, 2, i]", "l.map(x, x + 1)", "l.filter(x, x > j)", "{4: 2}.map(n, n)"],
    "map": ["m", "{}", "{'a': 1, s: i}", "{'é': j}"],
    "timestamp": ["timestamp('2020-02-29T12:34:56.789Z')", "w", "timestamp(0)", "timestamp('1969-12-31T23:59:59.5Z')"],
    "duration": ["duration('1h30m')", "duration('-1.5s')", "k", "duration('0')", "duration('61s')"],
}
GIVEN = {
    "i": ("int", 5),
    "j": ("int", -3),
    "u": ("uint", 9),
    "d": ("double", 2.25),
    "s": ("string", "abc"),
    "t": ("string", "42"),
    "p": ("bool", True),
    "q": ("bool", False),
    "l": ("list<int>", [1, 0, -3, 5]),
    "m": ("map<int>", {"a": 1, "abc": 5}),
    "w": ("timestamp", "2024-03-10T07:00:00.25Z"),
    "k": ("duration", "90m0.5s"),
}
PARTS = ["FullYear", "Month", "Date", "DayOfMonth", "DayOfWeek", "DayOfYear", "Hours", "Minutes", "Seconds"]
ZONES = ["", "'America/New_York'", "'+05:30'", "'-02:00'", "'UTC'"]
RULES = {
    "int": [
        *(f"({{int}} {operator} {{int}})" for operator in "+-*/%"),
        "(-({int}))",
        "size({string})",
        "size({bytes})",
        "size({map})",
        "{list(int)}[{int}]",
        "{map}[{string}]",
        "m.abc",
        "({bool} ? {int} : {int})",
        "int({double})",
        "int({uint})",
        "int({string})",
        "int({timestamp})",
        "{duration}.getMinutes()",
        "{timestamp}.getMilliseconds()",
        *(f"{{timestamp}}.get{part}({zone})" for part in PARTS for zone in ZONES),
    ],
    "uint": [*(f"({{uint}} {operator} {{uint}})" for operator in "+-*/%"), "uint({double})", "uint({string})"],
    "double": [*(f"({{double}} {operator} {{double}})" for operator in "+-*/"), "(-({double}))", "double({uint})"],
    "string": ["({string} + {string})", "string({uint})", "string({bool})", "string({bytes})"],
    "bytes": ["({bytes} + {bytes})", "bytes({string})"],
    "list(int)": [
        "({list(int)} + {list(int)})",
        "{list(int)}.map(z, z > 0, {int} / z)",
        "{list(int)}.filter(z, {bool})",
    ],
    "timestamp": ["({timestamp} + {duration})", "({timestamp} - {duration})"],
    "duration": ["({duration} + {duration})", "({duration} - {duration})", "({timestamp} - {timestamp})"],
    "bool": [
        "({bool} && {bool})",
        "({bool} || {bool})",
        "(!{bool})",
        "({bool} ? {bool} : {bool})",
        "({int} in {list(int)})",
        "({string} in {map})",
        "has(m.a)",
        "has(m.zz)",
        "(dyn({int}) == dyn({double}))",
        "(dyn({uint}) < dyn({int}))",
        "(dyn({string}) == dyn({int}))",
        "(dyn({list(int)}) == [1.0, {double}])",
        "(type({string}) == type(dyn({int})))",
        "(dyn({bool}) == dyn({int}))",
        "{list(int)}.all(z, {bool} || z > {int})",
        "{list(int)}.exists(z, 10 / z == {int})",
        "{list(int)}.exists_one(z, z == {int})",
        "{map}.exists(z, z == {string})",
        "{string}.contains({string})",
        "{string}.startsWith({string})",
        "{string}.endsWith({string})",
        "{string}.matches('[a-c]+|^$')",
        *(f"({{{kind}}} {operator} {{{kind}}})" for kind in LEAVES for operator in ("==", "!=")),
        *(
            f"({{{kind}}} {operator} {{{kind}}})"
            for kind in LEAVES
            if kind not in ("map", "list(int)")
            for operator in ("<", "<=", ">", ">=")
        ),
    ],
}


def expression(choose: random.Random, kind: str, depth: int) -> str:
    if not depth or kind not in RULES or (kind != "bool" and choose.random() < 0.4):
        return choose.choice(LEAVES[kind])
    rule = choose.choice(RULES[kind])
    for inner in LEAVES:
        while f"{{{inner}}}" in rule:
            rule = rule.replace(f"{{{inner}}}", expression(choose, inner, depth - 1), 1)
    return rule


def ours(text: str):
    parameters = tuple((name, type) for name, (type, _) in GIVEN.items())
    compiled = compile_caveat(Caveat("some", parameters, text), Language.FGA)
    try:
        return (
            compiled.evaluate({name: value for name, (_, value) in GIVEN.items()}, cost=100_000).verdict is Verdict.YES
        )
    except EvaluationFailed:
        return "error"


@pytest.fixture(scope="module")
def theirs():
    types = {"int": cel.Type.INT, "uint": cel.Type.UINT, "double": cel.Type.DOUBLE, "string": cel.Type.STRING}
    types |= {"bytes": cel.Type.BYTES, "bool": cel.Type.BOOL, "list<int>": cel.Type.List(cel.Type.INT)}
    types |= {"map<int>": cel.Type.Map(cel.Type.STRING, cel.Type.INT)}
    # Times are given as CEL's own text, since the library takes them from no JSON.
    literals = {"w": "timestamp('2024-03-10T07:00:00.25Z')", "k": "duration('90m0.5s')"}
    variables = {name: types[type] for name, (type, _) in GIVEN.items() if name not in literals}
    data = {name: value for name, (_, value) in GIVEN.items() if name not in literals}
    environment = cel.NewEnv(variables=variables)

    def evaluate(text: str):
        compiled = environment.compile(text)
        try:
            found = compiled.eval(data=data)
        except RuntimeError:
            return "error"
        return "error" if found.type() == cel.Type.ERROR else found.value()

    return evaluate, literals


@pytest.mark.parametrize("seed", range(6))
def test_random_expressions_agree_with_the_library(theirs, seed):
    evaluate, literals = theirs
    choose = random.Random(seed)
    answers = []
    for _ in range(60):
        text = expression(choose, "bool", 3)
        answers.append(evaluate(re.sub(r"\b[wk]\b", lambda found: literals[found[0]], text)))
        assert (text, ours(text)) == (text, answers[-1])
    assert {True, False, "error"} <= set(answers)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1"),
        (-0.0, "-0"),
        (0.1, "0.1"),
        (123456.0, "123456"),
        (1234567.5, "1.2345675e+06"),
        (1e100, "1e+100"),
        (0.0001, "0.0001"),
        (0.00001, "1e-05"),
        (float("-inf"), "-Inf"),
        (float("nan"), "NaN"),
    ],
)
def test_doubles_are_written_as_go_writes_them(value, text):
    assert write_double(value) == text
