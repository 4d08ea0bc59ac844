import json

import httpx2
import pytest

from cupola.core.errors import ConfigError
from cupola.serve.errors import Busy, ContextOverflow, Unauthorized
from cupola.serve.program import (
    Api,
    BackendError,
    Dialect,
    Endpoint,
    Method,
    ProgramError,
    assistant,
    gen,
    program,
    select,
    user,
)
from cupola.serve.program import wire as wires


class Server:
    """Answers with the next of `texts`; cuts at stops as a server does, and remembers bodies."""

    def __init__(self):
        self.texts, self.bodies, self.failures, self.broken = [], [], [], False

    def __call__(self, request):
        body = json.loads(request.content)
        if self.failures:
            status, error, headers = self.failures.pop(0)
            return httpx2.Response(status, json={"error": error}, headers=headers)
        self.bodies.append(body | {"path": request.url.path, "key": request.headers.get("authorization")})
        if body.get("echo"):
            return self.scores(body["prompt"])
        text, reason = self.texts.pop(0), "stop"
        text = text[: min([text.find(s) for s in body.get("stop", []) if s in text], default=len(text))]
        return self.streamed(body, text, reason) if body.get("stream") else self.whole(body, text, reason)

    def whole(self, body, text, reason):
        said = {"message": {"content": text}} if "messages" in body else {"text": text}
        return httpx2.Response(
            200, json={"choices": [{**said, "finish_reason": reason}], "usage": {"prompt_tokens": 3}}
        )

    def streamed(self, body, text, reason):
        chunks = [{"delta": {"role": "assistant"}}] if "messages" in body else []
        chunks += [{"delta": {"content": c}} if "messages" in body else {"text": c} for c in text]
        events = [{"choices": [c]} for c in chunks] + [{"choices": [{"finish_reason": reason}]}]
        events.append({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": len(text)}})
        data = "".join(f"data: {json.dumps(e)}\n\n" for e in events) + ("" if self.broken else "data: [DONE]\n\n")
        return httpx2.Response(200, text=data, headers={"content-type": "text/event-stream"})

    def scores(self, text):
        """One token a character; vowels are likely."""
        values = [None, *(-0.5 if c in "aeiou" else -3.0 for c in text[1:])]
        logprobs = {"tokens": list(text), "token_logprobs": values, "text_offset": list(range(len(text)))}
        return httpx2.Response(200, json={"choices": [{"text": text, "logprobs": logprobs}]})


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(wires.time, "sleep", lambda seconds: None)
    return Server()


def at(server, **options):
    return Endpoint("http://test/v1", "m", transport=httpx2.MockTransport(server), **options)


@program
def chat(s):
    s += user("hi") + assistant(gen("x", stop="\n", temperature=0.5))


@program
def form(s):
    s += user("Fill in the form.")
    s += assistant("Name: " + gen("name", stop="\n") + "\nAge: " + gen("age", stop="\n") + "\nEnd: " + gen("end"))


def test_a_chat_is_asked_and_streamed(server):
    server.texts = ["hello\nworld"]
    state = chat.run(backend=at(server, key="k"))
    assert list(state.stream("x")) == list("hello")
    (body,) = server.bodies
    assert body["messages"] == [{"role": "user", "content": "hi"}]
    assert (body["stop"], body["temperature"], body["max_tokens"]) == (["\n"], 0.5, 128)
    assert (body["path"], body["key"]) == ("/v1/chat/completions", "Bearer k")
    assert "top_p" not in body, "what nobody says is the server's to decide"
    assert state.result("x").usage.completion_tokens == 5


def test_text_is_asked_as_a_completion(server):
    @program
    def p(s):
        s += "a" + gen("x") + "b" + gen("y")

    server.texts = ["1", "2"]
    assert p.run(backend=at(server, api=Api.COMPLETIONS)).text == "a1b2"
    assert [body["prompt"] for body in server.bodies] == ["a", "a1b"]


def test_one_request_fills_in_a_whole_turn_ahead(server):
    server.texts = ["Name: Ada\nAge: 36\nEnd: yes"]
    state = form.run(backend=at(server, ahead_tokens=100))
    assert (state["name"], state["age"], state["end"]) == ("Ada", "36", "yes")
    (body,) = server.bodies
    assert "stop" not in body
    assert body["max_tokens"] == 228


def test_an_answer_that_does_not_fit_is_asked_for_again_and_then_refused(server):
    server.texts = ["Sure! Name: Ada", "Name: Ada\nAge: 36\nEnd: yes"]
    assert form.run(backend=at(server, ahead_tokens=100))["age"] == "36"
    assert len(server.bodies) == 2
    server.texts = ["Sure!"] * 3
    with pytest.raises(ProgramError, match="'Sure!' does not go on from what the program wrote, 'Name: '"):
        form.run(backend=at(server, ahead_tokens=100))["name"]


def test_what_came_ahead_is_dropped_where_the_program_goes_on_otherwise(server):
    @program
    def p(s):
        s += "A:" + gen("a", stop="\n") + "\nC:" + gen("c", stop="\n")

    server.texts = ["1\nB: 2\n", " 3\nD"]
    assert p.run(backend=at(server, api=Api.COMPLETIONS, ahead_tokens=9))["c"] == " 3"
    assert [body["prompt"] for body in server.bodies] == ["A:", "A:1\nC:"]


@pytest.mark.parametrize("other", [{"temperature": 0.9}, {"limit_tokens": 1}, {"choices": ["22", "33"]}])
def test_what_came_ahead_serves_only_the_same_call(server, other):
    @program
    def p(s):
        s += "A:" + gen("a", stop="\n") + "\nB:" + gen("b", stop="\n", **other)

    server.texts = ["1\nB:22\n", "x", "y", "z"]
    endpoint = at(server, api=Api.COMPLETIONS, ahead_tokens=9, dialect=Dialect.CUPOLA)
    assert p.run(backend=endpoint)["b"] != "22"
    assert len(server.bodies) > 1


def test_select_compares_echoed_scores(server):
    @program
    def p(s, method):
        s += "Is it " + select("x", ["aaab", "bbb"], method=method)

    for method in Method:
        assert p.run(backend=at(server, api=Api.COMPLETIONS), method=method)["x"] == "aaab", method
    assert server.bodies[0] | {"path": 0, "key": 0} == {
        "model": "m", "prompt": "Is it aaab", "max_tokens": 0, "echo": True, "logprobs": 1, "path": 0, "key": 0
    }  # fmt: skip


@pytest.mark.parametrize(
    ("write", "options", "problem"),
    [
        (lambda s: user("a") + assistant(select("x", ["1"])), {}, "hold no log-probabilities"),
        (lambda s: user("a") + assistant("b" + gen("x")), {}, "cannot go on from 'b'"),
        (lambda s: "a" + gen("x"), {}, "text without roles"),
        (lambda s: user("a") + assistant(gen("x")), {"api": Api.COMPLETIONS}, "the chat template is the server's"),
        (lambda s: user("a") + assistant(gen("x", top_k=3)), {}, "has no top_k"),
        (lambda s: user("a") + assistant(gen("x", repetition_penalty=1.5)), {}, "has no repetition_penalty"),
        (lambda s: user("a") + assistant(gen("x", regex="a")), {}, "has no regex"),
        (lambda s: user("a") + assistant(gen("x", choices=["a"])), {}, "has no choices"),
        (lambda s: "a" + gen("x", json_schema={}), {"api": Api.COMPLETIONS}, "has no json_schema"),
    ],
)
def test_what_the_server_cannot_do_is_refused_before_it_is_asked(server, write, options, problem):
    @program
    def p(s):
        s += write(s)

    with pytest.raises(ProgramError, match=problem):
        p.run(backend=at(server, **options))["x"]
    assert server.bodies == []


def test_our_own_server_has_more_fields(server):
    @program
    def p(s):
        s += user("a") + assistant(gen("x", top_k=3, choices=["yes", "no"])) + user("b")
        s += assistant(gen("y", json_schema={"type": "object"}, logprobs=2))

    server.texts = ["yes", "{}"]
    p.run(backend=at(server, dialect=Dialect.CUPOLA)).wait()
    assert (server.bodies[0]["top_k"], server.bodies[0]["choices"]) == (3, ["yes", "no"])
    assert server.bodies[1]["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert (server.bodies[1]["logprobs"], server.bodies[1]["top_logprobs"]) == (True, 2)


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (401, {"message": "who?"}, Unauthorized),
        (400, {"message": "long", "code": "context_length_exceeded"}, ContextOverflow),
        (429, {"message": "later"}, Busy),
        (500, {"message": "oh"}, BackendError),
    ],
)
def test_errors_of_the_server_are_typed(server, status, error, kind):
    server.failures = [(status, error, {})] * 9
    with pytest.raises(kind, match=f"test_endpoint.*{error['message']}"):
        chat.run(backend=at(server))["x"]


def test_a_busy_server_is_asked_again(server):
    server.failures = [(503, {}, {"retry-after": "1"}), (429, {}, {})]
    server.texts = ["hello"]
    assert chat.run(backend=at(server))["x"] == "hello"


def test_broken_answers_are_errors(server):
    server.texts, server.broken = ["hello"], True
    with pytest.raises(BackendError, match="the stream broke off"):
        chat.run(backend=at(server))["x"]
    with pytest.raises(BackendError, match="did not answer"):
        chat.run(backend=Endpoint("http://127.0.0.1:9/v1", "m", attempts=1))["x"]


@pytest.mark.parametrize("options", [{"url": "localhost"}, {"attempts": 0}, {"ahead_tokens": -1}])
def test_endpoints_that_cannot_be(options):
    with pytest.raises(ConfigError):
        Endpoint(**({"url": "http://x/v1", "model": "m"} | options))
