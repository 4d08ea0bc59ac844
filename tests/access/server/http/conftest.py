"""A server on a free port, and a client of it."""

import contextlib
import itertools
from collections.abc import Callable, Iterator

import httpx2
import pytest

from cupola.access.server.grpc.server import Options
from cupola.access.server.http.bounds import Bounds
from cupola.access.server.identity import Identity, Role
from cupola.access.server.serve import Server
from cupola.access.server.tenants import Tenants

SCHEMA = """
definition user {}
definition group { relation member: user | group#member }
caveat hours(hour int) { hour >= 9 }
definition model {
    relation reader: user | user:* | group#member | user with hours
    relation banned: user
    permission use = reader - banned
}
"""

FACTS = [
    "model:kiln#reader@group:research#member",
    "group:research#member@user:ada",
    "model:kiln#reader@user:temp[hours]",
    "model:open#reader@user:*",
    "model:open#banned@user:mallory",
]


_NUMBERS = itertools.count()


class Api(httpx2.Client):
    """A client that sends JSON and returns JSON."""

    def ask(self, path: str, status: int = 200, **body):
        answer = self.post(path, json=body)
        assert answer.status_code == status, answer.text
        return answer.json()


@pytest.fixture
def serve() -> Iterator[Callable[..., Api]]:
    """Starts servers with these options, and returns a client of each; all are stopped in the end."""
    with contextlib.ExitStack() as stack:

        def start(*, key: str = "", tenants: Tenants | None = None, **options) -> Api:
            options.setdefault("bounds", Bounds(grace_seconds=0.5))
            url = stack.enter_context(Server(tenants or Tenants(), **options).running())
            headers = {"authorization": f"Bearer {key}"} if key else {}
            return stack.enter_context(Api(base_url=url, headers=headers, timeout=20))

        yield start


class ByName:
    """Lets everybody in, to the tenant that is their credential: a graph of its own for each test."""

    def authenticate(self, credential: str) -> Identity:
        return Identity(f"tester of {credential}", credential or "default", Role.ADMIN)


@pytest.fixture(scope="session")
def url() -> Iterator[str]:
    """Where a server is that all tests share who do not need one of their own."""
    with Server(
        Tenants(most=10_000), authenticator=ByName(), grpc=Options(port=0), bounds=Bounds(grace_seconds=0.5)
    ).running() as where:
        yield where


@pytest.fixture
def api(url) -> Iterator[Api]:
    """A client with an empty graph of its own."""
    headers = {"authorization": f"Bearer t{next(_NUMBERS)}"}
    with Api(base_url=url, headers=headers, timeout=20) as made:
        yield made


@pytest.fixture
def lab(api) -> Api:
    """The same, with a schema and some relationships."""
    api.ask("/v1/schema", text=SCHEMA)
    api.ask("/v1/relationships/write", touch=FACTS)
    return api
