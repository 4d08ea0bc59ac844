import json

import pytest
from llguidance import LLMatcher, LLTokenizer

from cupola.serve.http.reasoning import Begins, ReasoningCounter, ReasoningParser, Thinking, find_thinking
from cupola.serve.http.tools_parser import PlainParser, Reasoning, Text
from cupola.serve.request import Grammar, GrammarKind

INSIDE = Thinking(begins=Begins.INSIDE)


def read(pieces, thinking):
    parser = ReasoningParser(thinking, PlainParser())
    deltas = [d for piece in pieces for d in parser.feed(piece)] + parser.finish()
    return tuple("".join(d.text for d in deltas if isinstance(d, kind)) for kind in (Reasoning, Text))


@pytest.mark.parametrize(
    ("thinking", "written", "thoughts", "answer"),
    [
        (Thinking(), "<think>\nWell, a < b.\n\nSo:\n</think>\n\nYes. ", "Well, a < b.\n\nSo:", "Yes. "),
        (Thinking(), "\n<think>x</think>y", "x", "y"),
        (Thinking(), "No need. <think>x</think>", "", "No need. <think>x</think>"),
        (Thinking(), "<thi", "", "<thi"),
        (Thinking(), " ", "", " "),
        (Thinking(), "<think></think>y", "", "y"),
        (Thinking(), "<think>cut off", "cut off", ""),
        (INSIDE, "x</think>\ny</think>", "x", "y</think>"),
        (INSIDE, "<think>x</think>y", "x", "y"),
        (INSIDE, "cut </thi", "cut </thi", ""),
        (INSIDE, "", "", ""),
        (Thinking(opens="[THINK]", closes="[/THINK]"), "[THINK]x[/THINK]y", "x", "y"),
    ],
)
def test_every_cut_reads_the_same(thinking, written, thoughts, answer):
    assert read(list(written), thinking) == (thoughts, answer)
    for at in range(len(written) + 1):
        assert read([written[:at], written[at:]], thinking) == (thoughts, answer)


def test_thoughts_stream():
    parser = ReasoningParser(INSIDE, PlainParser())
    assert parser.feed("I see") == [Reasoning("I see")]
    assert parser.feed(" that\n") == [Reasoning(" that")]
    assert parser.feed("</think>") == []
    assert parser.feed("\nYes") == [Text("Yes")]


@pytest.mark.parametrize(
    ("prompt", "begins"), [("<|assistant|>", Begins.OUTSIDE), ("<|assistant|><think>\n", Begins.INSIDE)]
)
def test_the_prompt_says_where_generation_begins(prompt, begins):
    assert Thinking().after(prompt).begins is begins


def test_a_template_says_whether_its_model_thinks():
    assert find_thinking("{{ m.content.split('</think>') }}") == Thinking()
    assert find_thinking("{{ m.content }}") is None


def accepts(grammar, text):
    matcher = LLMatcher(LLTokenizer("byte"), LLMatcher.grammar_from_lark(grammar.text))
    assert not matcher.is_error(), matcher.get_error()
    data = text.encode()
    return matcher.try_consume_tokens(list(data)) == len(data) and matcher.is_accepting()


GRAMMARS = [
    (Grammar(GrammarKind.JSON_SCHEMA, '{"const": "a/1"}'), '"a/1"'),
    (Grammar(GrammarKind.REGEX, r"a/\d|b\/c"), "a/1"),
    (Grammar(GrammarKind.CHOICE, json.dumps(["a/1", "no"])), "a/1"),
    (Grammar(GrammarKind.LARK, 'start: "a" rest\nrest: /\\/[0-9]/\n'), "a/1"),
]


@pytest.mark.parametrize(("grammar", "answer"), GRAMMARS, ids=lambda v: v.kind.value if isinstance(v, Grammar) else "")
def test_a_grammar_holds_after_the_thoughts(grammar, answer):
    outside, inside = Thinking().then(grammar), INSIDE.then(grammar)
    assert accepts(outside, answer)
    assert accepts(outside, f"<think>\nany <b> a/2\n</think>\n\n{answer}")
    assert accepts(inside, f"any</think>{answer}")
    assert not accepts(inside, answer)
    assert not accepts(outside, "<think>any</think>other")
    assert not accepts(outside, "other")


def test_tokens_of_thoughts_are_counted():
    counter = ReasoningCounter()
    for tokens, deltas in [(1, []), (2, [Reasoning("a")]), (1, [Reasoning("b")]), (1, []), (3, [Text("c")]), (1, [])]:
        counter.see(tokens, deltas)
    assert counter.tokens == 4
