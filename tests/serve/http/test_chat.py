import json

import openai
import pytest

from cupola.serve.request import GrammarKind

HELLO = [{"role": "user", "content": "hello"}]
SAYS = "the bell is cast"


def test_the_official_client_gets_a_whole_answer(server):
    answer = server.client().chat.completions.create(model="bell", messages=HELLO, logprobs=True, top_logprobs=2)
    assert answer.choices[0].message.content == SAYS
    assert answer.choices[0].finish_reason == "stop"
    assert answer.object == "chat.completion"
    assert answer.id.startswith("chatcmpl-")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.prompt_tokens_details.cached_tokens == 1
    tokens = answer.choices[0].logprobs.content
    assert b"".join(bytes(token.bytes) for token in tokens) == SAYS.encode()
    assert [len(token.top_logprobs) for token in tokens] == [2] * len(tokens)
    assert tokens[0].logprob == -0.5


def test_the_official_client_gets_a_stream(server):
    stream = server.client().chat.completions.create(
        model="bell", messages=HELLO, n=3, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens % 3 == 0
    for index in range(3):
        mine = [c.choices[0] for c in chunks if c.choices and c.choices[0].index == index]
        assert mine[0].delta.role == "assistant"
        assert [c.delta.role for c in mine[1:]] == [None] * len(mine[1:])
        assert "".join(c.delta.content or "" for c in mine) == SAYS
        assert [c.finish_reason for c in mine] == [None] * (len(mine) - 1) + ["stop"]


def test_choices_of_a_stream_interleave(server, engine):
    engine.seconds_per_token = 0.01
    chunks = list(server.client().chat.completions.create(model="bell", messages=HELLO, n=2, stream=True))
    order = [c.choices[0].index for c in chunks if c.choices and c.choices[0].delta.content]
    assert order != sorted(order)


async def _async(url):
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        whole = await client.chat.completions.create(model="bell", messages=HELLO)
        parts = [c async for c in await client.chat.completions.create(model="bell", messages=HELLO, stream=True)]
    return whole.choices[0].message.content, "".join(c.choices[0].delta.content or "" for c in parts)


def test_the_async_client(server):
    import asyncio

    assert asyncio.run(_async(server.url)) == (SAYS, SAYS)


def test_a_stream_byte_for_byte(server, events):
    body = {"model": "bell", "messages": HELLO, "stream": True}
    response = server.post("/v1/chat/completions", body)
    assert response.headers["content-type"].startswith("text/event-stream")
    data = events(response)
    assert data[-1] == "[DONE]"
    assert data.count("[DONE]") == 1
    assert data[0]["choices"][0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
    assert data[-2]["choices"][0] == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}
    assert not any("usage" in chunk for chunk in data[:-1])


def test_what_the_engine_is_asked(server, engine):
    server.client().chat.completions.create(
        model="bell",
        messages=[{"role": "developer", "content": [{"type": "text", "text": "be"}, {"type": "text", "text": "kind"}]}],
        temperature=0,
        top_p=0,
        seed=5,
        n=2,
        stop=["x", "yy"],
        max_completion_tokens=7,
        presence_penalty=1,
        logit_bias={"65": -100},
        metadata={"a": "b"},
        user="me",
        store=True,
        extra_body={
            "top_k": 3,
            "min_p": 0.1,
            "repetition_penalty": 1.1,
            "cache_salt": "s",
            "priority": 2,
            "regex": "[a-z ]+",
            "stop_token_ids": [1],
        },
    )
    one, two = engine.seen
    assert engine.tokenizer.decode(one.prompt) == "system: be\nkind\nassistant:"
    assert (one.sampling.temperature, one.sampling.top_k, one.sampling.min_p) == (0.0, 3, 0.1)
    assert one.sampling.logit_bias == ((65, -100.0),)
    assert 0 < one.sampling.top_p < 1e-6
    assert (one.stop, one.stop_tokens, one.limit_tokens, one.priority) == (("x", "yy"), frozenset({1}), 7, 2)
    assert (one.sampling.seed, two.sampling.seed) == (5, 6)
    assert (one.grammar.kind, one.grammar.text) == (GrammarKind.REGEX, "[a-z ]+")
    assert one.namespace == two.namespace
    assert one.timeout_seconds == 600


def test_what_is_left_of_the_context_is_the_limit(server, engine):
    server.client().chat.completions.create(model="bell", messages=HELLO)
    assert engine.seen[0].limit_tokens == 1024 - len(engine.seen[0].prompt)


def test_the_salt_divides_the_cache(server, engine):
    for salt in (None, "a", "b", "a"):
        server.client().chat.completions.create(model="bell", messages=HELLO, extra_body={"cache_salt": salt})
    none, a, b, again = (request.namespace for request in engine.seen)
    assert len({none, a, b}) == 3
    assert a == again


@pytest.mark.parametrize(
    ("asked", "kind", "text"),
    [
        ({"response_format": {"type": "json_object"}}, GrammarKind.JSON_SCHEMA, '{"type": "object"}'),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "array"}}}},
            GrammarKind.JSON_SCHEMA,
            '{"type": "array"}',
        ),
        ({"choices": ["a", "b"]}, GrammarKind.CHOICE, '["a", "b"]'),
        ({"grammar": "start: /a/"}, GrammarKind.LARK, "start: /a/"),
    ],
)
def test_grammars(server, engine, asked, kind, text):
    assert server.post("/v1/chat/completions", {"model": "bell", "messages": HELLO, **asked}).status_code == 200
    assert (engine.seen[0].grammar.kind, engine.seen[0].grammar.text) == (kind, text)


TOOL = {
    "type": "function",
    "function": {"name": "ring", "parameters": {"type": "object", "properties": {"n": {"type": "integer"}}}},
}


@pytest.mark.parametrize("streamed", [False, True])
def test_a_call_of_a_tool(server, engine, streamed):
    engine.says = '<tool_call>{"name": "ring", "arguments": {"n": 3}}</tool_call>'
    answer = server.client().chat.completions.create(
        model="bell", messages=HELLO, tools=[TOOL], tool_choice="required", stream=streamed
    )
    assert engine.seen[0].grammar is not None
    if streamed:
        chunks = [chunk.choices[0] for chunk in answer]
        calls = [call for c in chunks for call in c.delta.tool_calls or []]
        assert [call.id is not None for call in calls] == [True] + [False] * (len(calls) - 1)
        assert {call.index for call in calls} == {0}
        name, arguments = calls[0].function.name, "".join(call.function.arguments or "" for call in calls)
        reasons = [c.finish_reason for c in chunks if c.finish_reason is not None]
    else:
        message = answer.choices[0].message
        assert message.content is None
        name, arguments = message.tool_calls[0].function.name, message.tool_calls[0].function.arguments
        reasons = [answer.choices[0].finish_reason]
    assert (name, json.loads(arguments), reasons) == ("ring", {"n": 3}, ["tool_calls"])


def test_a_conversation_with_a_call_goes_on(server, engine):
    call = {"id": "c1", "type": "function", "function": {"name": "ring", "arguments": '{"n": 3}'}}
    messages = [
        *HELLO,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "done"},
    ]
    server.client().chat.completions.create(model="bell", messages=messages, tools=[TOOL])
    assert "done" in engine.tokenizer.decode(engine.seen[0].prompt)


def test_a_stop_text_and_a_limit(server):
    create = server.client().chat.completions.create
    stopped = create(model="bell", messages=HELLO, stop=" is")
    assert (stopped.choices[0].message.content, stopped.choices[0].finish_reason) == ("the bell", "stop")
    assert create(model="bell", messages=HELLO, max_tokens=1).choices[0].finish_reason == "length"


def test_a_model_without_a_template_says_what_to_do(run, served):
    response = run(served(template=None)).post("/v1/chat/completions", {"model": "bell", "messages": HELLO})
    assert response.status_code == 400
    assert "/v1/completions" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("change", "param", "hint"),
    [
        ({"messages": []}, "messages", "one or more"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, "messages[0].content[0]", "reads text"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]}, "messages[0].content[0]", "sound"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "missing"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role", "wizard"),
        ({"messages": [{"role": "user", "contents": "x"}]}, "messages[0].contents", "'content'"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id", "which call"),
        ({"temprature": 1}, "temprature", "'temperature'"),
        ({"temperature": 3}, "temperature", "0 to 2"),
        ({"temperature": "hot"}, "temperature", "number"),
        ({"top_p": 2}, "top_p", "up to 1"),
        ({"frequency_penalty": 9}, "frequency_penalty", "-2 to 2"),
        ({"n": 0}, "n", "1 to"),
        ({"n": 10**18}, "n", "1 to"),
        ({"max_tokens": 0}, "max_tokens", "1 or more"),
        ({"max_tokens": -5}, "max_tokens", "negative"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens", "alone"),
        ({"top_logprobs": 2}, "top_logprobs", "logprobs: true"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "0 to 20"),
        ({"logit_bias": {"x": 1}}, "logit_bias", "no token"),
        ({"logit_bias": {"99999": 1}}, "logit_bias", "no token"),
        ({"logit_bias": {"1": 101}}, "logit_bias", "-100"),
        ({"stop": [""]}, "stop", "empty"),
        ({"stop": ["x"] * 17}, "stop", "up to 16"),
        ({"stop_token_ids": [-1]}, "stop_token_ids[0]", "no token"),
        ({"stream_options": {}}, "stream_options", "stream: true"),
        ({"stream": True, "stream_options": {"include_usages": True}}, "stream_options.include_usages", "'include_usage'"),
        ({"min_tokens": 3}, "min_tokens", "Leave"),
        ({"audio": {}}, "audio", "text"),
        ({"functions": []}, "functions", "tools"),
        ({"regex": "a", "choices": ["b"]}, "choices", "one of them"),
        ({"choices": []}, "choices", "nothing"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema", "missing"),
        ({"response_format": {"type": "yaml"}}, "response_format.type", "yaml"),
        ({"tools": [TOOL], "response_format": {"type": "json_object"}}, "tools", "tool_choice"),
        ({"tools": [{"type": "web"}]}, "tools[0].type", "web"),
        ({"tool_choice": "required"}, "tool_choice", ""),
        ({"priority": 1000}, "priority", "-100 to 100"),
        ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs", "Leave"),
    ],
)  # fmt: skip
def test_what_is_refused_is_named(server, engine, change, param, hint):
    response = server.post("/v1/chat/completions", {"model": "bell", "messages": HELLO, **change})
    error = response.json()["error"]
    assert (response.status_code, error["type"], error["param"]) == (400, "invalid_request_error", param), error
    assert hint in error["message"]
    assert not engine.seen


def test_what_does_not_fit_the_context(server):
    ask = {"model": "bell", "messages": [{"role": "user", "content": "bell " * 300}]}
    for body in (ask | {"max_tokens": 1000}, ask | {"messages": [{"role": "user", "content": "bell é" * 600}]}):
        with pytest.raises(openai.BadRequestError) as raised:
            server.client().chat.completions.create(**body)
        assert raised.value.code == "context_length_exceeded"
        assert "1024" in str(raised.value)


def test_an_unknown_model(server):
    with pytest.raises(openai.NotFoundError, match="Did you mean 'bell'") as raised:
        server.client().chat.completions.create(model="bel", messages=HELLO)
    assert (raised.value.code, raised.value.param) == ("model_not_found", "model")
