import base64
import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator

import httpx2
import pytest

from cupola.access.server.http.bounds import Bounds
from cupola.access.server.http.call import State
from cupola.access.server.identity import Role
from cupola.access.server.keys import Keys, new_key
from cupola.access.server.quota import Allowance, Quota
from cupola.access.server.serve import Server
from cupola.access.server.tenants import Tenants

ASKED = {"permission": "model:kiln#use", "subject": "user:ada"}


@pytest.fixture
def keyed(serve):
    """Clients of one server: with a good key of each role, and of another tenant."""
    made = {role: new_key(role.value, "lab", role) for role in Role}
    other, theirs = new_key("other", "elsewhere", Role.ADMIN)
    api = serve(authenticator=Keys([*(hashed for _, hashed in made.values()), theirs]))

    def client(key: str):
        return {"authorization": f"Bearer {key}"}

    return api, {role: client(key) for role, (key, _) in made.items()}, client(other)


ROUTES = ["/metrics", "/v1/schema", "/v1/revision", "/v1/watch", "/stores", "/playground", "/playground/playground.js"]


@pytest.mark.parametrize("path", [*ROUTES, "/"])
@pytest.mark.parametrize("header", [{}, {"authorization": "Bearer wrong"}, {"authorization": "Digest x"}])
def test_every_route_but_the_open_ones_asks_who_calls(keyed, path, header):
    api, _, _ = keyed
    answer = api.get(path, headers=header)
    assert answer.status_code == 401
    assert "www-authenticate" in answer.headers
    assert api.get("/health", headers=header).json() == {"status": "serving"}
    assert api.get("/.well-known/authzen-configuration", headers=header).status_code == 200


def test_a_browser_may_give_the_key_as_a_password(keyed):
    api, keys, _ = keyed
    page = api.get("/playground", headers={"accept": "text/html"})
    assert page.status_code == 401
    assert page.headers["www-authenticate"].startswith("Basic")
    key = keys[Role.READER]["authorization"].removeprefix("Bearer ")
    basic = base64.b64encode(f"x:{key}".encode()).decode()
    assert api.get("/playground", headers={"authorization": f"Basic {basic}"}).status_code == 200


def test_roles(keyed):
    api, keys, _ = keyed
    schema, fact = {"text": "definition user {}"}, {"touch": ["user:a#b@user:c"]}
    assert api.post("/v1/schema", json=schema, headers=keys[Role.WRITER]).status_code == 403
    assert api.post("/v1/schema", json=schema, headers=keys[Role.ADMIN]).status_code == 200
    assert api.post("/v1/relationships/write", json=fact, headers=keys[Role.READER]).status_code == 403
    assert api.post("/v1/relationships/write", json=fact, headers=keys[Role.WRITER]).status_code == 400
    assert api.get("/v1/schema", headers=keys[Role.READER]).status_code == 200


def test_tenants_know_nothing_of_each_other(keyed):
    api, keys, other = keyed
    api.post("/v1/schema", json={"text": "definition user {}"}, headers=keys[Role.ADMIN])
    assert api.get("/v1/schema", headers=other).status_code == 404
    store = api.post("/stores", json={"name": "mine"}, headers=keys[Role.ADMIN]).json()["id"]
    assert api.get(f"/stores/{store}", headers=keys[Role.READER]).status_code == 200
    assert api.get(f"/stores/{store}", headers=other).status_code == 404
    assert api.post(f"/stores/{store}/read", json={}, headers=other).status_code == 404
    assert api.get("/stores", headers=other).json()["stores"] == []


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "missing"),
        (b"{", "not JSON"),
        (b"[]", "object"),
        (b"\xff\xfe", "not JSON"),
        (b'{"permission": "a:b#c", "subject": "\xff"}', "not JSON"),
        (b"[" * 100_000, "body"),
        (b'{"context": ' * 2000, ""),
    ],
)
def test_malformed_bodies_are_400(lab, body, says):
    answer = lab.post("/v1/check", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert says in answer.text


def test_other_media_types_are_415(lab):
    assert lab.post("/v1/check", content=b"{}", headers={"content-type": "text/plain"}).status_code == 415


def test_large_bodies_are_413_before_they_are_read(serve):
    api = serve(bounds=Bounds(body_bytes=1000, grace_seconds=0.5))
    assert api.post("/v1/check", json=ASKED | {"context": {"x": "y" * 1000}}).status_code == 413

    def chunks() -> Iterator[bytes]:
        yield from [b"x" * 100] * 50

    answer = api.post("/v1/check", content=chunks(), headers={"content-type": "application/json"})
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "too_large"


def test_slow_senders_are_408(serve):
    api = serve(bounds=Bounds(body_seconds=0.2, grace_seconds=0.5))
    with socket.create_connection((api.base_url.host, api.base_url.port)) as raw:
        raw.sendall(b"POST /v1/check HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{")
        assert b" 408 " in raw.recv(1000)


def test_slow_readers_are_let_go(serve):
    api = serve(bounds=Bounds(write_seconds=0.3, grace_seconds=0.5))
    schema = "definition user {}\ndefinition file { relation reader: user }"
    api.ask("/v1/schema", text=schema)
    for n in range(4):
        api.ask("/v1/relationships/write", touch=[f"file:{n}-{m:04}-{'x' * 900}#reader@user:a" for m in range(1000)])
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    with raw:
        raw.connect((api.base_url.host, api.base_url.port))
        body = json.dumps({"limit": 1000}).encode()
        head = f"POST /v1/relationships/read HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        raw.sendall((head.encode() + body) * 4)
        time.sleep(0.5)
        assert api.get("/health").status_code == 200
        deadline = time.monotonic() + 5
        while "cupola_access_http_running 1.0" not in api.get("/metrics").text:
            assert time.monotonic() < deadline, "the reader still holds its request"
            time.sleep(0.1)


def test_request_ids(api):
    assert api.get("/health").headers["x-request-id"].startswith("req_")
    assert api.get("/health", headers={"x-request-id": "mine-1"}).headers["x-request-id"] == "mine-1"
    assert api.get("/health", headers={"x-request-id": "a {b} 1/2"}).headers["x-request-id"] == "a {b} 1/2"
    assert api.get("/health", headers={"x-request-id": "a b\tc"}).headers["x-request-id"].startswith("req_")


def test_other_names_of_this_machine_are_refused(api):
    assert api.get("/health", headers={"host": "evil.example"}).status_code == 403


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing", 404), ("GET", "/v1/check", 405), ("DELETE", "/v1/schema", 405), ("GET", "/v1/check/", 404)],
)
def test_unknown_routes(api, method, path, status):
    answer = api.request(method, path)
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"code", "message", "where", "remedy"}


def test_quotas_are_429_with_a_time(serve):
    quota = Quota(Allowance(questions_per_second=0.5, questions_at_once=2))
    api = serve(quota=quota)
    answers = [api.get("/v1/revision") for _ in range(4)]
    assert [one.status_code for one in answers][:2] == [200, 200]
    assert answers[3].status_code == 429
    assert int(answers[3].headers["retry-after"]) >= 1


def test_more_than_is_taken_on_is_429(serve):
    api = serve(bounds=Bounds(workers=1, waiting=0, grace_seconds=0.5))
    statuses = set()

    def ask() -> None:
        with httpx2.Client(base_url=str(api.base_url)) as client:
            for _ in range(10):
                statuses.add(client.get("/v1/revision").status_code)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert statuses <= {200, 429}
    assert 200 in statuses


def test_metrics_count(serve):
    api = serve()
    api.ask("/v1/schema", text="definition user {}\ndefinition model { relation use: user }")
    api.ask("/v1/relationships/write", touch=["model:kiln#use@user:ada", "model:kiln#use@user:bob"])
    api.ask("/v1/check", **ASKED)
    text = api.get("/metrics").text
    assert 'cupola_access_requests_total{method="POST",route="/v1/check",status="200"} 1.0' in text
    assert 'cupola_access_decisions_total{verdict="yes"} 1.0' in text
    assert "cupola_access_updates_total 2.0" in text


def test_a_server_that_stops_refuses_and_ends_watchers():
    server = Server(Tenants(), bounds=Bounds(grace_seconds=5))
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(server.running())
        api = stack.enter_context(httpx2.Client(base_url=url, timeout=10))
        api.post("/v1/schema", json={"text": "definition user {}"})
        with api.stream("GET", "/v1/watch") as answer:
            server.service.state = State.STOPPING
            assert api.get("/v1/revision").status_code == 503
            assert api.get("/health").json() == {"status": "stopping"}
            began = time.monotonic()
            assert b"heartbeat" in answer.read()
            assert time.monotonic() - began < 4
