"""A scripted engine behind a real server on a free port."""

import contextlib
import dataclasses
import functools
import json
import socket
import threading
import time

import httpx2
import openai
import pytest

from cupola.data.tokenizer import Tokenizer
from cupola.interop.template import ChatTemplate
from cupola.serve.errors import ContextOverflow
from cupola.serve.generator import Served, Stats
from cupola.serve.http.app import make_app
from cupola.serve.http.server import Address, Server
from cupola.serve.request import Finish, Piece, Reason, Request, Task, Token, Usage

TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"
SAYS = "the bell is cast"


class Scripted:
    """Says the same to everyone, from a thread for each request, at a pace that can be set."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer, self.says = tokenizer, SAYS
        self.seconds_per_token = 0.0
        self.refusal: Exception | None = None
        self.failure: Exception | None = None
        self.seen: list[Request] = []
        self.live: set[str] = set()
        self.aborted: list[str] = []
        self.adapters: dict[str, str] = {}
        self.most_live = 0

    def submit(self, request, receive):
        if self.refusal:
            raise self.refusal
        if len(request.prompt) + request.limit_tokens > 1024:
            raise ContextOverflow("too long")
        self.seen.append(request)
        self.live.add(request.id)
        self.most_live = max(self.most_live, len(self.live))
        threading.Thread(target=self._run, args=(request, receive), daemon=True).start()

    def abort(self, request_id):
        self.aborted.append(request_id)
        self.live.discard(request_id)

    def stats(self):
        return Stats(running=len(self.live), completion_tokens=7, finished={"stop": 3})

    def load_adapter(self, name, folder):
        self.adapters[name] = folder

    def unload_adapter(self, name):
        del self.adapters[name]

    def _token(self, request, id):
        if request.top_logprobs is None:
            return Token(id)
        return Token(id, -0.5, tuple((id if n == 0 else n, -0.5 - n) for n in range(request.top_logprobs)))

    def _run(self, request, receive):
        stream, sent = self.tokenizer.stream(), 0
        cut = next((stop for stop in request.stop if stop in self.says), None)
        text = self.says.partition(cut)[0] if cut else self.says
        ids = self.tokenizer.encode(text).tolist() if request.task is Task.GENERATE else []
        for id in ids[: request.limit_tokens]:
            if self.seconds_per_token:
                time.sleep(self.seconds_per_token)
            if request.id not in self.live:
                break
            sent += 1
            receive(Piece(stream.feed(id), (self._token(request, id),)))
        reason = Reason.STOP if len(ids) <= request.limit_tokens else Reason.LENGTH
        if request.id not in self.live:
            reason = Reason.ABORT
        if self.failure:
            reason = Reason.ERROR
        self.live.discard(request.id)
        scored = tuple(self._token(request, id) for id in request.prompt[1:]) if request.prompt_logprobs else ()
        vector = (0.6, 0.0, 0.8) if request.task is Task.EMBED else None
        usage = Usage(len(request.prompt), 1, sent)
        receive(Piece(finish=Finish(reason, usage, stop=cut, error=self.failure, prompt=scored, embedding=vector)))


@pytest.fixture(scope="session")
def tokenizer():
    return Tokenizer.train([SAYS + " the furnace melts iron and the bell is cast in a mould " * 4], 260)


@pytest.fixture(scope="session")
def _engine(tokenizer):
    return Scripted(tokenizer)


@pytest.fixture
def engine(_engine, tokenizer):
    """The engine of all, as new."""
    _engine.__init__(tokenizer)
    return _engine


def model(engine, name="bell", **changes) -> Served:
    made = Served(name, engine, engine.tokenizer, 1024, ChatTemplate(TEMPLATE), created=1)
    return dataclasses.replace(made, **changes)


@pytest.fixture
def served(engine):
    """Makes a model of the scripted engine."""
    return functools.partial(model, engine)


class Running:
    """A server in a thread, and clients of it."""

    def __init__(self, app, address=Address(port=0)):
        self.app, self.service = app, app.state.service
        self.server = Server(app, address)
        listening = address.listen()
        self.port = listening.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [listening]}, daemon=True)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.005)
        self.http = httpx2.Client(base_url=self.url, timeout=20, trust_env=False)
        self._clients: dict[str, openai.OpenAI] = {}

    def client(self, key="none") -> openai.OpenAI:
        if key not in self._clients:
            plain = httpx2.Client(trust_env=False)
            self._clients[key] = openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, http_client=plain)
        return self._clients[key]

    def post(self, path, body=None, **more):
        return self.http.post(path, json=body, **more)

    def raw(self, path, body) -> socket.socket:
        """Sends a POST on a socket of its own."""
        data = json.dumps(body).encode()
        made = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        made.sendall(head.encode() + data)
        return made

    def close(self):
        self.http.close()
        for client in self._clients.values():
            client.close()
        if self.thread.is_alive():
            self.server.should_exit = True
            self.server.config.timeout_graceful_shutdown = 0
        self.thread.join(10)
        if self.thread.is_alive():
            raise RuntimeError("the server does not stop")


@pytest.fixture
def run(served):
    """Starts a server; arguments are those of `make_app`."""
    with contextlib.ExitStack() as stack:

        def start(*models, address=Address(port=0), **options) -> Running:
            running = Running(make_app(models or (served(),), **options), address)
            stack.callback(running.close)
            return running

        yield start


@pytest.fixture(scope="session")
def _shared(_engine):
    running = Running(make_app([model(_engine)]))
    yield running
    running.close()


@pytest.fixture
def server(_shared, engine):
    """The server of all; tests that change it start their own by `run`."""
    return _shared


def until(condition, seconds=5.0):
    """Waits until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("it did not come to be")
        time.sleep(0.005)


@pytest.fixture(name="until")
def _until():
    return until


def events(response) -> list:
    """The data of each event, checked byte for byte against the form."""
    blocks = response.content.split(b"\n\n")
    assert blocks.pop() == b""
    assert all(block.startswith(b"data: ") and b"\n" not in block for block in blocks)
    data = [block.removeprefix(b"data: ") for block in blocks]
    return [d.decode() if d == b"[DONE]" else json.loads(d) for d in data]


@pytest.fixture(name="events")
def _events():
    return events
