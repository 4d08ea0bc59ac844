import json
import time

import jax
import jax.numpy as jnp
import llguidance
import numpy as np
import pytest
import tokenizers
from scipy import stats

from cupola.data.tokenizer import Tokenizer
from cupola.serve.errors import InvalidRequest
from cupola.serve.grammar import Grammars, Matcher, Spacing
from cupola.serve.request import Grammar, GrammarKind, Sampling
from cupola.serve.rows import Place, Settings, rows_of
from cupola.serve.sample import sample

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}, "kind": {"enum": ["guest", "member"]}},
    "required": ["name", "age", "kind"],
    "additionalProperties": False,
}
SOMEONE = {"name": 'Zoë "Z" \n', "age": 31, "kind": "guest"}
draw = jax.jit(sample)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    texts = [json.dumps(SOMEONE), json.dumps({**SOMEONE, "kind": "member", "name": "Ada"}), "yes no maybe 123 foo bar"]
    return Tokenizer.train(texts * 4, vocabulary=340)


@pytest.fixture(scope="module")
def grammars(tokenizer) -> Grammars:
    return Grammars(tokenizer, tokenizer.vocabulary + 77)  # a model's table is often padded


def schema(value) -> Grammar:
    return Grammar(GrammarKind.JSON_SCHEMA, json.dumps(value))


def allowed(matcher: Matcher, tokenizer: Tokenizer) -> set[int]:
    row = np.zeros(-(-(tokenizer.vocabulary + 77) // 32), np.uint32)
    matcher.mask(row)
    return set(np.flatnonzero(np.unpackbits(row.view(np.uint8), bitorder="little")).tolist())


def matches(matcher: Matcher, tokenizer: Tokenizer, text: str) -> bool:
    tried, tokens = matcher.copy(), tokenizer.encode(text).tolist()
    if tried.validate(tokens) < len(tokens):
        return False
    for token in tokens:
        tried.accept(token)
    return tried.complete


@pytest.mark.parametrize(
    ("grammar", "good", "bad"),
    [
        (schema(PERSON), [json.dumps(SOMEONE, ensure_ascii=False)], ['{"age": 31}', json.dumps(SOMEONE, indent=1)]),
        (schema({}), ["1", '"x"', "[1, null]", '{"a": {}}'], ["1 2", "tru"]),
        (schema(True), ["1.5"], ["x"]),
        (Grammar(GrammarKind.REGEX, "[0-9]{2,3}(a|b)?"), ["12", "123b"], ["1", "1234", "x12", "12c"]),
        (Grammar(GrammarKind.CHOICE, '["yes", "no", "\\"\\\\\\né"]'), ["yes", "no", '"\\\né'], ["", "yesno", "maybe"]),
        (Grammar(GrammarKind.LARK, 'start: "foo" BAR+\nBAR: /ba[rz]/'), ["foobar", "foobarbaz"], ["foo", "bar"]),
    ],
    ids=lambda value: value.kind.value if isinstance(value, Grammar) else "",
)
def test_what_matches_can_be_written_and_nothing_else(grammar, good, bad, grammars, tokenizer):
    matcher = grammars.compile(grammar)
    assert [matches(matcher, tokenizer, text) for text in good] == [True] * len(good)
    assert [matches(matcher, tokenizer, text) for text in bad] == [False] * len(bad)


def test_compact_json(tokenizer):
    matcher = Grammars(tokenizer, tokenizer.vocabulary, spacing=Spacing.COMPACT).compile(schema(PERSON))
    assert matches(matcher, tokenizer, json.dumps(SOMEONE, ensure_ascii=False, separators=(",", ":")))
    assert not matches(matcher, tokenizer, json.dumps(SOMEONE, ensure_ascii=False))


def test_only_stop_tokens_come_after_the_end(tokenizer):
    stops = {tokenizer.end, tokenizer.encode("foo").tolist()[-1]}
    grammars = Grammars(tokenizer, tokenizer.vocabulary + 77, stops)
    matcher = grammars.compile(Grammar(GrammarKind.CHOICE, '["yes"]'))
    assert not stops & allowed(matcher, tokenizer)
    for token in tokenizer.encode("yes").tolist():
        assert not matcher.ended
        matcher.accept(token)
    assert (matcher.ended, matcher.complete, matcher.forced()) == (True, True, [])
    assert allowed(matcher, tokenizer) == stops
    matcher.accept(tokenizer.end)
    assert matcher.ended
    # Where the text may end or go on, both are allowed.
    digits = grammars.compile(Grammar(GrammarKind.REGEX, "1+"))
    digits.accept(tokenizer.encode("1").tolist()[0])
    assert stops | {tokenizer.encode("1").tolist()[0]} <= allowed(digits, tokenizer)
    assert (digits.ended, digits.complete) == (False, True)


@pytest.mark.parametrize("seed", range(6))
def test_masks_are_those_of_the_library_on_random_texts(seed, grammars, tokenizer):
    """Built anew from the library's own reader of the same tokenizer."""
    text = json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **PERSON})
    options = {"item_separator": ", ", "key_separator": ": ", "whitespace_flexible": False}
    source = llguidance.LLMatcher.grammar_from_json_schema(text, overrides=options)
    own = llguidance.LLTokenizer(tokenizer._inner.to_str(), eos_token=tokenizer.end)
    theirs, ours = llguidance.LLMatcher(own, source), grammars.compile(Grammar(GrammarKind.JSON_SCHEMA, text))
    random = np.random.default_rng(seed)
    for _ in range(150):
        may = allowed(ours, tokenizer)
        mask = np.frombuffer(theirs.compute_bitmask(), np.uint8)
        assert may == set(np.flatnonzero(np.unpackbits(mask, bitorder="little")).tolist())
        if ours.ended:
            break
        # Mostly not the end of a string: else few texts get far.
        token = int(random.choice(sorted(may)))
        ours.accept(token)
        assert theirs.consume_token(token)


def test_tokens_beyond_the_tokenizer_and_special_ones_are_never_allowed(grammars, tokenizer):
    matcher = grammars.compile(Grammar(GrammarKind.REGEX, "(?s:.)*"))
    may = allowed(matcher, tokenizer)
    assert max(may) < tokenizer.vocabulary
    assert may & tokenizer.special == {tokenizer.end}
    assert not any(matches(matcher, tokenizer, "x") and tokenizer.token_bytes(i) == b"" for i in may - {tokenizer.end})


def walk(matcher: Matcher, tokens: list[int]) -> tuple[list[int], int]:
    """Generates the text of `tokens`, jumping where that is forced; returns (tokens, steps of the model)."""
    written, steps = [], 0
    while len(written) < len(tokens):
        jump = matcher.forced()
        if not jump:
            jump, steps = [tokens[len(written)]], steps + 1
        for token in jump:
            matcher.accept(token)
        written += jump
    return written, steps


def test_forced_tokens_fewer_than_wanted_are_none(grammars, tokenizer):
    matcher = grammars.compile(schema(PERSON))
    forced = matcher.forced()
    assert len(forced) > 1
    assert matcher.forced(len(forced)) == forced
    assert matcher.forced(len(forced) + 1) == []


def test_forced_tokens_save_their_steps_and_are_the_tokenizers_own(grammars, tokenizer):
    tokens = tokenizer.encode(json.dumps(SOMEONE, ensure_ascii=False)).tolist()
    matcher = grammars.compile(schema(PERSON))
    written, steps = walk(matcher.copy(), tokens)
    assert written == tokens
    assert matcher.ended is False
    # Predicted: a step for each token in which the text is not yet decided, counted by hand with one mask each.
    free, probe = 0, matcher.copy()
    for token in tokens:
        free += len(allowed(probe, tokenizer)) > 1
        probe.accept(token)
    assert steps == free
    assert steps < 0.7 * len(tokens)
    # Where nothing is forced nothing is saved.
    assert walk(grammars.compile(Grammar(GrammarKind.REGEX, "(?s:.)*")), tokens) == (tokens, len(tokens))


def test_forced_text_waits_where_it_could_merge_with_what_follows(tokenizer):
    """'foo' may go on as 'foobar', which is another token than 'foo': it must not be jumped over."""
    merged = Tokenizer.train(["foobar foobar foo foo"] * 4, vocabulary=290)
    assert merged.encode("foobar").tolist() != merged.encode("foo").tolist() + merged.encode("bar").tolist()
    matcher = Grammars(merged, merged.vocabulary).compile(Grammar(GrammarKind.REGEX, "foo(bar|z)"))
    for text in ("foobar", "fooz"):
        tokens = merged.encode(text).tolist()
        assert walk(matcher.copy(), tokens)[0] == tokens


def test_drafts_get_a_mask_each_and_leave_no_trace(grammars, tokenizer):
    matcher = grammars.compile(Grammar(GrammarKind.REGEX, "[0-9]{4}!"))
    digits = [tokenizer.encode(d).tolist()[0] for d in "123"]
    out = np.zeros((6, -(-(tokenizer.vocabulary + 77) // 32)), np.uint32)
    assert matcher.masks(out, [*digits, tokenizer.end, digits[0]]) == 3
    assert not out[4:].any()
    for i, token in enumerate(digits):
        row = np.zeros_like(out[0])
        matcher.mask(row)
        assert (row == out[i]).all()
        matcher.accept(token)
    assert matcher.validate([digits[0], digits[0]]) == 1
    matcher.rollback(2)
    assert matcher.validate(digits) == 3
    copied = matcher.copy()
    copied.accept(digits[1])
    assert matcher.validate([*digits, digits[0]]) == 3  # the copy went on alone


def test_a_mask_is_written_only_where_it_fits(grammars):
    matcher = grammars.compile(Grammar(GrammarKind.CHOICE, '["yes"]'))
    words = np.zeros((13, 26), np.uint32)
    with pytest.raises(ValueError, match="whole rows"):
        matcher.mask(words[0, ::2])
    with pytest.raises(Exception, match="(?i)size|mask|bytes"):
        matcher.mask(words[0])


def test_what_is_not_allowed_is_not_accepted(grammars, tokenizer):
    matcher = grammars.compile(Grammar(GrammarKind.CHOICE, '["yes"]'))
    with pytest.raises(InvalidRequest, match="cannot go on"):
        matcher.accept(tokenizer.encode("n").tolist()[0])


def test_each_step_draws_from_the_models_distribution_over_what_is_allowed(grammars, tokenizer):
    """Token by token this is rejection sampling; where a text is one token, also of whole texts."""
    count, size = 4000, tokenizer.vocabulary + 77
    logits = np.random.default_rng(1).normal(size=size).astype(np.float32)
    batch = jnp.asarray(np.broadcast_to(logits, (count, size)))
    places = [Place(Settings(Sampling(), seed=3, vocabulary=size), i) for i in range(count)]
    letters = [tokenizer.encode(c).tolist()[0] for c in "abcd"]
    matcher = grammars.compile(Grammar(GrammarKind.REGEX, "[abcd]"))
    row = np.zeros(-(-size // 32), np.uint32)
    matcher.mask(row)
    free = np.asarray(draw(batch, rows_of(places, rows=count)).tokens)
    bound = np.asarray(draw(batch, rows_of(places, rows=count, mask=np.tile(row, (count, 1)))).tokens)
    assert set(bound.tolist()) == set(letters)
    expected = np.exp(logits[letters].astype(np.float64))
    kept = np.asarray([(bound == i).sum() for i in letters])
    rejected = np.asarray([(free == i).sum() for i in letters])
    assert stats.chisquare(kept, expected / expected.sum() * kept.sum()).pvalue > 1e-3
    assert stats.chi2_contingency(np.stack([kept, rejected])).pvalue > 1e-3


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"properties": {"tags": {"type": "array", "uniqueItems": True}}}, r"properties\.tags\.uniqueItems"),
        ({"properties": {"not": {"anyOf": [{}, {"not": {}}]}}}, r"properties\.not\.anyOf\[1\]\.not "),
        ({"if": {"type": "string"}, "then": {"minLength": 2}}, "if, then .*\n.*anyOf with both cases"),
        ({"oneOf": [{"type": "string"}, {"maxLength": 2}]}, "oneOf .*\n.*Use anyOf"),
        ({"items": {"format": "color"}, "prefixItems": [{"format": "date"}]}, r": items\.format \(.*color"),
        ({"properties": {"a": {"$ref": "https://example.com/b"}}}, r"properties\.a\.\$ref .*example.com"),
        ({"type": "string", "pattern": "(?=a)"}, "pattern .*"),
        ({"type": "strin"}, "strin"),
        ({"x-guidance": {"lenient": True}, "not": {}}, "x-guidance"),
        (False, "false"),
        (3, "a schema is an object"),
    ],
)
def test_a_schema_that_cannot_be_enforced_is_refused_by_name(value, said, grammars):
    with pytest.raises(InvalidRequest, match=said) as caught:
        grammars.compile(schema(value), where="response_format.json_schema.schema")
    assert caught.value.where == "response_format.json_schema.schema"
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        ("json_schema", '{"type":', "no JSON"),
        ("json_schema", '{"items":' * 20_000, "no JSON|too deeply"),
        ("json_schema", '{"items":' * 300 + "{}" + "}" * 300, "recursion limit"),
        ("json_schema", '{"minimum": NaN}', "NaN|cannot be read"),
        ("json_schema", '{"const": "\\ud800"}', "surrogate|cannot be read"),
        ("regex", "\ud800", "surrogate"),
        ("choice", '["\\ud800"]', "cannot be used"),
        ("regex", "a(?=b)", "look-ahead.*\n(.*\n)*.*without look-around"),
        ("regex", "(", "unclosed group"),
        ("choice", "[]", "list of strings"),
        ("choice", '["a", 1]', "list of strings"),
        ("choice", "yes", "no JSON"),
        ("lark", "start: foo", 'unknown name: "foo"'),
        ("lark", "", "start"),
        ("regex", "a" * 2**19, "more than the 262144"),
    ],
)
def test_a_grammar_that_cannot_be_read_is_refused(kind, text, said, grammars):
    with pytest.raises(InvalidRequest, match=said) as caught:
        grammars.compile(Grammar(GrammarKind(kind), text))
    assert caught.value.where == kind


@pytest.mark.parametrize(
    "text",
    [
        "((a{1,1000}){1,1000}){1,1000}b",
        ".*a.{24}b",
        "(a|b|ab)*c{500}(.*x.{12}){3}",
        "(a?){5000}" * 20,
        "[^x]{1,100000}x",
    ],
)
def test_hostile_grammars_take_bounded_time(text, grammars, tokenizer):
    began = time.perf_counter()
    try:
        matcher = grammars.compile(Grammar(GrammarKind.REGEX, text))
        for _ in range(20):
            matcher.accept(min(allowed(matcher, tokenizer) - {tokenizer.end}))
    except InvalidRequest:
        pass
    assert time.perf_counter() - began < 2


def test_compiled_grammars_are_kept_the_last_used_longest(tokenizer, monkeypatch):
    grammars = Grammars(tokenizer, tokenizer.vocabulary, kept=2)
    built = []
    build = grammars._build
    monkeypatch.setattr(grammars, "_build", lambda grammar, where: built.append(grammar.text) or build(grammar, where))
    for text in ("a", "b", "a", "c", "a", "b"):
        grammars.compile(Grammar(GrammarKind.REGEX, text))
    assert built == ["a", "b", "c", "b"]


def test_a_tokenizer_of_whole_words_with_spaces_in_front():
    """SentencePiece marks spaces, and puts one before a text that stands first; forced text stands never first."""
    inner = tokenizers.Tokenizer(
        tokenizers.models.BPE(
            vocab={"</s>": 0, "▁": 1, "y": 2, "e": 3, "s": 4, "n": 5, "o": 6, "ye": 7, "yes": 8, "▁yes": 9},
            merges=[("y", "e"), ("ye", "s"), ("▁", "yes")],
        )
    )
    inner.add_special_tokens(["</s>"])
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(prepend_scheme="first")
    inner.decoder = tokenizers.decoders.Metaspace(prepend_scheme="first")
    whole = Tokenizer(inner)
    grammars = Grammars(whole, whole.vocabulary)
    assert grammars.compile(Grammar(GrammarKind.CHOICE, '["yes"]')).forced() == [8]
    assert grammars.compile(Grammar(GrammarKind.CHOICE, '[" yes"]')).forced() == [9]
