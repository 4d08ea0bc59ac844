import openai
import pytest

SAYS = "the bell is cast"
PROMPT = "the bell"


def test_the_official_client(server, engine):
    answer = server.client().completions.create(model="bell", prompt=PROMPT, max_tokens=100)
    assert (answer.choices[0].text, answer.choices[0].finish_reason, answer.object) == (SAYS, "stop", "text_completion")
    assert engine.seen[0].limit_tokens == 100


def test_the_usual_limit_is_sixteen(server, engine):
    server.client().completions.create(model="bell", prompt=PROMPT)
    assert engine.seen[0].limit_tokens == 16


def test_a_stream(server, events):
    body = {"model": "bell", "prompt": [PROMPT, "iron"], "n": 2, "max_tokens": 50, "stream": True, "echo": True}
    data = events(server.post("/v1/completions", body | {"stream_options": {"include_usage": True}}))
    assert data.pop() == "[DONE]"
    assert data.pop()["choices"] == []
    for index in range(4):
        mine = [c["choices"][0] for c in data if c["choices"][0]["index"] == index]
        assert "".join(c["text"] for c in mine) == (PROMPT, "iron")[index // 2] + SAYS
        assert [c["finish_reason"] for c in mine] == [None] * (len(mine) - 1) + ["stop"]


def test_prompts_of_every_kind(server, engine, tokenizer):
    one, two = tokenizer.encode(PROMPT).tolist(), tokenizer.encode("iron").tolist()
    for prompt, count in ((PROMPT, 1), ([PROMPT, "iron"], 2), (one, 1), ([one, two], 2)):
        engine.seen.clear()
        answer = server.client().completions.create(model="bell", prompt=prompt, n=2)
        assert [choice.index for choice in answer.choices] == list(range(2 * count))
        assert {request.prompt for request in engine.seen} == {tuple(one), tuple(two)} if count == 2 else {tuple(one)}
        assert answer.usage.prompt_tokens == len(one) + (len(two) if count == 2 else 0)


@pytest.mark.parametrize("max_tokens", [0, 1])
def test_echo_with_logprobs_as_evaluators_ask(server, tokenizer, max_tokens):
    ids = tokenizer.encode("naïve").tolist()
    answer = server.client().completions.create(
        model="bell", prompt=[ids], echo=True, logprobs=2, max_tokens=max_tokens, temperature=0
    )
    choice = answer.choices[0]
    logprobs = choice.logprobs
    assert choice.text.startswith("naïve")
    assert choice.finish_reason == "length"
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(ids) + max_tokens
    assert logprobs.token_logprobs == [None] + [-0.5] * (len(ids) - 1 + max_tokens)
    assert logprobs.top_logprobs[0] is None
    assert max(logprobs.top_logprobs[1].values()) == -0.5
    assert logprobs.text_offset[0] == 0
    assert logprobs.text_offset[2] == 2
    # "ï" is two tokens here: the second adds the character, and neither is one by itself.
    assert logprobs.tokens[2:4] == ["bytes:\\xc3", "bytes:\\xaf"]
    assert logprobs.text_offset[2:5] == [2, 2, 3]


def test_without_echo_the_offsets_begin_with_the_answer(server):
    logprobs = (
        server.client().completions.create(model="bell", prompt=PROMPT, logprobs=0, max_tokens=40).choices[0].logprobs
    )
    assert logprobs.text_offset[0] == 0
    assert logprobs.top_logprobs is None
    assert "".join(logprobs.tokens) == SAYS


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"suffix": "x"}, "suffix"),
        ({"best_of": 3}, "best_of"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": [[]]}, "prompt[0]"),
        ({"prompt": [1, "a"]}, "prompt[0]"),
        ({"prompt": [[10**6]]}, "prompt[0][0]"),
        ({"prompt": None}, "prompt"),
        ({"prompt": {"a": 1}}, "prompt"),
        ({"logprobs": 99}, "logprobs"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 10**9}, "max_tokens"),
        ({"stream": True, "echo": True, "logprobs": 1}, "stream"),
        ({"messages": []}, "messages"),
        ({"n": 100, "prompt": ["a"] * 100}, "n"),
    ],
)
def test_what_is_refused_is_named(server, engine, change, param):
    response = server.post("/v1/completions", {"model": "bell", "prompt": PROMPT, **change})
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)
    assert not engine.seen


def test_too_many_prompts(server):
    with pytest.raises(openai.APIStatusError) as raised:
        server.client().completions.create(model="bell", prompt=["a"] * 3000)
    assert raised.value.status_code == 413
