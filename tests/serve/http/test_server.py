import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from cupola.core.errors import ConfigError
from cupola.serve.http.app import make_app
from cupola.serve.http.guard import Caller, Open
from cupola.serve.http.limits import Limits
from cupola.serve.http.server import Address, Exposure, Server

ASK = {"model": "bell", "prompt": "x", "max_tokens": 50}


def answer_of(server, body):
    """Sends a request from another thread; the list gets its answer."""
    got: list = []
    thread = threading.Thread(target=lambda: got.append(server.post("/v1/completions", body)))
    thread.start()
    return thread, got


def test_what_runs_is_finished_and_whatever_else_comes_is_refused(run, engine, until):
    server = run()
    engine.seconds_per_token = 0.05
    thread, got = answer_of(server, ASK)
    until(lambda: engine.live)
    server.server.stop()
    with server.raw("/v1/completions", ASK) as other:
        refused = other.recv(4096).lower()
    assert refused.startswith(b"http/1.1 503 ")
    assert b"connection: close" in refused
    assert b"retry-after" in refused
    with server.raw("/health", {}) as other:
        assert b" 405 " in other.recv(4096)
    thread.join(5)
    assert got[0].json()["choices"][0]["text"] == "the bell is cast"
    server.thread.join(5)
    assert not server.thread.is_alive()


def test_health_says_that_it_stops(run, engine, until):
    server = run()
    engine.seconds_per_token = 0.05
    thread, _ = answer_of(server, ASK)
    until(lambda: engine.live)
    server.server.stop()
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        told = connection.makefile("rb").read()
    assert told.startswith(b"HTTP/1.1 503 ")
    assert b"stopping" in told
    thread.join(5)


@pytest.mark.parametrize("streamed", [False, True])
def test_what_does_not_end_in_time_is_told(run, engine, until, streamed):
    server = run(address=Address(port=0, grace_seconds=0.1))
    engine.seconds_per_token = 0.5
    thread, got = answer_of(server, ASK | {"stream": streamed})
    until(lambda: engine.live)
    server.server.stop()
    thread.join(5)
    assert "the server is shutting down" in got[0].text
    assert got[0].status_code == (200 if streamed else 503)
    until(lambda: engine.aborted)
    server.thread.join(5)
    assert not server.thread.is_alive()


def test_a_second_signal_ends_at_once(run, engine, until):
    server = run()
    engine.seconds_per_token = 0.5
    connection = server.raw("/v1/completions", ASK)
    until(lambda: engine.live)
    server.server.handle_exit(signal.SIGTERM, None)
    time.sleep(0.2)
    assert server.thread.is_alive()
    server.server.handle_exit(signal.SIGTERM, None)
    server.thread.join(2)
    assert not server.thread.is_alive()
    connection.close()


PROGRAM = """
import sys
from cupola.serve.http.app import make_app
from cupola.serve.http.server import Address, serve
import logging
logging.basicConfig(level=logging.INFO)
serve(make_app([]), Address(port=0))
print("ended")
"""


def test_a_signal_ends_the_process_well():
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    for line in process.stderr:
        if "http://127.0.0.1" in line:
            break
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=10)
    assert (process.returncode, out) == (0, "ended\n")


class Asks(Open):
    async def authenticate(self, credentials):
        return Caller("x", "x")


class Other:
    """A guard, and not the open one."""

    authenticate, check, visible = Asks.authenticate, Open.check, Open.visible


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "machine.example"])
def test_an_open_address_needs_keys_or_words(host, served):
    app = make_app([served()])
    with pytest.raises(ConfigError, match="no keys are asked for"):
        Server(app, Address(host=host))
    Server(app, Address(host=host, exposure=Exposure.ANYONE))
    Server(make_app([served()], guard=Other()), Address(host=host))
    assert Address(host=host).hosts is None


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9", "::1", "localhost"])
def test_loopback_needs_none(host, served):
    Server(make_app([served()]), Address(host=host))
    assert set(Address(host=host).hosts) >= {host, "localhost", "127.0.0.1", "::1"}


def test_addresses_that_are_refused():
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigError, match="another port"):
        Address(port=taken.getsockname()[1]).listen()
    with pytest.raises(ConfigError, match="no address"):
        Address(host="no such host").listen()
    with pytest.raises(ConfigError, match="65535"):
        Address(port=70000)
    with pytest.raises(ConfigError, match="0 or more"):
        Address(grace_seconds=-1.0)


@pytest.mark.parametrize("name", ["body_bytes", "choices", "write_seconds", "request_seconds", "priority"])
def test_limits_that_let_nothing_in(name):
    value = -1.0 if name.endswith("seconds") else -1
    with pytest.raises(ConfigError) as raised:
        Limits(**{name: value})
    assert raised.value.where == name
