import pytest

from cupola.serve.http.envelope import host_name


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost:80", 200), ("127.0.0.1", 200), ("[::1]:9", 200), ("LOCALHOST", 200), ("evil.example", 403),
     ("localhost.evil.example:80", 403), ("", 403), ("evil.example@localhost", 403)],
)  # fmt: skip
def test_on_loopback_only_its_own_names(server, host, status):
    response = server.http.get("/v1/models", headers={"host": host})
    assert response.status_code == status
    assert "x-request-id" in response.headers


@pytest.mark.parametrize(
    ("host", "name"), [("a:1", "a"), ("a", "a"), ("[::1]:80", "::1"), ("[::1]", "::1"), ("::1", "::1"), (" A ", "a")]
)
def test_the_name_in_a_host_header(host, name):
    assert host_name(host) == name


def test_other_names_that_were_given(run):
    server = run(hosts=("Cupola.example",))
    assert server.http.get("/health", headers={"host": "cupola.example:80"}).status_code == 200
    assert server.http.get("/health").status_code == 403


def test_ids_differ(server):
    ids = {server.http.get("/health", headers={"x-request-id": "mine"}).headers["x-request-id"] for _ in range(20)}
    assert len(ids) == 20
