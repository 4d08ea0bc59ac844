import time

import pytest

from cupola.access.caveat.compile import compile_caveat
from cupola.access.caveat.evaluate import EvaluationFailed
from cupola.access.decision import Verdict
from cupola.access.errors import InvalidArgument, TooMuch
from cupola.access.schema.model import Caveat, Language


def ask(parameters: str, expression: str, cost: int = 10_000, language: Language = Language.ZED, **given):
    pairs = tuple(tuple(part.split(None, 1)) for part in parameters.split(",") if part.strip())
    return compile_caveat(Caveat("some", pairs, expression), language).evaluate(given, cost=cost)


@pytest.mark.parametrize(
    ("parameters", "expression", "given", "missing"),
    [
        ("a int, b int", "a == 1 && b == 2", {}, "a b"),
        ("a int, b int", "a == 1 && b == 2", {"a": 1}, "b"),
        ("a int, b int", "a == 1 && b == 2", {"b": 2}, "a"),
        ("a int, b int", "a == 1 && b == 2", {"b": 3}, False),
        ("a int, b int", "a == 1 || b == 2", {"b": 2}, True),
        ("a int, b int", "a == 1 || b == 2", {"a": 2}, "b"),
        ("a int, b int", "a == b", {}, "a"),
        ("a int, b int", "!(a == 1 && b == 1)", {"b": 2}, True),
        ("a bool, b int", "a ? b == 1 : b == 2", {}, "a"),
        ("a bool, b int, c int", "a ? b == 1 : c == 2", {"a": False}, "c"),
        ("a bool, b int, c int", "a ? b == 1 : c == 2", {"a": True, "b": 1}, True),
        ("a list<int>, b int", "b in a", {"a": [1]}, "b"),
        ("a list<int>, b int", "b in a", {"b": 1}, "a"),
        ("a map<any>", "has(a.x)", {}, "a"),
        ("a map<any>", "has(a.x)", {"a": {}}, False),
        ("a map<any>", "has(a.x.y)", {"a": {"x": 1}}, False),
        ("a list<int>, b int", "a.exists(x, x == b)", {}, "a"),
        ("a list<int>, b int", "a.exists(x, x == b)", {"a": []}, False),
        ("a list<int>, b int", "a.exists(x, x == b)", {"a": [1, 2]}, "b"),
        ("a list<int>, b int", "a.exists(x, x == 1 || x == b)", {"a": [2, 1]}, True),
        ("a list<int>, b int", "a.all(x, x == 1 && x == b)", {"a": [1, 2]}, False),
        ("a list<int>, b int", "a.all(x, x > 0 || x == b)", {"a": [1, 2]}, True),
        ("a list<int>, b int", "a.exists_one(x, x == b)", {"a": [1]}, "b"),
        ("a list<int>, b int", "a.map(x, x + b) == [1]", {"a": []}, False),
        ("a list<int>, b int", "a.map(x, x + b) == [1]", {"a": [1]}, "b"),
        ("a list<int>, b int", "size(a.filter(x, x == b)) == 1", {"a": [1]}, "b"),
        ("a list<list<int>>, b int", "a.all(x, x.exists(y, y == b || y == 1))", {"a": [[1], [2, 1]]}, True),
        ("a int, b int", "1 / 0 == 1 && a == b", {}, "a"),
        ("a int", "a == 1 && 1 / 0 == 1", {"a": 2}, False),
        ("a int", "1 / 0 == 1 || a == 2", {"a": 2}, True),
        ("a list<int>", "a.exists(x, 1 / x == 1)", {"a": [0, 1]}, True),
        ("a timestamp, b duration, c timestamp", "c < a + b", {"a": "2026-01-01T00:00:00Z", "b": "1h"}, "c"),
        ("a any", "a == null", {"a": None}, True),
        ("a uint", "a == 1", {"a": 1}, True),
        ("a any", "type(a) == double && a == 5", {"a": 5}, True),
        ("a any", "a == true", {"a": 1}, False),
        ("a int", "{true: 1, 1: 2}[a == 1] == 1", {"a": 1}, True),
        ("a map<int>", "a.all(k, a[k] == 1)", {"a": {"x": 1, "y": 1}}, True),
        ("a ipaddress", "a.in_cidr('1.2.3.9/24')", {"a": "1.2.3.4"}, True),
        ("a ipaddress", "a.in_cidr('0.0.0.0/0')", {"a": "::ffff:1.2.3.4"}, False),
        ("a ipaddress", "a.in_cidr('::/0')", {"a": "::1%eth0"}, False),
        ("a map<any>", "a.isSubtreeOf({'x': {'y': 1, 'z': 2}, 'w': [1]})", {"a": {"x": {"y": 1}, "w": [1]}}, True),
        ("a map<any>", "a.isSubtreeOf({'x': 1})", {"a": {"x": {"y": 1}}}, False),
        ("a string", "string(1234567.0) == a", {"a": "1.234567e+06"}, True),
        ("a duration", "a.getMilliseconds() == 1500 && string(a) == '1.5s'", {"a": "1500ms"}, True),
        (
            "a timestamp",
            "a.getHours('Europe/Berlin') == 1 && a.getHours('-5:30') == 18",
            {"a": "2020-01-01T00:00:00Z"},
            True,
        ),
        ("a timestamp", "string(a) == '2020-01-01T00:00:00.5Z'", {"a": "2020-01-01T01:00:00.5+01:00"}, True),
        ("a string", "a.matches('^a+$')", {"a": "aaa"}, True),
        ("a string, b string", "a.matches(b)", {"a": "aaa", "b": "b"}, False),
    ],
)
def test_what_is_known_decides_and_else_what_is_missing_is_named(parameters, expression, given, missing):
    outcome = ask(parameters, expression, **given)
    if isinstance(missing, bool):
        assert outcome[:2] == (Verdict.YES if missing else Verdict.NO, ())
    else:
        assert outcome[:2] == (Verdict.CONDITIONAL, tuple(missing.split()))


@pytest.mark.parametrize(
    ("parameters", "expression", "given", "message"),
    [
        ("a int", "1 / a == 1", {"a": 0}, "division by zero"),
        ("a int", "1 % a == 1", {"a": 0}, "division by zero"),
        ("a int", "a + 1 > 0", {"a": 2**63 - 1}, "64 bits"),
        ("a int", "-a > 0", {"a": -(2**63)}, "64 bits"),
        ("a uint, b uint", "a - b < 0", {"a": 1, "b": 2}, "64 bits"),
        ("a uint", "a + 1 == 2", {"a": 1}, r"\+ does not take \(uint, int\)"),
        ("a map<any>", "a.x == 1", {"a": {}}, "no key 'x'"),
        ("a map<any>", "a['x'] == 1", {"a": {}}, "no key 'x'"),
        ("a map<any>", "a.x.y == 1", {"a": {"x": 1}}, "a double has no fields"),
        ("a list<int>", "a[3] == 1", {"a": [1]}, "index 3 is not in a list of 1"),
        ("a any", "a + 1 == 2", {"a": 1}, r"\+ does not take \(double, int\)"),
        ("a any", "a && true", {"a": 1}, r"&& does not take \(double, bool\)"),
        ("a any", "a ? true : false", {"a": 1}, "does not take"),
        ("a any", "a.all(x, x == 1)", {"a": 1}, "does not take"),
        ("a any", "a.x", {"a": {"x": 1}}, "gives"),
        ("a ipaddress", "a.in_cidr('10.0.0.0')", {"a": "10.0.0.1"}, "no network"),
        ("a ipaddress", "a.in_cidr('10.0.0.0/255.0.0.0')", {"a": "10.0.0.1"}, "no network"),
        ("a string", "int(a) == 1", {"a": "x"}, "no whole number"),
        ("a string", "timestamp(a) == timestamp(0)", {"a": "x"}, "no RFC 3339 time"),
        ("a string", "bytes(a) == b''", {"a": "\ud800"}, "no Unicode"),
        ("a string", "a.matches('x')", {"a": "\ud800"}, "surrogate"),
        ("a string", "'x'.matches(a)", {"a": "("}, "no regular expression"),
        ("a string", "timestamp(0).getHours(a) == 0", {"a": "../etc/passwd"}, "no time zone"),
        ("a timestamp", "a + duration('1s') == a", {"a": "9999-12-31T23:59:59Z"}, "years 1 to 9999"),
        ("a int", "{1: 1, a: 2} == {1: 1}", {"a": 1}, "twice"),
    ],
)
def test_errors_are_typed(parameters, expression, given, message):
    if message == "gives":
        expression, message = "a.x || false", "does not take"
    with pytest.raises(EvaluationFailed, match=message):
        ask(parameters, expression, **given)


def test_a_parameter_of_another_type_is_named():
    with pytest.raises(InvalidArgument, match=r"parameter b: 'x' is no int\nGive a whole number"):
        ask("a int, b int", "a == 1 || b == 1", a=1, b="x")


@pytest.mark.parametrize(
    ("parameters", "expression", "given"),
    [
        ("a list<int>", "a.all(x, a.all(y, a.all(z, x + y + z > 0)))", {"a": list(range(1, 200))}),
        ("a list<int>", "a.map(x, a.map(y, a)) == []", {"a": list(range(200))}),
        ("a list<int>, b int", "a.all(x, b in a)", {"a": list(range(5000)), "b": 4999}),
        ("a string", "(a + a + a + a).contains('x')", {"a": "y" * 60_000}),
        ("a string", "'x'.matches(a) || 'x'.matches(a + 'b') || " + " || ".join(["'x'.matches(a)"] * 60), {"a": "y"}),
        ("a list<any>", "a.all(x, x == a[0])", {"a": [[list(range(200))] * 20] * 20}),
    ],
)
def test_hostile_expressions_end_soon(parameters, expression, given):
    started = time.perf_counter()
    with pytest.raises(TooMuch, match="more steps"):
        ask(parameters, expression, **given)
    assert time.perf_counter() - started < 5


def test_regular_expressions_take_linear_time():
    started = time.perf_counter()
    assert ask("a string", "a.matches('(a+)+$')", a="a" * 60_000 + "!").verdict is Verdict.NO
    assert time.perf_counter() - started < 1


def test_the_cost_is_told_and_kept():
    outcome = ask("a int", "a + 1 == 2", a=1)
    assert outcome.verdict is Verdict.YES
    assert outcome == ask("a int", "a + 1 == 2", cost=outcome.cost, a=1)
    with pytest.raises(TooMuch):
        ask("a int", "a + 1 == 2", cost=outcome.cost - 1, a=1)
    short, long = (ask("a list<int>", "a.all(x, x > 0)", a=[1] * size).cost for size in (1, 100))
    assert long > short + 99


def test_openfga_reads_uint_and_addresses():
    assert ask("a uint", "a + 1u == 2u", language=Language.FGA, a=1).verdict is Verdict.YES
    expression = "a == ipaddress('10.0.0.1') && a.in_cidr('10.0.0.0/8')"
    assert ask("a ipaddress", expression, language=Language.FGA, a="10.0.0.1").verdict is Verdict.YES
