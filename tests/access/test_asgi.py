import asyncio

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from cupola.access.asgi import Guard, Hidden, require
from cupola.access.errors import InvalidArgument, UnknownName
from cupola.access.relation import delete, touch

SCHEMA = """
definition user {}
caveat hours(hour int) { hour >= 9 }
definition document {
    relation viewer: user | user with hours
    permission view = viewer
}
"""

may_view = require("document:{id}#view")


@pytest.fixture
def client(graph):
    graph.write_schema(SCHEMA)
    graph.write(touch("document:1#viewer@user:ada"), touch("document:1#viewer@user:temp[hours]"))

    async def show(request):
        decision = await may_view(request)
        return PlainTextResponse(decision.revision)

    async def secret(request):
        await require("document:{id}#view", hidden=Hidden.YES)(request)
        return PlainTextResponse("secret")

    async def mistaken(request):
        await require("document:{id}#fly")(request)
        return PlainTextResponse("never")

    def subject(connection):
        return connection.headers.get("x-user")

    routes = [Route("/show/{id:path}", show), Route("/secret/{id}", secret), Route("/mistaken/{id}", mistaken)]
    app = Starlette(
        routes=routes,
        middleware=[
            Middleware(
                Guard, graph=graph, subject=subject, context=lambda c: {"hour": 10} if "x-late" in c.headers else {}
            )
        ],
    )

    def get(path, user="", **headers):
        async def run():
            transport = httpx2.ASGITransport(app=app)
            async with httpx2.AsyncClient(transport=transport, base_url="http://test") as made:
                return await made.get(path, headers={**({"x-user": user} if user else {}), **headers})

        return asyncio.run(run())

    return get


def test_only_those_pass_who_have_the_permission(client):
    assert client("/show/1", "user:ada").status_code == 200
    assert client("/show/1", "user:bob").status_code == 403
    assert client("/show/2", "user:ada").status_code == 403
    assert client("/show/1").status_code == 401


def test_existence_may_be_a_secret(client):
    assert client("/secret/1", "user:ada").text == "secret"
    assert client("/secret/1", "user:bob").status_code == 404


def test_conditions_get_the_context(client):
    answer = client("/show/1", "user:temp")
    assert answer.status_code == 403
    assert "hour" in answer.text
    assert client("/show/1", "user:temp", **{"x-late": "1"}).status_code == 200


@pytest.mark.parametrize("id", ["1%23viewer", "a%20b", "x%0Ay"])
def test_a_path_names_nothing_but_an_id(client, id):
    assert client(f"/show/{id}", "user:ada").status_code == 404


def test_a_permission_that_is_not_there_is_our_mistake(client):
    with pytest.raises(UnknownName):
        client("/mistaken/1", "user:ada")


@pytest.mark.parametrize("text", ["document:{id}", "document#view", "{id}", "document:{id}#"])
def test_texts_that_name_no_permission_are_refused(text):
    with pytest.raises(InvalidArgument):
        require(text)


def test_a_revoked_right_bites_on_the_next_request(client, graph):
    assert client("/show/1", "user:ada").status_code == 200
    graph.write(delete("document:1#viewer@user:ada"))
    assert client("/show/1", "user:ada").status_code == 403


def test_without_the_guard_it_says_what_is_missing():
    async def show(request):
        await may_view(request)

    app = Starlette(routes=[Route("/show/{id}", show)])

    async def run():
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as made:
            await made.get("/show/1")

    with pytest.raises(RuntimeError, match="add_middleware"):
        asyncio.run(run())
