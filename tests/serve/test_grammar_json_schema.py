"""The official JSON Schema test suite: valid values can be written, others cannot, the rest is refused by name."""

import collections
import itertools
import json
import os
from pathlib import Path

import pytest

from cupola.data.tokenizer import Tokenizer
from cupola.serve.errors import InvalidRequest
from cupola.serve.grammar import Grammars, Matcher
from cupola.serve.request import Grammar, GrammarKind

INSIDE = "usr/share/perl5/auto/share/dist/Test-JSON-Schema-Acceptance/tests"
FOLDERS = [Path(root, INSIDE) for root in ("/", *filter(None, [os.environ.get("CUPOLA_SHARED")]))]
SUITE = next((folder for folder in FOLDERS if folder.is_dir()), None)

pytestmark = pytest.mark.skipif(
    SUITE is None, reason="no JSON Schema test suite: apt-get install libtest-json-schema-acceptance-perl"
)

SPELLING = "a number has one spelling: whole ones are written without a fraction"
CALENDAR = "a format is a shape: what day or minute exists is beyond a grammar"
FORM = "the format's rarer forms are not written"
SPACE = "the regex library's white space lacks U+FEFF, ECMA 262 has it"
CONTENT = "contentEncoding and contentMediaType are annotations, as in 2020-12"
SIBLINGS = "keywords beside $ref hold, as in 2020-12"
EXCEPTIONS = {
    ("optional/content.json", "a validly-encoded invalid JSON document"): CONTENT,
    ("optional/content.json", "an invalid base64 string (% is not a valid character)"): CONTENT,
    ("optional/content.json", "an invalid JSON document"): CONTENT,
    ("optional/content.json", "an invalid base64 string that is valid JSON"): CONTENT,
    ("ref.json", "ref valid, maxItems ignored"): SIBLINGS,
    ("ref.json", "$ref resolves to /definitions/base_foo, data validates"): SIBLINGS,
    ("ref.json", "$ref resolves to /definitions/base_foo, data does not validate"): SIBLINGS,
    ("const.json", "float zero is valid"): SPELLING,
    ("const.json", "float one is valid"): SPELLING,
    ("const.json", "float -2.0 is valid"): SPELLING,
    ("const.json", "float is valid"): SPELLING,
    ("enum.json", "float zero is valid"): SPELLING,
    ("enum.json", "float one is valid"): SPELLING,
    ("type.json", "a float with zero fractional part is an integer"): SPELLING,
    ("optional/float-overflow.json", "valid if optional overflow handling is implemented"): SPELLING,
    ("optional/ecmascript-regex.json", "zero-width whitespace matches"): SPACE,
    ("optional/ecmascript-regex.json", "zero-width whitespace does not match"): SPACE,
    ("optional/format/date.json", "a invalid date string with 29 days in February (normal)"): CALENDAR,
    ("optional/format/date.json", "2021 is not a leap year"): CALENDAR,
    ("optional/format/date-time.json", "an invalid date-time with leap second on a wrong minute, UTC"): CALENDAR,
    ("optional/format/date-time.json", "an invalid date-time with leap second on a wrong hour, UTC"): CALENDAR,
    ("optional/format/time.json", "invalid leap second, Zulu (wrong hour)"): CALENDAR,
    ("optional/format/time.json", "invalid leap second, Zulu (wrong minute)"): CALENDAR,
    ("optional/format/time.json", "invalid leap second, zero time-offset (wrong hour)"): CALENDAR,
    ("optional/format/time.json", "invalid leap second, zero time-offset (wrong minute)"): CALENDAR,
    ("optional/format/time.json", "invalid leap second, positive time-offset (wrong hour)"): CALENDAR,
    ("optional/format/time.json", "invalid leap second, positive time-offset (wrong minute)"): CALENDAR,
    ("optional/format/time.json", "invalid leap second, negative time-offset (wrong hour)"): CALENDAR,
    ("optional/format/time.json", "invalid leap second, negative time-offset (wrong minute)"): CALENDAR,
    ("optional/format/time.json", "an invalid time string with invalid leap second (wrong hour)"): CALENDAR,
    ("optional/format/time.json", "an invalid time string with invalid leap second (wrong minute)"): CALENDAR,
    ("optional/format/email.json", "a quoted string with a space in the local part is valid"): FORM,
    ("optional/format/email.json", "a quoted string with a double dot in the local part is valid"): FORM,
    ("optional/format/email.json", "a quoted string with a @ in the local part is valid"): FORM,
    ("optional/format/email.json", "an IPv6-address-literal after the @ is valid"): FORM,
    ("optional/format/ipv6.json", "mixed format with the ipv4 section as decimal octets"): FORM,
    ("optional/format/ipv6.json", "mixed format with double colons between the sections"): FORM,
    ("optional/format/ipv6.json", "mixed format with leading double colons (ipv4-mapped ipv6 address)"): FORM,
    ("optional/format/ipv6.json", "a long valid ipv6"): FORM,
}
"""(file, test) where the grammar and the suite differ, and why; every other test must agree."""


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    text = json.dumps({"name": "a string", "values": [1, 2.5, True, None], "other": {"foo": "bar"}})
    return Tokenizer.train([text] * 4, vocabulary=320)


def orders(value):
    """Yields the value with the keys of its objects in every order, the given one first."""
    if isinstance(value, list):
        yield from map(list, itertools.product(*map(orders, value)))
    elif isinstance(value, dict):
        for keys in itertools.permutations(value):
            for inner in itertools.product(*(orders(value[key]) for key in keys)):
                yield dict(zip(keys, inner, strict=True))
    else:
        yield value


def writes(matcher: Matcher, tokenizer: Tokenizer, value) -> bool:
    for ordered in itertools.islice(orders(value), 200):
        tokens = tokenizer.encode(json.dumps(ordered, ensure_ascii=False)).tolist()
        tried = matcher.copy()
        if tried.validate(tokens) == len(tokens):
            for token in tokens:
                tried.accept(token)
            if tried.complete:
                return True
    return False


def keys_in(schema) -> set[str]:
    if isinstance(schema, dict):
        return set(schema).union(*map(keys_in, schema.values()))
    return set().union(*map(keys_in, schema)) if isinstance(schema, list) else set()


def names_a_keyword(error: InvalidRequest, schema) -> bool:
    """Whether it says a keyword of the schema, or of the meta-schema that the schema refers to, or that nothing fits."""
    nothing_fits = schema is False or "nsatisfiable" in error.problem
    refers = "/json-schema.org/" in json.dumps(schema).replace('"$schema": "https://json-schema.org/', "")
    return nothing_fits or refers or any(key in error.problem for key in keys_in(schema))


def groups():
    """Yields (file, group) of both drafts."""
    for draft in ("draft2020-12", "draft7"):
        for path in sorted((SUITE / draft).rglob("*.json")):
            for group in json.loads(path.read_text(encoding="utf-8")):
                yield str(path.relative_to(SUITE / draft)), group


def test_the_suite(tokenizer):
    grammars = Grammars(tokenizer, tokenizer.vocabulary)
    counts, differ, unnamed = collections.Counter(), set(), []
    for file, group in groups():
        try:
            matcher = grammars.compile(Grammar(GrammarKind.JSON_SCHEMA, json.dumps(group["schema"])))
        except InvalidRequest as error:
            counts["refused"] += len(group["tests"])
            if not names_a_keyword(error, group["schema"]):
                unnamed.append((group["schema"], error.problem))
            continue
        for test in group["tests"]:
            if writes(matcher, tokenizer, test["data"]) == test["valid"]:
                counts["agree"] += 1
            else:
                differ.add((file, test["description"]))
    assert not unnamed
    assert sorted(differ - set(EXCEPTIONS)) == []
    assert sorted(set(EXCEPTIONS) - differ) == []
    assert counts["agree"] >= 1740
    assert counts["agree"] + counts["refused"] >= 3000  # else this is another suite


def test_a_wrong_table_is_noticed(tokenizer):
    matcher = Grammars(tokenizer, tokenizer.vocabulary).compile(Grammar(GrammarKind.JSON_SCHEMA, '{"type": "integer"}'))
    assert writes(matcher, tokenizer, 12)
    assert not writes(matcher, tokenizer, "12")
