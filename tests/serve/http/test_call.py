import socket
import time

import openai
import pytest

from cupola.serve.errors import Busy, Forbidden, Unauthorized
from cupola.serve.http.guard import Action, Caller, Open
from cupola.serve.http.limits import Limits
from cupola.serve.request import Piece, Token

HELLO = [{"role": "user", "content": "hello"}]
CHAT = {"model": "bell", "messages": HELLO}


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("path", "body"),
    [("/v1/chat/completions", CHAT | {"n": 2}), ("/v1/completions", {"model": "bell", "prompt": ["a", "b"]})],
)
def test_who_goes_away_is_not_answered_further(server, engine, until, path, body, streamed):
    engine.seconds_per_token = 0.2
    connection = server.raw(path, body | {"stream": streamed})
    until(lambda: len(engine.live) == 2)
    connection.close()
    until(lambda: not engine.live, 0.2)
    assert len(engine.aborted) == 2
    assert not server.service.calls
    assert not server.service.by_caller


def test_who_goes_away_while_a_grammar_is_compiled(server, engine, until, monkeypatch):
    submit = engine.submit

    def slowly(request, receive):
        time.sleep(0.2)
        submit(request, receive)

    monkeypatch.setattr(engine, "submit", slowly)
    engine.seconds_per_token = 0.2
    connection = server.raw("/v1/chat/completions", CHAT | {"regex": "a"})
    until(lambda: server.service.calls)
    connection.close()
    until(lambda: engine.aborted)
    assert not engine.live


def test_a_grammar_keeps_nobody_else_waiting(server, engine, until, monkeypatch):
    submit = engine.submit
    monkeypatch.setattr(engine, "submit", lambda request, receive: (time.sleep(0.3), submit(request, receive)))
    connection = server.raw("/v1/chat/completions", CHAT | {"regex": "a"})
    until(lambda: server.service.calls)
    began = time.monotonic()
    assert server.http.get("/health").status_code == 200
    assert time.monotonic() - began < 0.15
    connection.close()


def test_a_reader_that_does_not_read_is_aborted(run, engine, until, monkeypatch):
    server = run(limits=Limits(write_seconds=0.2))

    def flood(request, receive):
        engine.live.add(request.id)
        for _ in range(400):
            receive(Piece("iron " * 10_000, (Token(1),)))

    monkeypatch.setattr(engine, "submit", flood)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", server.port))
    body = b'{"model": "bell", "prompt": "x", "stream": true}'
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    until(lambda: engine.aborted)
    until(lambda: not server.service.calls)
    connection.close()


def test_an_error_before_the_first_piece_has_a_status(server, engine):
    engine.refusal = Busy("the queue is full", retry_after_seconds=3)
    for body in (CHAT, CHAT | {"stream": True}):
        response = server.post("/v1/chat/completions", body)
        assert (response.status_code, response.headers["retry-after"]) == (429, "3")
    with pytest.raises(openai.RateLimitError):
        server.client().chat.completions.create(**CHAT)


def test_an_error_in_a_stream_is_its_last_event(server, engine, events):
    engine.failure = Forbidden("the furnace went out")
    data = events(server.post("/v1/chat/completions", CHAT | {"stream": True}))
    assert data[-1]["error"]["message"] == "the furnace went out"
    assert "[DONE]" not in data
    with pytest.raises(openai.APIError, match="furnace"):
        list(server.client().chat.completions.create(**CHAT, stream=True))


def test_our_own_mistakes_are_not_shown_but_logged(server, engine, monkeypatch, caplog):
    def broken(request, receive):
        raise ZeroDivisionError("secret of ours")

    monkeypatch.setattr(engine, "submit", broken)
    response = server.post("/v1/chat/completions", CHAT)
    assert (response.status_code, response.json()["error"]["code"]) == (500, "internal_error")
    assert response.headers["x-request-id"].startswith("req_")
    assert "secret" not in response.text
    assert "secret of ours" in caplog.text
    assert response.headers["x-request-id"] in caplog.text
    caplog.clear()
    engine.failure = ZeroDivisionError("secret of ours")
    monkeypatch.undo()
    response = server.post("/v1/chat/completions", CHAT)
    assert "secret" not in response.text
    assert "secret of ours" in caplog.text
    assert response.headers["x-request-id"] in caplog.text


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_too_large(run, declared):
    server = run(limits=Limits(body_bytes=1000))
    content = b"x" * 2000
    body = content if declared else (content[i : i + 500] for i in range(0, 2000, 500))
    response = server.http.post("/v1/completions", content=body, headers={"content-type": "application/json"})
    assert (response.status_code, response.json()["error"]["code"]) == (413, "request_too_large")


def test_a_body_that_does_not_come(run):
    server = run(limits=Limits(body_seconds=0.1))
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{")
        assert connection.recv(100).startswith(b"HTTP/1.1 408 ")


def test_another_content_type(server):
    response = server.http.post("/v1/completions", content=b"{}", headers={"content-type": "text/plain"})
    assert (response.status_code, response.json()["error"]["code"]) == (415, "unsupported_media_type")


def test_one_caller_has_a_share(run, engine, until):
    server = run(limits=Limits(requests_per_caller=1))
    engine.seconds_per_token = 0.1
    connection = server.raw("/v1/completions", {"model": "bell", "prompt": "x"})
    until(lambda: engine.live)
    response = server.post("/v1/completions", {"model": "bell", "prompt": "x"})
    assert (response.status_code, response.headers["retry-after"]) == (429, "1")
    connection.close()
    engine.seconds_per_token = 0
    until(lambda: not server.service.calls)
    assert server.post("/v1/completions", {"model": "bell", "prompt": "x"}).status_code == 200


class Named(Open):
    """Knows two callers by name, the second of whom may not generate."""

    async def authenticate(self, credentials):
        if credentials not in ("ann", "bob"):
            raise Unauthorized("who are you?")
        return Caller(credentials, credentials)

    async def check(self, caller, action, object):
        if caller.name == "bob" and action is Action.GENERATE:
            raise Forbidden(f"no {object} for bob")


def test_who_may_not(run, engine):
    server = run(guard=Named())
    server.client("ann").completions.create(model="bell", prompt="x")
    with pytest.raises(openai.PermissionDeniedError, match="model:bell"):
        server.client("bob").completions.create(model="bell", prompt="x")
    with pytest.raises(openai.AuthenticationError) as raised:
        server.client("eve").completions.create(model="bell", prompt="x")
    assert raised.value.response.headers["www-authenticate"].startswith("Bearer")
    server.client("bob").embeddings.create(model="bell", input="x")
    assert len({request.namespace for request in engine.seen}) == 2


@pytest.mark.parametrize(
    ("sent", "status"),
    [({}, 401), ({"authorization": "Bearer eve"}, 401), ({"authorization": "Digest x"}, 401),
     ({"authorization": "Basic %%"}, 401), ({"authorization": "bearer ann"}, 200), ({"authorization": "Basic eDphbm4="}, 200)],
)  # fmt: skip
def test_credentials(run, sent, status):
    server = run(guard=Named())
    assert server.http.get("/v1/models", headers=sent).status_code == status
    asked = server.http.get("/v1/models", headers=sent | {"accept": "text/html"}).headers.get("www-authenticate", "")
    assert asked.startswith("Basic") == (status == 401)
