"""Our clients, the one that waits and the one of asyncio, of the same methods."""

import asyncio
import inspect
import time

import pytest

from cupola.access.calls import Page
from cupola.access.client import AsyncClient, Client
from cupola.access.consistency import LATEST, at_exactly
from cupola.access.decision import Decision, Question, Verdict
from cupola.access.engine.at import Holder, Resource
from cupola.access.errors import (
    AlreadyExists,
    Denied,
    InvalidArgument,
    Late,
    NotAllowed,
    NotFound,
    Orphaned,
    PreconditionFailed,
    SchemaError,
    StoreUnavailable,
    TooMuch,
    Unauthenticated,
    UnknownName,
)
from cupola.access.relation import (
    Filter,
    Must,
    Object,
    Operation,
    Precondition,
    Relationship,
    Subject,
    Surplus,
    create,
    delete,
    touch,
)
from cupola.access.server.grpc.server import Options, Server
from cupola.access.server.grpc.status import InvalidCursor
from cupola.access.server.identity import Identity, Role
from cupola.access.server.keys import Keys, new_key
from cupola.access.server.quota import Allowance, OverQuota, Quota
from cupola.access.server.tenants import Tenants
from cupola.access.server.tls import Insecure

SCHEMA = """
use expiration

definition user {}

definition group {
    relation member: user | group#member
}

caveat near(distance int, allowed int) {
    distance <= allowed
}

definition model {
    relation reader: user | group#member | user with near | user with expiration
    relation owner: user
    permission use = reader + owner
}
"""
ADMIN, ADMIN_KEPT = new_key("admin", "acme", Role.ADMIN)
READER, READER_KEPT = new_key("reader", "acme", Role.READER)


class Waiting:
    """The client of asyncio, driven to the end of each call, so that one suite is for both."""

    def __init__(self, address: str, token: str, **options):
        self._runner = asyncio.Runner()
        self._client = self._runner.run(self._open(address, token, options))

    async def _open(self, address, token, options) -> AsyncClient:
        return AsyncClient(address, token, **options)

    def __getattr__(self, name):
        method = getattr(self._client, name)

        def call(*args, **options):
            return self._runner.run(self._finish(method, args, options))

        return call

    async def _finish(self, method, args, options):
        found = method(*args, **options)
        return [one async for one in found] if hasattr(found, "__aiter__") else await found

    def close(self) -> None:
        self._runner.run(self._client.close())
        self._runner.close()


@pytest.fixture
def server():
    tenants = Tenants()
    server = Server(tenants, Keys([ADMIN_KEPT, READER_KEPT]), options=Options(port=0, pulse_seconds=0.2))
    with server:
        yield server
        server.stop(0.2)
    tenants.close()


@pytest.fixture(params=[Client, Waiting])
def connect(server, request):
    opened = []

    def open(token: str = ADMIN, **options):
        opened.append(request.param(server.address, token, insecure=Insecure.ALLOWED, **options))
        return opened[-1]

    yield open
    for client in opened:
        client.close()


@pytest.fixture
def client(connect):
    client = connect()
    client.write_schema(SCHEMA)
    return client


def test_both_have_the_same_methods():
    def methods(kind) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")}

    assert methods(Client) == methods(AsyncClient)
    assert {"check", "check_many", "write", "read", "lookup_resources", "watch", "write_schema"} <= methods(Client)
    assert all(inspect.getdoc(getattr(Client, name)) for name in methods(Client))


def test_what_is_written_can_be_asked(client):
    token = client.write(touch("model:kiln#reader@group:research#member"), touch("group:research#member@user:ada"))
    assert client.check("model:kiln#use", "user:ada", at_least=token) == Decision(True, token)
    assert not client.check("model:kiln#use", "user:bob", consistency=LATEST)
    assert client.check((Object("model", "kiln"), "use"), Subject("group", "research", "member"))


def test_conditions(client):
    client.write(touch('model:kiln#reader@user:eve[near:{"allowed":10}]'))
    perhaps = client.check("model:kiln#use", "user:eve")
    assert (perhaps.verdict, perhaps.missing) == (Verdict.CONDITIONAL, ("distance",))
    assert client.check("model:kiln#use", "user:eve", context={"distance": 3})
    with pytest.raises(InvalidArgument, match="no JSON"):
        client.check("model:kiln#use", "user:eve", context={"distance": object()})


def test_explanations(client):
    client.write(touch("model:kiln#reader@user:ada"))
    why = client.check("model:kiln#use", "user:ada", explain=True).why
    assert why.text == "model:kiln#use@user:ada"
    assert why.verdict is Verdict.YES
    assert why.parts


def test_many_questions(client):
    client.write(touch("model:kiln#reader@user:ada"))
    ada = Subject("user", "ada")
    found = client.check_many(
        [
            Question(Object("model", "kiln"), "use", ada),
            Question(Object("model", "other"), "use", ada),
            Question(Object("model", "kiln"), "uze", ada),
        ]
    )
    assert [bool(one) for one in found] == [True, False, False]
    assert [one.error for one in found[:2]] == [None, None]
    assert isinstance(found[2].error, UnknownName)


def test_lookups_in_pages(client):
    client.write(*(touch(f"model:m{number}#owner@user:ada") for number in range(5)))
    whole = client.lookup_resources("model", "use", "user:ada", consistency=LATEST)
    assert whole.found == tuple(Resource(f"m{number}") for number in range(5))
    first = client.lookup_resources("model", "use", "user:ada", consistency=LATEST, limit=3)
    client.write(touch("model:m9#owner@user:ada"))
    second = client.lookup_resources("model", "use", "user:ada", limit=3, cursor=first.cursor)
    assert first.found + second.found == whole.found
    assert first.revision == second.revision == whole.revision
    client.write(*(touch(f"model:kiln#owner@user:u{number}") for number in range(5)))
    found, cursor = [], ""
    while page := client.lookup_subjects("model:kiln#use", "user", consistency=LATEST, limit=2, cursor=cursor).found:
        found += page
        cursor = client.lookup_subjects("model:kiln#use", "user", consistency=LATEST, limit=2, cursor=cursor).cursor
    assert found == [Holder(f"u{number}") for number in range(5)]
    with pytest.raises(InvalidCursor):
        client.lookup_resources("model", "use", "user:bob", cursor=first.cursor)
    assert client.lookup_resources("model", "use", "user:nobody") == Page("", (), "")


def test_relationships(client):
    facts = [
        Relationship.parse("model:kiln#owner@user:ada"),
        Relationship.parse('model:kiln#reader@user:eve[near:{"allowed":10}]'),
        Relationship.parse("model:kiln#reader@user:tmp[expiration:2999-01-01T00:00:00.25Z]"),
    ]
    token = client.write(*(create(fact) for fact in facts))
    page = client.read(Filter("model"), consistency=LATEST, limit=2)
    rest = client.read(Filter("model"), limit=2, cursor=page.cursor)
    assert [*page.found, *rest.found] == facts
    assert page.revision == rest.revision == token
    assert client.read(Filter("model", subject_type="user", subject_relation="")).found
    assert list(client.export(consistency=at_exactly(token))) == facts
    assert list(client.export(Filter("group"))) == []
    client.write(delete(facts[0]))
    assert client.delete(Filter("model"), limit=1)[1] == 1
    assert client.delete(Filter("model"))[1] == 1


def test_who_is_in_a_tree(client):
    client.write(touch("model:kiln#owner@user:ada"), touch("model:kiln#reader@group:g#member"))
    token, root = client.expand("model:kiln#use")
    assert token
    assert root.operator == "union"

    def subjects(node):
        return {*node.subjects, *(one for child in node.children for one in subjects(child))}

    assert subjects(root) == {Subject("user", "ada"), Subject("group", "g", "member")}


def test_loading(client):
    many = [Relationship.parse(f"group:g{number:05}#member@user:u") for number in range(3456)]
    assert client.load(iter(many)) == 3456
    assert client.read(Filter("group"), consistency=LATEST).found == tuple(many)


def test_what_stops_the_loading_is_what_is_raised(client):
    def broken():
        yield Relationship.parse("group:g#member@user:u")
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        client.load(broken())
    assert not client.read(Filter("group"), consistency=LATEST).found


def test_watching(server):
    with Client(server.address, ADMIN, insecure=Insecure.ALLOWED) as client:
        start = client.write_schema(SCHEMA)
        client.write(create("model:kiln#owner@user:ada"), metadata={"by": "test"})
        client.write_schema(SCHEMA + "\ndefinition more {}")
        client.write(delete("model:kiln#owner@user:ada"))
        seen, stream = [], client.watch(start)
        for one in stream:
            if not one.checkpoint:
                seen.append(one)
            if len(seen) == 3:
                break
        stream.close()
        first, second, third = seen
        assert [one.relationship for one in first.updates] == [Relationship.parse("model:kiln#owner@user:ada")]
        assert dict(first.metadata) == {"by": "test"}
        assert second.schema
        assert third.updates[0].operation is Operation.DELETE
        again = client.watch(first.revision, types=["model"])
        assert next(one for one in again if one.updates) == third
        again.close()

        async def follow():
            async with AsyncClient(server.address, ADMIN, insecure=Insecure.ALLOWED) as other:
                async for one in other.watch(start, filters=[Filter("model")]):
                    if one.updates:
                        return one

        assert asyncio.run(follow()) == first


def test_schemas(client):
    token, text = client.read_schema()
    assert text == SCHEMA
    assert client.write_schema("definition user {}") != token


@pytest.mark.parametrize(
    ("ask", "kind"),
    [
        (lambda c: c.check("modle:kiln#use", "user:ada"), UnknownName),
        (lambda c: c.check("kiln", "user:ada"), InvalidArgument),
        (lambda c: c.check("model:kiln#use", "user:ada", at_least="nonsense"), InvalidArgument),
        (lambda c: c.write(touch("model:kiln#use@user:ada")), NotAllowed),
        (lambda c: c.write(create("model:there#owner@user:ada")), AlreadyExists),
        (lambda c: c.write(*[touch("model:kiln#owner@user:ada")] * 2), InvalidArgument),
        (lambda c: c.write(*(touch(f"model:m{n}#owner@user:ada") for n in range(1001))), TooMuch),
        (
            lambda c: c.write(
                touch("model:kiln#owner@user:ada"), require=[Precondition(Must.MATCH, Filter("model", "none"))]
            ),
            PreconditionFailed,
        ),
        (lambda c: c.delete(Filter("model"), limit=1, surplus=Surplus.REFUSED), TooMuch),
        (lambda c: c.read(Filter()), InvalidArgument),
        (lambda c: c.read(Filter("model"), cursor="nonsense"), InvalidCursor),
        (lambda c: c.write_schema("definition {"), SchemaError),
        (lambda c: c.write_schema("definition user {}"), Orphaned),
        (lambda c: c.watch("nonsense") if not isinstance(c, Client) else list(c.watch("nonsense")), InvalidArgument),
    ],
)
def test_errors_come_back_as_what_they_were(client, ask, kind):
    client.write(touch("model:there#owner@user:ada"), touch("model:there#owner@user:bob"))
    with pytest.raises(kind) as error:
        ask(client)
    assert type(error.value) is kind
    assert error.value.problem


def test_where_and_remedy_come_back(client):
    with pytest.raises(SchemaError) as error:
        client.write_schema("definition user {}\ndefinition group { relation member: usr }")
    assert error.value.line == 2
    assert error.value.column > 1
    with pytest.raises(NotAllowed) as error:
        client.write(touch("model:kiln#owner@group:g#member"))
    assert error.value.where == "model:kiln#owner@group:g#member"
    assert error.value.remedy


def test_who_is_not_let_in(connect):
    with pytest.raises(Unauthenticated):
        connect("wrong").read_schema()
    with pytest.raises(Unauthenticated):
        connect("").read_schema()
    with pytest.raises(Denied):
        connect(READER).write_schema(SCHEMA)
    with pytest.raises(NotFound):
        connect(READER).read_schema()


def test_quota_comes_back_with_the_time_to_wait():
    quota = Quota(Allowance(questions_per_second=0.1, questions_at_once=1))
    tenants = Tenants()
    with Server(tenants, Keys([ADMIN_KEPT]), quota=quota, options=Options(port=0)) as server:
        with Client(server.address, ADMIN, insecure=Insecure.ALLOWED) as client:
            client.write_schema(SCHEMA)
            client.read_schema()
            with pytest.raises(OverQuota) as error:
                client.read_schema()
        assert error.value.retry_seconds == pytest.approx(10.0, abs=1.0)
        server.stop(0.1)
    tenants.close()


def test_a_server_that_is_not_there():
    with Client("127.0.0.1:1", ADMIN, insecure=Insecure.ALLOWED) as client, pytest.raises(StoreUnavailable):
        client.read_schema()


def test_an_answer_that_takes_too_long(monkeypatch):
    class Slow:
        def authenticate(self, credential: str) -> Identity:
            time.sleep(0.5)
            return Identity("slow", "acme", Role.ADMIN)

    tenants = Tenants()
    with Server(tenants, Slow(), options=Options(port=0)) as server:
        with Client(server.address, insecure=Insecure.ALLOWED, timeout_seconds=0.1) as client, pytest.raises(Late):
            client.read_schema()
        server.stop(1)
    tenants.close()


def test_roots_for_a_channel_in_the_clear_are_refused():
    with pytest.raises(InvalidArgument, match="in the clear"):
        Client("localhost:1", roots=b"x", insecure=Insecure.ALLOWED)
