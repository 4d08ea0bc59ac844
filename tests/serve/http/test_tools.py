import json
import random

import jsonschema
import pytest
from llguidance import LLMatcher, LLTokenizer

from cupola.interop.template import ChatTemplate
from cupola.serve.errors import InvalidRequest
from cupola.serve.http.tools import (
    Choice,
    Shape,
    Text,
    ToolArguments,
    ToolBegin,
    ToolFormat,
    find_format,
    prompt_tools,
)

SCHEMA = {
    "type": "object",
    "properties": {"iron": {"type": "integer", "minimum": 0, "maximum": 99}, "hot": {"type": "boolean"}},
    "required": ["iron"],
}
TEMPLATES = {
    ToolFormat.HERMES: "{% if tools %}{{ tools }}{% endif %}<tool_call>",
    ToolFormat.LLAMA: "{% if tools %}{{ tools }}{% endif %}<|python_tag|>",
    ToolFormat.MISTRAL: "{% if tools %}{{ tools }}{% endif %}[TOOL_CALLS]",
}
FORMATS = pytest.mark.parametrize("format", TEMPLATES, ids=lambda format: format.value)


def tool(name="melt", shape=Shape.CHAT, **more):
    about = {"name": name, "parameters": SCHEMA} | more
    return {"type": "function", "function": about} if shape is Shape.CHAT else {"type": "function", **about}


def matcher(grammar):
    made = LLMatcher(LLTokenizer("byte"), LLMatcher.grammar_from_lark(grammar.text))
    assert not made.is_error(), made.get_error()
    return made


def accepts(grammar, text):
    made, data = matcher(grammar), text.encode()
    return made.try_consume_tokens(list(data)) == len(data) and made.is_accepting()


def written(grammar, seed):
    """A text that the grammar allows, drawn byte by byte."""
    draw, made, text = random.Random(seed), matcher(grammar), bytearray()
    while not (made.is_accepting() and (made.is_stopped() or draw.random() < 0.5)):
        mask = made.compute_bitmask()
        allowed = [byte for byte in range(256) if mask[byte // 8] >> (byte % 8) & 1]
        byte = draw.choice(allowed)
        assert made.consume_token(byte)
        text.append(byte)
    return text.decode()


def read(plan, text):
    parser = plan.parser()
    deltas = parser.feed(text) + parser.finish()
    names = [d.name for d in deltas if isinstance(d, ToolBegin)]
    arguments = ["" for _ in names]
    for delta in deltas:
        if isinstance(delta, ToolArguments):
            arguments[delta.index] += delta.text
    rest = "".join(d.text for d in deltas if isinstance(d, Text))
    return list(zip(names, map(json.loads, arguments), strict=True)), rest


@FORMATS
@pytest.mark.parametrize("limit", [None, 1, 2])
def test_whatever_a_forced_grammar_allows_is_calls(format, limit):
    plan = prompt_tools([tool(), tool("cast")], "required", template=TEMPLATES[format], limit_calls=limit)
    counts = set()
    for seed in range(12):
        calls, rest = read(plan, written(plan.grammar, seed))
        assert rest == ""
        assert 1 <= len(calls) <= (limit or 1000)
        counts.add(len(calls))
        for name, arguments in calls:
            assert name in ("melt", "cast")
            jsonschema.validate(arguments, SCHEMA)
    assert (len(counts) > 1) is (limit != 1 and format is not ToolFormat.LLAMA)


@FORMATS
def test_a_strict_tool_is_held_to_its_schema_in_any_text(format):
    key = "parameters" if format is ToolFormat.LLAMA else "arguments"

    def message(arguments):
        call = json.dumps({"name": "melt", key: arguments})
        return {
            ToolFormat.HERMES: f"Well. <tool_call>\n{call}\n</tool_call>",
            ToolFormat.LLAMA: call,
            ToolFormat.MISTRAL: f"[{call}]",
        }[format]

    plan = prompt_tools([tool(strict=True)], template=TEMPLATES[format])
    assert accepts(plan.grammar, "No call, just <b>text</b>.")
    assert accepts(plan.grammar, message({"iron": 3}))
    assert not accepts(plan.grammar, message({"iron": "much"}))
    assert not accepts(plan.grammar, message({}))
    assert read(plan, message({"iron": 3}))[0] == [("melt", {"iron": 3})]


@FORMATS
def test_a_free_tool_beside_a_strict_one_stays_free(format):
    plan = prompt_tools([tool(strict=True), tool("cast")], template=TEMPLATES[format])
    key = "parameters" if format is ToolFormat.LLAMA else "arguments"
    call = json.dumps({"name": "cast", key: {"any": "thing"}})
    text = {ToolFormat.HERMES: f"<tool_call>\n{call}\n</tool_call>", ToolFormat.MISTRAL: f"[{call}]"}.get(format, call)
    assert accepts(plan.grammar, text)


def test_a_named_function_is_called_once_and_alone():
    plan = prompt_tools([tool(), tool("cast")], {"type": "function", "function": {"name": "cast"}})
    assert [t.name for t in plan.tools] == ["cast"]
    call = '<tool_call>\n{"name": "cast", "arguments": {"iron": 1}}\n</tool_call>'
    assert accepts(plan.grammar, call)
    assert not accepts(plan.grammar, f"{call}\n{call}")


def test_none_hides_the_tools():
    plan = prompt_tools([tool()], "none", template=TEMPLATES[ToolFormat.HERMES])
    assert (plan.tools, plan.template_tools, plan.grammar) == ((), [], None)


def test_without_tools_nothing_changes():
    plan = prompt_tools(None)
    messages = [{"role": "user", "content": "hello"}]
    assert (plan.choice, plan.grammar, plan.messages(messages)) == (Choice.AUTO, None, messages)


def test_allowed_tools_narrow_the_choice():
    inner = {"mode": "auto", "tools": [{"type": "function", "function": {"name": "cast"}}]}
    plan = prompt_tools([tool(), tool("cast")], {"type": "allowed_tools", "allowed_tools": inner})
    assert ([t.name for t in plan.tools], plan.choice) == (["cast"], Choice.AUTO)


@pytest.mark.parametrize(
    ("template", "format"),
    [
        (TEMPLATES[ToolFormat.HERMES], ToolFormat.HERMES),
        (TEMPLATES[ToolFormat.LLAMA], ToolFormat.LLAMA),
        (TEMPLATES[ToolFormat.MISTRAL], ToolFormat.MISTRAL),
        ('{{ tools }}{"name": name, "parameters": {}}', ToolFormat.LLAMA),
        ("{{ tools }}<tool_call><function=name>", None),
        ("{{ messages }}<tool_call>", None),
        (None, None),
    ],
)
def test_a_template_shows_its_format(template, format):
    assert find_format(template) is format


CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Melt it."},
    {
        "role": "assistant",
        "content": "Sure.",
        "tool_calls": [{"id": "a", "type": "function", "function": {"name": "melt", "arguments": '{"iron": 3}'}}],
    },
    {"role": "tool", "tool_call_id": "a", "content": "done"},
    {"role": "tool", "tool_call_id": "b", "content": [{"type": "text", "text": "done, too"}]},
]


def test_a_template_that_knows_tools_gets_them_as_data():
    plan = prompt_tools([tool()], template=TEMPLATES[ToolFormat.HERMES])
    assert plan.template_tools == [{"type": "function", "function": {"name": "melt", "parameters": SCHEMA}}]
    messages = plan.messages(CONVERSATION)
    assert messages[2]["tool_calls"][0]["function"]["arguments"] == {"iron": 3}
    assert messages[3:] == CONVERSATION[3:]
    assert CONVERSATION[2]["tool_calls"][0]["function"]["arguments"] == '{"iron": 3}'


def test_a_template_that_knows_none_gets_words():
    template = ChatTemplate("{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}")
    plan = prompt_tools([tool(description="Melts iron.")], template=template.source)
    assert plan.template_tools == []
    system, _, assistant, result = plan.messages(CONVERSATION)
    assert system["content"].startswith("Be brief.\n\n")
    assert "Melts iron." in system["content"]
    assert '"iron"' in system["content"]
    assert assistant["content"] == 'Sure.\n<tool_call>\n{"name": "melt", "arguments": {"iron": 3}}\n</tool_call>'
    assert result["role"] == "user"
    assert result["content"].count("<tool_response>") == 2
    assert "done, too" in template.render(plan.messages(CONVERSATION))


def test_arguments_that_are_no_json_stay_as_they_were():
    call = {"id": "a", "type": "function", "function": {"name": "melt", "arguments": "oops"}}
    for template in (None, TEMPLATES[ToolFormat.HERMES]):
        [message] = prompt_tools(None, template=template).messages([{"role": "assistant", "tool_calls": [call]}])
        assert "oops" in str(message)


CHAT, RESPONSES = Shape.CHAT, Shape.RESPONSES
REFUSED = [
    (CHAT, "melt", None, "tools", "not a list"),
    (CHAT, [tool(f"f{n}") for n in range(129)], None, "tools", "129"),
    (CHAT, [3], None, "tools[0]", "not an object"),
    (CHAT, [tool(), {"type": "retrieval"}], None, "tools[1].type", "retrieval"),
    (CHAT, [{"type": "function"}], None, "tools[0].function", "missing"),
    (CHAT, [{"type": "function", "function": {}}], None, "tools[0].function.name", "no name"),
    (CHAT, [tool("a b")], None, "tools[0].function.name", "a b"),
    (CHAT, [tool("x" * 65)], None, "tools[0].function.name", "no name of a function"),
    (CHAT, [tool(), tool()], None, "tools[1].function.name", "two tools"),
    (CHAT, [tool(description=3)], None, "tools[0].function.description", "string"),
    (CHAT, [tool(strict="yes")], None, "tools[0].function.strict", "true or false"),
    (CHAT, [tool(colour=1)], None, "tools[0].function.colour", "no field"),
    (CHAT, [tool() | {"colour": 1}], None, "tools[0].colour", "no field"),
    (CHAT, [tool(parameters=[])], None, "tools[0].function.parameters", "not an object"),
    (CHAT, [tool(parameters={"type": "array"})], None, "tools[0].function.parameters.type", "array"),
    (CHAT, [tool(parameters={"properties": []})], None, "tools[0].function.parameters.properties", "an object"),
    (CHAT, [tool(parameters={"required": "a"})], None, "tools[0].function.parameters.required", "a list"),
    (CHAT, [tool(), tool("b", parameters={"properties": {"a": {"type": "irn"}}}, strict=True)], None,
     "tools[1].function.parameters", "irn"),
    (CHAT, [tool("b", parameters={"properties": {"a": {"not": {}}}})], "required", "tools[0].function.parameters", "not"),
    (CHAT, [tool()], "always", "tool_choice", "always"),
    (CHAT, None, "required", "tool_choice", "no tools"),
    (CHAT, [tool()], {"type": "function", "function": {"name": "melts"}}, "tool_choice.function.name", "'melt'"),
    (CHAT, [tool()], {"type": "file_search"}, "tool_choice", "file_search"),
    (CHAT, [tool()], {"type": "allowed_tools", "allowed_tools": {"tools": []}}, "tool_choice.allowed_tools.tools", "missing"),
    (RESPONSES, [tool(shape=RESPONSES), {"type": "mcp"}], None, "tools[1].type", "mcp"),
    (RESPONSES, [tool("a b", RESPONSES)], None, "tools[0].name", "a b"),
    (RESPONSES, [tool(shape=RESPONSES)], {"type": "function", "name": "x"}, "tool_choice.name", "x"),
    (RESPONSES, [tool(shape=RESPONSES)], {"type": "allowed_tools", "mode": "often", "tools": [tool(shape=RESPONSES)]},
     "tool_choice.mode", "often"),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "tools", "choice", "where", "says"), REFUSED, ids=[case[3] for case in REFUSED])
def test_bad_tools_are_refused_by_their_place(shape, tools, choice, where, says):
    with pytest.raises(InvalidRequest) as caught:
        prompt_tools(tools, choice, shape=shape)
    assert caught.value.where == where
    assert says in str(caught.value)


def test_a_schema_that_no_grammar_can_hold_is_fine_where_nothing_is_forced():
    plan = prompt_tools([tool(parameters={"properties": {"a": {"not": {}}}})])
    assert plan.grammar is None
