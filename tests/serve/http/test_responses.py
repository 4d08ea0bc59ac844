import json

import openai
import pydantic
import pytest
from openai.types.responses import (
    Response,
    ResponseFunctionToolCall,
    ResponseOutputMessage,
    ResponseReasoningItem,
    ResponseStreamEvent,
)

from cupola.interop.template import ChatTemplate
from cupola.serve.errors import Unavailable
from cupola.serve.http.guard import Caller, Open
from cupola.serve.request import GrammarKind

SAYS = "the bell is cast"
TOOL = {
    "type": "function",
    "name": "melt",
    "parameters": {"type": "object", "properties": {"iron": {"type": "integer"}}},
}
CALL = '<tool_call>\n{"name": "melt", "arguments": {"iron": 3}}\n</tool_call>'
THINKS = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: <think>\n{# </think> #}"
EVENTS = pydantic.TypeAdapter(ResponseStreamEvent)


@pytest.fixture
def ask(server):
    """Asks the official client and checks that what comes is what its types say."""

    def asked(input="hello", client=None, **more):
        made = (client or server.client()).responses.create(model="bell", input=input, **more)
        if not more.get("stream"):
            Response.model_validate(made.to_dict(), strict=True)
        return made

    return asked


def prompt_of(engine, tokenizer):
    return tokenizer.decode(list(engine.seen[-1].prompt))


def test_a_whole_response(ask, engine, tokenizer):
    answer = ask(instructions="Be brief.", metadata={"a": "b"}, temperature=0.5, max_output_tokens=40)
    assert answer.output_text == SAYS
    assert answer.status == "completed"
    assert answer.id.startswith("resp_")
    [message] = answer.output
    assert isinstance(message, ResponseOutputMessage)
    assert (message.status, message.role) == ("completed", "assistant")
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
    assert answer.usage.input_tokens_details.cached_tokens == 1
    assert (answer.temperature, answer.metadata, answer.instructions) == (0.5, {"a": "b"}, "Be brief.")
    assert prompt_of(engine, tokenizer) == "system: Be brief.\nuser: hello\nassistant:"
    assert (engine.seen[0].sampling.temperature, engine.seen[0].limit_tokens) == (0.5, 40)


def test_a_stream_of_events(ask):
    events = list(ask(stream=True))
    for event in events:
        EVENTS.validate_python(event.to_dict())
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == SAYS
    assert [kind for kind in kinds if kind != "response.output_text.delta"] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert events[0].response.status == "in_progress"
    assert events[-1].response.output_text == SAYS
    assert len({event.response.id for event in events if hasattr(event, "response")}) == 1


def test_the_bytes_of_a_stream(server):
    body = {"model": "bell", "input": "hello", "stream": True}
    response = server.post("/v1/responses", body)
    assert response.headers["content-type"].startswith("text/event-stream")
    blocks = response.content.decode().split("\n\n")
    assert blocks.pop() == ""
    for block in blocks:
        name, data = block.split("\n")
        assert name == f"event: {json.loads(data.removeprefix('data: '))['type']}"
    assert "[DONE]" not in response.text


def test_the_helper_of_the_client_follows_the_stream(server, engine):
    engine.says = f"Wait. {CALL}"
    with server.client().responses.stream(model="bell", input="hello", tools=[TOOL]) as stream:
        seen = [event.type for event in stream]
        final = stream.get_final_response()
    assert "response.function_call_arguments.delta" in seen
    assert final.output[-1].arguments == '{"iron": 3}'


def test_a_call_of_a_tool_and_its_result(ask, engine, tokenizer):
    engine.says = CALL
    first = ask(tools=[TOOL])
    [call] = first.output
    assert isinstance(call, ResponseFunctionToolCall)
    assert (call.name, json.loads(call.arguments), call.status) == ("melt", {"iron": 3}, "completed")
    assert engine.seen[0].grammar is None
    engine.says = SAYS
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "molten"}
    ask([result], previous_response_id=first.id, tools=[TOOL])
    prompt = prompt_of(engine, tokenizer)
    assert f"assistant: {CALL}" in prompt
    assert "user: <tool_response>\nmolten\n</tool_response>" in prompt


@pytest.mark.parametrize(
    "choice",
    [
        "required",
        {"type": "function", "name": "melt"},
        {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "melt"}]},
    ],
)
def test_a_forced_call_has_a_grammar(ask, engine, choice):
    ask(tools=[TOOL, {"type": "function", "name": "cast"}], tool_choice=choice)
    grammar = engine.seen[0].grammar
    assert grammar.kind is GrammarKind.LARK
    assert ("cast" in grammar.text) is (choice == "required")


def test_thoughts_are_items_of_their_own(run, served, engine, tokenizer):
    engine.says = f"hm\n</think>\n{SAYS}"
    server = run(served(template=ChatTemplate(THINKS)))
    client = server.client()
    events = list(client.responses.create(model="bell", input="hello", stream=True))
    for event in events:
        EVENTS.validate_python(event.to_dict())
    thoughts, message = events[-1].response.output
    assert isinstance(thoughts, ResponseReasoningItem)
    assert thoughts.content[0].text == "hm"
    assert message.content[0].text == SAYS
    assert "".join(e.delta for e in events if e.type == "response.reasoning_text.delta") == "hm"
    assert events[-1].response.usage.output_tokens_details.reasoning_tokens > 0
    client.responses.create(model="bell", input="more", previous_response_id=events[-1].response.id)
    assert "hm" not in prompt_of(engine, tokenizer)  # this template leaves earlier thoughts out


def test_the_limit_makes_it_incomplete(ask):
    answer = ask(max_output_tokens=2)
    assert answer.status == "incomplete"
    assert answer.incomplete_details.reason == "max_output_tokens"
    assert answer.output[0].status == "incomplete"
    assert [e.type for e in ask(max_output_tokens=2, stream=True)][-1] == "response.incomplete"


def test_a_conversation_goes_on(ask, engine, tokenizer):
    first = ask("one", instructions="Be brief.")
    second = ask("two", previous_response_id=first.id)
    ask("three", previous_response_id=second.id)
    said = f"user: one\nassistant: {SAYS}\nuser: two\nassistant: {SAYS}\nuser: three\nassistant:"
    assert prompt_of(engine, tokenizer) == said  # instructions are of one response only


def test_items_given_back_say_the_same(ask, engine, tokenizer):
    first = ask("one")
    by_id = ask("two", previous_response_id=first.id) and prompt_of(engine, tokenizer)
    ask(
        [
            {"role": "user", "content": "one"},
            *(item.to_dict() for item in first.output),
            {"role": "user", "content": "two"},
        ]
    )
    assert prompt_of(engine, tokenizer) == by_id


def test_responses_are_kept_until_deleted(ask, server):
    client = server.client()
    answer = ask()
    assert client.responses.retrieve(answer.id).to_dict() == answer.to_dict()
    with pytest.raises(openai.BadRequestError, match="has ended"):
        client.responses.cancel(answer.id)
    client.responses.delete(answer.id)
    for gone in (client.responses.retrieve, client.responses.delete, client.responses.cancel):
        with pytest.raises(openai.NotFoundError):
            gone(answer.id)


def test_store_false_keeps_nothing(ask, server):
    answer = ask(store=False)
    with pytest.raises(openai.NotFoundError):
        server.client().responses.retrieve(answer.id)


def test_input_items_are_listed_in_pages(ask, server):
    first = ask("one")
    second = ask("two", previous_response_id=first.id)
    listed = server.client().responses.input_items.list
    assert [item.content[0].text for item in listed(second.id, order="asc")] == ["one", SAYS, "two"]
    assert [item.content[0].text for item in listed(second.id, limit=1)] == ["two", SAYS, "one"]
    with pytest.raises(openai.BadRequestError, match="limit"):
        listed(second.id, limit=101)


class Named(Open):
    """Lets everyone in under the name of their key."""

    async def authenticate(self, credentials):
        return Caller(credentials, credentials)


def test_responses_of_others_do_not_exist(run, ask):
    server = run(guard=Named())
    mine, theirs = server.client("ann"), server.client("bob")
    answer = ask(client=mine)
    assert mine.responses.retrieve(answer.id).id == answer.id
    for gone in (theirs.responses.retrieve, theirs.responses.delete, theirs.responses.input_items.list):
        with pytest.raises(openai.NotFoundError, match="there is no response"):
            gone(answer.id)
    with pytest.raises(openai.NotFoundError, match="there is no response"):
        ask(client=theirs, previous_response_id=answer.id)
    assert mine.responses.retrieve(answer.id).id == answer.id


def test_a_format_becomes_a_grammar(ask, engine):
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    answer = ask(text={"format": {"type": "json_schema", "name": "x", "schema": schema, "strict": True}})
    assert engine.seen[0].grammar.kind is GrammarKind.JSON_SCHEMA
    assert json.loads(engine.seen[0].grammar.text) == schema
    assert answer.text.format.schema_ == schema


def test_logprobs_come_with_the_text(ask):
    answer = ask(include=["message.output_text.logprobs"], top_logprobs=2)
    tokens = answer.output[0].content[0].logprobs
    assert b"".join(bytes(token.bytes) for token in tokens) == SAYS.encode()
    assert {len(token.top_logprobs) for token in tokens} == {2}


def test_the_oldest_turns_give_way_where_asked(ask, engine, tokenizer):
    items = [{"role": "user", "content": f"number {n} " + "iron " * 60} for n in range(8)]
    with pytest.raises(openai.BadRequestError, match="holds 1024 tokens"):
        ask(items, max_output_tokens=20)
    ask(items, truncation="auto", instructions="Be brief.", max_output_tokens=20)
    prompt = prompt_of(engine, tokenizer)
    assert prompt.startswith("system: Be brief.\nuser: number ")
    assert "number 7" in prompt
    assert "number 0" not in prompt
    assert len(engine.seen[-1].prompt) <= 1024 - 20


def test_a_failure_in_the_middle_is_the_last_event(ask, engine, server):
    engine.failure = Unavailable("the engine has failed", remedy="Wait.")
    events = list(ask(stream=True))
    assert events[-1].type == "response.failed"
    assert events[-1].response.error.message == "the engine has failed\nWait."
    EVENTS.validate_python(events[-1].to_dict())
    with pytest.raises(openai.InternalServerError, match="the engine has failed"):
        ask()


USER = {"role": "user", "content": "hello"}
REFUSED = [
    ({"input": []}, "input", "no input"),
    ({"input": [3]}, "input[0]", "not an object"),
    ({"input": [USER, {"type": "web_search_call"}]}, "input[1].type", "web_search_call"),
    ({"input": [{"role": "robot", "content": ""}]}, "input[0].role", "robot"),
    ({"input": [{"role": "user"}]}, "input[0].content", "neither"),
    ({"input": [{**USER, "colour": 1}]}, "input[0].colour", "no field"),
    ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0]", "input_image"),
    ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0].text", "missing"),
    ({"input": [{"type": "function_call", "name": "f"}]}, "input[0].call_id", "call_id"),
    ({"input": [{"type": "function_call_output", "call_id": "x", "output": "y"}]}, "input[0].call_id", "no call"),
    ({"input": [{"type": "reasoning", "content": 3}]}, "input[0].content", "no list"),
    ({"tools": [{"type": "web_search"}]}, "tools[0].type", "web_search"),
    ({"tools": [TOOL, TOOL]}, "tools[1].name", "melt"),
    (
        {"tools": [TOOL], "tool_choice": {"type": "function", "name": "melts"}},
        "tool_choice.name",
        "Did you mean 'melt'",
    ),
    ({"tool_choice": "required"}, "tool_choice", "no tools"),
    ({"include": ["reasoning.encrypted_content"]}, "include[0]", "encrypted_content"),
    ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema", "missing"),
    ({"previous_response_id": "resp_x"}, "previous_response_id", "no response"),
    ({"background": True}, "background", "in the background"),
    ({"conversation": "x"}, "conversation", "previous_response_id"),
    ({"max_output_tokens": 0}, "max_output_tokens", "leaves no answer"),
    ({"metadata": {str(n): "" for n in range(17)}}, "metadata", "17"),
    ({"stream_options": {}}, "stream_options", "no stream"),
    ({"colour": 1}, "colour", "no field"),
]


@pytest.mark.parametrize(("fields", "where", "says"), REFUSED, ids=[where for _, where, _ in REFUSED])
def test_bad_input_is_refused_by_its_place(server, engine, fields, where, says):
    response = server.post("/v1/responses", {"model": "bell", "input": "hello"} | fields)
    assert response.status_code in (400, 404)
    error = response.json()["error"]
    assert (error["param"], says in error["message"]) == (where, True), error
    assert engine.seen == []
