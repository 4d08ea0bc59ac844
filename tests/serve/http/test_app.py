import pytest
from starlette.routing import Route

from cupola.serve.errors import Unauthorized
from cupola.serve.http.app import make_app
from cupola.serve.http.call import Endpoint


class Nobody:
    """Lets nobody in, and counts who asked."""

    asked = 0

    async def authenticate(self, credentials):
        self.asked += 1
        raise Unauthorized("nobody")

    async def check(self, caller, action, object):
        raise AssertionError("nobody was let in")

    async def visible(self, caller, models):
        raise AssertionError("nobody was let in")


def test_every_route_but_health_asks_the_guard(run):
    guard = Nobody()
    server = run(guard=guard)
    routes = [route for route in server.app.routes if isinstance(route, Route)]
    assert len(routes) == len(server.app.routes)
    paths = {route.path for route in routes}
    assert {"/", "/v1/responses", "/v1/chat/completions", "/metrics", "/v1/models/{id:path}"} <= paths
    for route in routes:
        for method in route.methods:
            path = route.path.replace("{id:path}", "x").replace("{id}", "x").replace("{name}", "x")
            before = guard.asked
            response = server.http.request(method, path, content=b"{not read")
            if route.path == "/health":
                assert (response.status_code, guard.asked) == (200, before)
            else:
                assert (response.status_code, guard.asked) == (401, before + 1), route.path


@pytest.mark.parametrize(
    ("method", "path", "status", "hint"),
    [
        ("GET", "/v1/chat/completion", 404, "/v1/chat/completions"),
        ("GET", "/v1/chat/completions", 405, "POST"),
        ("DELETE", "/health", 405, "GET"),
        ("POST", "/v1/chat/completions/", 404, "/v1/chat/completions"),
    ],
)
def test_what_is_not_there(server, method, path, status, hint):
    response = server.http.request(method, path)
    assert response.status_code == status
    assert hint in response.json()["error"]["message"]
    assert response.headers["x-request-id"].startswith("req_")
    assert (status == 405) == ("allow" in response.headers)


def test_other_sites_are_let_in_by_name_only(run):
    asked = {"origin": "https://a.example", "access-control-request-method": "POST"}
    server = run(allow_origins=["https://a.example"])
    ok = server.http.options("/v1/chat/completions", headers=asked)
    assert ok.headers["access-control-allow-origin"] == "https://a.example"
    answer = server.http.get("/v1/models", headers=asked | {"origin": "https://b.example"})
    assert "access-control-allow-origin" not in answer.headers


def test_none_of_the_others_by_default(server):
    assert (
        "access-control-allow-origin" not in server.http.get("/health", headers={"origin": "https://a.example"}).headers
    )


def test_more_routes_are_guarded_too(served):
    async def never(call):
        raise AssertionError("not called")

    app = make_app([served()], guard=Nobody(), endpoints=[Endpoint("GET", "/more", never)])
    assert "/more" in {route.path for route in app.routes}
