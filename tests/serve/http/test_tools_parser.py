import itertools

import hypothesis
import pytest
from hypothesis import strategies as st

from cupola.serve.http.reasoning import Begins, Thinking
from cupola.serve.http.tools import Reasoning, Text, ToolArguments, ToolBegin, ToolFormat, prompt_tools

HERMES, LLAMA, MISTRAL = ToolFormat.HERMES, ToolFormat.LLAMA, ToolFormat.MISTRAL
TOOLS = [{"type": "function", "function": {"name": name}} for name in ("f", "get_weather")]


def read(pieces, format=HERMES, thinking=None):
    """What a parser makes of pieces: [text, thoughts, [(name, arguments), ...]]."""
    parser = prompt_tools(TOOLS, format=format).parser(thinking)
    deltas = [d for piece in pieces for d in parser.feed(piece)] + parser.finish()
    text = "".join(d.text for d in deltas if isinstance(d, Text))
    thoughts = "".join(d.text for d in deltas if isinstance(d, Reasoning))
    begun = [d for d in deltas if isinstance(d, ToolBegin)]
    assert [d.index for d in begun] == list(range(len(begun)))
    assert len({d.id for d in begun}) == len(begun)
    arguments = [d for d in deltas if isinstance(d, ToolArguments)]
    assert all(d.text for d in deltas if not isinstance(d, ToolBegin))
    calls = [(b.name, "".join(a.text for a in arguments if a.index == b.index)) for b in begun]
    return [text, thoughts, calls]


F = '{"name": "f", "arguments": {"a": "}{"}}'
CALL = ("f", '{"a": "}{"}')

READ = [
    # (format, written, text, calls)
    (HERMES, "", "", []),
    (HERMES, " \n", " \n", []),
    (HERMES, "hello <b>you</b>", "hello <b>you</b>", []),
    (HERMES, f"<tool_call>{F}</tool_call>", "", [CALL]),
    (HERMES, f"\n\n<tool_call>\n{F}\n</tool_call>\n<tool_call>\n{F}\n</tool_call>\n", "", [CALL, CALL]),
    (HERMES, f"Let me look. <tool_call>{F}</tool_call> Done.", "Let me look.  Done.", [CALL]),
    (HERMES, f"<tool_call>[{F}, {F}]</tool_call>", "", [CALL, CALL]),
    (HERMES, "<tool_call>[]</tool_call>", "", []),
    (HERMES, f"<tool_call>{F}\n{F}</tool_call>", "", [CALL, CALL]),
    (HERMES, f"<tool_call>{F}", "", [CALL]),
    (HERMES, '<tool_call>{"arguments": {"é": 1.5}, "name": "f"}</tool_call>', "", [("f", '{"é": 1.5}')]),
    (HERMES, '<tool_call>{"name": "f"}</tool_call>', "", [("f", "{}")]),
    (HERMES, '<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}</tool_call>', "", [("f", '{"a": 1}')]),
    # cut off in the middle of arguments that had begun
    (HERMES, '<tool_call>{"name": "f", "arguments": {"a": [1', "", [("f", '{"a": [1')]),
    # no longer JSON once begun: as written
    (HERMES, '<tool_call>{"name": "f", "arguments": {oops}}</tool_call>.', ".", [("f", "{oops}}")]),
    # no calls
    (HERMES, "a < b <tool <tool_call", "a < b <tool <tool_call", []),
    (HERMES, "<tool_call>no</tool_call>", "<tool_call>no</tool_call>", []),
    (HERMES, '<tool_call>{"name": "g", "arguments": {}}', '<tool_call>{"name": "g", "arguments": {}}', []),
    (HERMES, '<tool_call>{"name": "f", "arguments": 3}', '<tool_call>{"name": "f", "arguments": 3}', []),
    (HERMES, '<tool_call>{"name": "f", "x": 3}', '<tool_call>{"name": "f", "x": 3}', []),
    (HERMES, '<tool_call>{"name": "f"', '<tool_call>{"name": "f"', []),
    (HERMES, f"<tool_call><tool_call>{F}</tool_call>", "<tool_call>", [CALL]),
    (LLAMA, '{"name": "f", "parameters": {"a": "}{"}}', "", [CALL]),
    (LLAMA, '<|python_tag|>{"name": "f", "parameters": {"a": "}{"}}', "", [CALL]),
    (LLAMA, f"{F}; {F}", "", [CALL, CALL]),
    (LLAMA, '{"type": "function", "name": "f", "parameters": {}}', "", [("f", "{}")]),
    (LLAMA, '{"answer": {"name": "f"}}', '{"answer": {"name": "f"}}', []),
    (LLAMA, "Use {} and ;", "Use {} and ;", []),
    (MISTRAL, f"[TOOL_CALLS][{F}, {F}]", "", [CALL, CALL]),
    (MISTRAL, f"[TOOL_CALLS] [{F}]", "", [CALL]),
    (MISTRAL, f"[{F}]", "", [CALL]),
    (MISTRAL, '[TOOL_CALLS]f[ARGS]{"a": "}{"}[TOOL_CALLS]get_weather{}', "", [CALL, ("get_weather", "{}")]),
    (MISTRAL, '[TOOL_CALLS]f[CALL_ID]abc123456[ARGS]{"a": "}{"}', "", [CALL]),
    (MISTRAL, "[TOOL_CALLS]g[ARGS]{}", "[TOOL_CALLS]g[ARGS]{}", []),
    (MISTRAL, "[1, 2]", "[1, 2]", []),
    (MISTRAL, f"[{F}, 3]", ", 3]", [CALL]),
]


@pytest.mark.parametrize(("format", "written", "text", "calls"), READ)
def test_reads_and_every_cut_reads_the_same(format, written, text, calls):
    assert read([written], format) == [text, "", calls]
    assert read(list(written), format) == [text, "", calls]
    for at in range(len(written)):
        assert read([written[:at], written[at:]], format) == [text, "", calls]


PARTS = ["<tool_call>", "</tool_call>", "[TOOL_CALLS]", "[ARGS]", "<|python_tag|>", F, '{"name": "f", "arguments": {']
PARTS += [
    '"a": [1, true, null]',
    "}",
    "{",
    "[",
    "]",
    ",",
    '"',
    "\\",
    "f",
    "; ",
    "\n",
    " ",
    "x",
    "<",
    "<think>",
    "</think>",
]


@hypothesis.settings(max_examples=300, deadline=None)
@hypothesis.given(
    st.lists(st.sampled_from(PARTS), max_size=12), st.data(), st.sampled_from([HERMES, LLAMA, MISTRAL]), st.booleans()
)
def test_any_text_in_any_pieces(parts, data, format, thinks):
    written = "".join(parts)
    thinking = Thinking(begins=data.draw(st.sampled_from(Begins))) if thinks else None
    cuts = sorted(data.draw(st.lists(st.integers(0, len(written)), max_size=8)))
    pieces = [written[a:b] for a, b in itertools.pairwise([0, *cuts, len(written)])]
    assert read(pieces, format, thinking) == read([written], format, thinking)


@hypothesis.settings(max_examples=200, deadline=None)
@hypothesis.given(st.text(alphabet='ab <>{}[]",:', max_size=30), st.sampled_from([HERMES, LLAMA, MISTRAL]))
def test_what_is_no_call_is_given_back_whole(written, format):
    assert read(list(written), format) == [written, "", []]


def fed(parser, text):
    return [parser.feed(char) for char in text]


def test_text_waits_only_while_it_may_become_a_sign():
    parser = prompt_tools(TOOLS).parser()
    assert fed(parser, "a <to") == [[Text("a")], [Text(" ")], [], [], []]
    assert parser.feed("p") == [Text("<top")]


def test_arguments_are_handed_on_as_they_come():
    parser = prompt_tools(TOOLS).parser()
    assert parser.feed('<tool_call>{"name": "f", "arguments": ') == []
    begin, first = parser.feed("{")
    assert (begin.name, first) == ("f", ToolArguments(0, "{"))
    assert parser.feed('"a": ') == [ToolArguments(0, '"a": ')]
    assert parser.feed("1}") == [ToolArguments(0, "1}")]
    assert parser.feed("}</tool_call>") == parser.finish() == []


def test_an_object_that_is_no_call_is_given_back_at_once():
    assert prompt_tools(TOOLS, format=LLAMA).parser().feed('{"answer"') == [Text('{"answer"')]


def test_ids_are_as_the_format_wants_them():
    [begin, _] = prompt_tools(TOOLS, format=MISTRAL).parser().feed(f"[{F}]")
    assert len(begin.id) == 9
    assert begin.id.isalnum()
    [begin, _] = prompt_tools(TOOLS).parser().feed(f"<tool_call>{F}")
    assert begin.id.startswith("call_")


def test_without_tools_markup_is_text():
    written = f"<tool_call>{F}</tool_call>"
    assert prompt_tools(None).parser().feed(written) == [Text(written)]
