import pytest

from cupola.access.caveat.types import check_context, read_type
from cupola.access.errors import InvalidArgument
from cupola.access.schema.model import Caveat, Language

DAY = 86_400 * 10**9


@pytest.mark.parametrize(
    ("type", "given", "expected"),
    [
        ("bool", True, True),
        ("int", 42, 42),
        ("int", 42.0, 42),
        ("int", "42", 42),
        ("int", "1e1", 10),
        ("int", "-9223372036854775808", -(2**63)),
        ("uint", "18446744073709551615", 2**64 - 1),
        ("double", 1, 1.0),
        ("double", "42.5", 42.5),
        ("string", "x", "x"),
        ("bytes", "YWJj", b"abc"),
        ("duration", "1h30m", 5400 * 10**9),
        ("duration", "-1.5s", -1_500_000_000),
        ("duration", "0", 0),
        ("duration", "1h2m3s4ms5us6ns", 3723004005006),
        ("timestamp", "1970-01-02T00:00:00Z", DAY),
        ("timestamp", "1970-01-02T01:00:00.123456789+01:00", DAY + 123456789),
        ("list<uint>", ["1", 2.0], [1, 2]),
        ("map<list<int>>", {"a": [1]}, {"a": [1]}),
        ("any", {"a": [1, None, "x"]}, {"a": [1.0, None, "x"]}),
    ],
)
def test_json_becomes_a_value(type, given, expected):
    found = read_type(type, Language.ZED).convert(given)
    assert found == expected
    assert type != "any" or isinstance(found["a"][0], float)


@pytest.mark.parametrize(
    ("type", "given"),
    [
        *(("bool", value) for value in (1, "true", None)),
        *(
            ("int", value)
            for value in (True, 1.5, "x", "1.5", "0x1", " 1", "1e-999999999", 2**63, "1e30", float("inf"))
        ),
        *(("int", value) for value in ("9" * 5000, [], None)),
        *(("uint", value) for value in (-1, "-1", 2**64)),
        *(("double", value) for value in ("NaN", True, "x", 10**400, "1e400")),
        *(("string", value) for value in (1, None, b"x")),
        *(("bytes", value) for value in ("YWJ", "é", 42)),
        *(("duration", value) for value in ("1d", "10hm", "", "s", ".s", "1", 1, "1h 1m", "9" * 19 + "h", "-")),
        *(("timestamp", value) for value in ("2020-01-01", "2020-02-30T00:00:00Z", "2020-01-01T00:00:60Z", 42)),
        *(
            ("timestamp", value)
            for value in ("2020-01-01T00:00:00", "0001-01-01T00:00:00+23:00", "٢٠٢٠-01-01T00:00:00Z")
        ),
        *(("ipaddress", value) for value in ("1...2", "1.2.3.04", 42, "")),
        *(("list<int>", value) for value in ("x", {"a": 1}, [1, "x"])),
        *(("map<int>", value) for value in ([], {1: 1}, {"a": "x"})),
        ("any", object()),
        ("any", {1: 2}),
    ],
)
def test_what_is_of_another_type_is_refused_by_name(type, given):
    with pytest.raises(InvalidArgument, match=r"caveat some, parameter a: .* is no " + type.replace("<", "<")):
        check_context(Caveat("some", (("a", type),), "true"), Language.ZED, {"a": given})


def test_deep_json_is_refused():
    deep = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(InvalidArgument, match="64 deep"):
        check_context(Caveat("some", (("a", "any"),), "true"), Language.ZED, {"a": deep})


def test_a_relationship_brings_only_what_the_condition_has():
    caveat = Caveat("some", (("a", "int"),), "a == 1")
    check_context(caveat, Language.FGA, {"a": 1})
    with pytest.raises(InvalidArgument, match=r"no parameter 'b'\nIt has a"):
        check_context(caveat, Language.ZED, {"b": 1})
