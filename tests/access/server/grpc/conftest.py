"""A server of two tenants on a port of its own, and what speaks to it."""

import sys
from collections.abc import Callable, Iterator
from types import ModuleType

import grpc
import pytest
from authzed.api.v1 import (
    CheckPermissionRequest,
    InsecureClient,
    ObjectReference,
    ReadRelationshipsRequest,
    Relationship,
    RelationshipFilter,
    RelationshipUpdate,
    SubjectReference,
    SyncClient,
    WriteRelationshipsRequest,
    WriteSchemaRequest,
)
from authzed.api.v1.permission_service_pb2 import ImportBulkRelationshipsRequest
from google.rpc import error_details_pb2, status_pb2
from grpcutil import insecure_bearer_token_credentials

from cupola.access.client import Client
from cupola.access.server.grpc.server import Options, Server
from cupola.access.server.identity import Role
from cupola.access.server.keys import Keys, new_key
from cupola.access.server.tenants import Tenants
from cupola.access.server.tls import Insecure

SCHEMA = """
use expiration

/** somebody */
definition user {}

definition group {
    relation member: user | group#member
}

caveat near(distance int, allowed int) {
    distance <= allowed
}

/** what was trained */
definition model {
    /** who may read */
    relation reader: user | group#member | user with near | user with expiration
    relation owner: user
    relation banned: user
    relation guest: user | user:*
    permission own = owner
    permission use = reader + own + guest - banned
}
"""

MADE = {
    f"{tenant}-{role.value}": new_key(f"{tenant}-{role.value}", tenant, role)
    for tenant in ("acme", "other")
    for role in Role
}
KEYS = {name: key for name, (key, _) in MADE.items()}
ADMIN = KEYS["acme-admin"]


@pytest.fixture(scope="session")
def m() -> ModuleType:
    """What is written below, for the tests, which cannot import it."""
    return sys.modules[__name__]


@pytest.fixture
def served() -> Iterator[Callable[..., Server]]:
    """Starts servers, which are stopped when the test ends."""
    running: list[tuple[Server, Tenants]] = []

    def start(*, authenticator=None, quota=None, observe=lambda _: None, **options) -> Server:
        tenants = Tenants()
        server = Server(
            tenants,
            authenticator or Keys(kept for _, kept in MADE.values()),
            quota=quota,
            options=Options(port=0, **{"pulse_seconds": 0.2, **options}),
            observe=observe,
        )
        server.start()
        running.append((server, tenants))
        return server

    yield start
    for server, tenants in running:
        server.stop(0.2)
        tenants.close()


@pytest.fixture
def server(served) -> Server:
    return served()


@pytest.fixture
def authzed(server) -> SyncClient:
    """The client of others, unmodified, as the administrator of a tenant with a schema."""
    client = connect(server)
    client.WriteSchema(WriteSchemaRequest(schema=SCHEMA))
    return client


@pytest.fixture
def client(server) -> Iterator[Client]:
    """Our client, likewise."""
    with Client(server.address, ADMIN, insecure=Insecure.ALLOWED) as client:
        client.write_schema(SCHEMA)
        yield client


def connect(server: Server, token: str = ADMIN) -> SyncClient:
    return SyncClient(server.address, insecure_bearer_token_credentials(token))


def connect_anywhere(server: Server, token: str = ADMIN) -> InsecureClient:
    return InsecureClient(server.address, token)


def thing(text: str) -> ObjectReference:
    type, id = text.split(":", 1)
    return ObjectReference(object_type=type, object_id=id)


def who(text: str) -> SubjectReference:
    object, _, relation = text.partition("#")
    return SubjectReference(object=thing(object), optional_relation=relation)


def fact(text: str) -> Relationship:
    left, subject = text.split("@", 1)
    object, relation = left.split("#", 1)
    return Relationship(resource=thing(object), relation=relation, subject=who(subject))


def touches(*texts: str) -> WriteRelationshipsRequest:
    operation = RelationshipUpdate.OPERATION_TOUCH
    return WriteRelationshipsRequest(
        updates=[RelationshipUpdate(operation=operation, relationship=fact(text)) for text in texts]
    )


def question(permission: str, subject: str, **more) -> CheckPermissionRequest:
    object, name = permission.split("#")
    return CheckPermissionRequest(resource=thing(object), permission=name, subject=who(subject), **more)


def read_request(type: str, **more) -> ReadRelationshipsRequest:
    return ReadRelationshipsRequest(relationship_filter=RelationshipFilter(resource_type=type), **more)


def import_request(*texts: str) -> ImportBulkRelationshipsRequest:
    return ImportBulkRelationshipsRequest(relationships=[fact(text) for text in texts])


class Refused:
    """The status of a call that was refused."""

    code: grpc.StatusCode
    text: str
    reason: str
    metadata: dict[str, str]
    retry_seconds: float = 0.0


def finish(call: Callable[[], object]) -> None:
    """Makes a call, and takes all that it streams."""
    answer = call()
    if isinstance(answer, Iterator):
        list(answer)


def refused(call: Callable[[], object]) -> Refused:
    """Returns the status of a call, which must be refused."""
    with pytest.raises(grpc.RpcError) as error:
        finish(call)
    found = Refused()
    found.code, found.text, found.reason, found.metadata = error.value.code(), error.value.details(), "", {}
    for name, value in error.value.trailing_metadata() or ():
        if name != "grpc-status-details-bin":
            continue
        status = status_pb2.Status.FromString(value)
        assert (status.code, status.message) == (found.code.value[0], found.text)
        for detail in status.details:
            for kind in (error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()):
                if detail.Is(kind.DESCRIPTOR):
                    detail.Unpack(kind)
                    if isinstance(kind, error_details_pb2.RetryInfo):
                        found.retry_seconds = kind.retry_delay.ToMilliseconds() / 1000
                    else:
                        assert kind.domain == "authzed.com"
                        found.reason, found.metadata = kind.reason, dict(kind.metadata)
    return found
