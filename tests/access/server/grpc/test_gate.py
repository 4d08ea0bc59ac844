"""Who is let in: keys, tokens, roles, tenants, quotas; and what is said when something breaks."""

import base64
import json
import time

import grpc
import jwt
import pytest
from authzed.api.v1 import (
    CheckBulkPermissionsRequest,
    CheckBulkPermissionsRequestItem,
    CheckPermissionResponse,
    DeleteRelationshipsRequest,
    InsecureClient,
    LookupResourcesRequest,
    ReadSchemaRequest,
    RelationshipFilter,
    WatchRequest,
    WriteSchemaRequest,
)
from cryptography.hazmat.primitives.asymmetric import ed25519

from cupola.access.graph import Graph
from cupola.access.server.identity import FirstOf
from cupola.access.server.jwt import FixedKeys, Tokens
from cupola.access.server.keys import Keys
from cupola.access.server.quota import Allowance, Quota

HAS = CheckPermissionResponse.PERMISSIONSHIP_HAS_PERMISSION
KEY = ed25519.Ed25519PrivateKey.generate()
JWKS = {"keys": [{**jwt.algorithms.OKPAlgorithm.to_jwk(KEY.public_key(), as_dict=True), "kid": "k", "alg": "EdDSA"}]}


def token(key=KEY, **changes) -> str:
    claims = {
        "sub": "ada",
        "iss": "https://issuer.example",
        "aud": "cupola",
        "exp": int(time.time()) + 600,
        "tenant": "acme",
        "role": "admin",
        **changes,
    }
    return jwt.encode(claims, key, algorithm="EdDSA", headers={"kid": "k"})


def part(value) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def changed(good: str, **changes) -> str:
    head, body, signature = good.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    return f"{head}.{part({**claims, **changes})}.{signature}"


def unsigned(good: str) -> str:
    return f"{part({'alg': 'none', 'kid': 'k'})}.{good.split('.')[1]}."


CALLS = [
    lambda client, m: client.CheckPermission(m.question("model:kiln#use", "user:ada")),
    lambda client, m: client.CheckBulkPermissions(CheckBulkPermissionsRequest()),
    lambda client, m: client.WriteRelationships(m.touches("model:kiln#owner@user:ada")),
    lambda client, m: client.DeleteRelationships(DeleteRelationshipsRequest()),
    lambda client, m: client.ReadSchema(ReadSchemaRequest()),
    lambda client, m: client.WriteSchema(WriteSchemaRequest(schema="definition user {}")),
    lambda client, m: client.ReadRelationships(m.read_request("model")),
    lambda client, m: client.LookupResources(LookupResourcesRequest()),
    lambda client, m: client.ImportBulkRelationships(iter([m.import_request("group:g#member@user:a")])),
    lambda client, m: client.Watch(WatchRequest()),
]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("key", ["", "wrong"])
def test_nobody_without_a_good_key(server, authzed, m, call, key):
    client = InsecureClient(server.address, key)
    assert m.refused(lambda: call(client, m)).code is grpc.StatusCode.UNAUTHENTICATED


def test_nobody_without_any_header(server, authzed, m):
    with grpc.insecure_channel(server.address) as channel:
        ask = channel.unary_unary("/authzed.api.v1.SchemaService/ReadSchema")
        assert m.refused(lambda: ask(b"")).code is grpc.StatusCode.UNAUTHENTICATED
        header = (("authorization", "Basic YTpi"),)
        assert m.refused(lambda: ask(b"", metadata=header)).code is grpc.StatusCode.UNAUTHENTICATED


def test_tenants_know_nothing_of_each_other(server, authzed, m):
    authzed.WriteRelationships(m.touches("model:kiln#owner@user:ada"))
    other = m.connect(server, m.KEYS["other-admin"])
    assert m.refused(lambda: other.ReadSchema(ReadSchemaRequest())).code is grpc.StatusCode.NOT_FOUND
    other.WriteSchema(WriteSchemaRequest(schema=m.SCHEMA))
    assert other.CheckPermission(m.question("model:kiln#use", "user:ada")).permissionship != HAS
    assert not list(other.ReadRelationships(m.read_request("model")))
    ours = authzed.CheckPermission(m.question("model:kiln#use", "user:ada"))
    assert ours.permissionship == HAS
    request = m.question("model:kiln#use", "user:ada")
    request.consistency.at_least_as_fresh.CopyFrom(ours.checked_at)
    found = m.refused(lambda: other.CheckPermission(request))
    assert found.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "another store" in found.text


def test_roles(server, authzed, m):
    denied = grpc.StatusCode.PERMISSION_DENIED
    reader, writer = (m.connect(server, m.KEYS[f"acme-{role}"]) for role in ("reader", "writer"))
    schema = WriteSchemaRequest(schema=m.SCHEMA)
    erase = DeleteRelationshipsRequest(relationship_filter=RelationshipFilter(resource_type="model"))
    writes = [
        lambda client: client.WriteRelationships(m.touches("model:kiln#owner@user:ada")),
        lambda client: client.DeleteRelationships(erase),
        lambda client: client.ImportBulkRelationships(iter([m.import_request("group:g#member@user:a")])),
    ]
    for write in writes:
        found = m.refused(lambda write=write: write(reader))
        assert found.code is denied
        assert "this needs a writer" in found.text
        write(writer)
    for client in (reader, writer):
        assert m.refused(lambda client=client: client.WriteSchema(schema)).code is denied
        client.CheckPermission(m.question("model:kiln#use", "user:ada"))
        client.ReadSchema(ReadSchemaRequest())


def test_tokens_of_a_provider(served, m):
    provider = Tokens(FixedKeys(JWKS), issuer="https://issuer.example", audience="cupola")
    server = served(authenticator=FirstOf(Keys([m.MADE["acme-admin"][1]]), provider))
    m.connect(server).WriteSchema(WriteSchemaRequest(schema=m.SCHEMA))
    good = token()
    ask = m.question("model:kiln#use", "user:ada")
    assert m.connect(server, good).CheckPermission(ask).checked_at.token
    now = int(time.time())
    bad = {
        "wrong audience": token(aud="other"),
        "wrong issuer": token(iss="https://evil.example"),
        "expired": token(exp=now - 60),
        "not yet": token(nbf=now + 600),
        "stranger's": token(key=ed25519.Ed25519PrivateKey.generate()),
        "unsigned": unsigned(good),
        "changed": changed(good, tenant="other"),
        "another role": changed(token(role="reader"), role="admin"),
        "cut": good[:-8],
    }
    for why, one in bad.items():
        client = m.connect(server, one)
        assert m.refused(lambda client=client: client.CheckPermission(ask)).code is grpc.StatusCode.UNAUTHENTICATED, why
    reader = m.connect(server, token(role="reader"))
    assert reader.CheckPermission(ask).checked_at.token
    assert m.refused(lambda: reader.WriteSchema(WriteSchemaRequest(schema=""))).code is (
        grpc.StatusCode.PERMISSION_DENIED
    )
    other = m.connect(server, token(tenant="other"))
    assert m.refused(lambda: other.CheckPermission(ask)).code is grpc.StatusCode.NOT_FOUND


def test_quotas(served, m):
    quota = Quota(
        Allowance(questions_per_second=0.01, questions_at_once=5, writes_per_second=0.01, writes_at_once=10),
        {"other": Allowance()},
    )
    server = served(quota=quota)
    client, other = m.connect(server), m.connect(server, m.KEYS["other-admin"])
    for one in (client, other):
        one.WriteSchema(WriteSchemaRequest(schema=m.SCHEMA))
    ask = m.question("model:kiln#use", "user:ada")
    for _ in range(5):
        client.CheckPermission(ask)
    found = m.refused(lambda: client.CheckPermission(ask))
    assert (found.code.name, found.reason) == ("RESOURCE_EXHAUSTED", "ERROR_REASON_EXCEEDS_MAXIMUM_ALLOWABLE_LIMIT")
    assert found.metadata["kind"] == "OverQuota"
    assert found.retry_seconds == pytest.approx(100.0, abs=5.0)
    assert m.refused(lambda: client.ReadRelationships(m.read_request("model"))).code.name == "RESOURCE_EXHAUSTED"
    for _ in range(20):
        other.CheckPermission(ask)
    client.WriteRelationships(m.touches(*(f"model:m{number}#owner@user:ada" for number in range(20))))
    assert m.refused(lambda: client.WriteRelationships(m.touches("model:n#owner@user:a"))).code.name == (
        "RESOURCE_EXHAUSTED"
    )


def test_a_batch_costs_as_much_as_it_asks(served, m):
    server = served(quota=Quota(Allowance(questions_per_second=0.01, questions_at_once=5)))
    client = m.connect(server)
    client.WriteSchema(WriteSchemaRequest(schema=m.SCHEMA))
    item = CheckBulkPermissionsRequestItem(resource=m.thing("model:kiln"), permission="use", subject=m.who("user:ada"))
    client.CheckBulkPermissions(CheckBulkPermissionsRequest(items=[item] * 5))
    assert m.refused(lambda: client.ReadSchema(ReadSchemaRequest())).code is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_an_import_is_charged_as_it_goes_on_and_writes_nothing_when_it_is_stopped(served, m):
    server = served(quota=Quota(Allowance(writes_per_second=0.01, writes_at_once=100)))
    client = m.connect(server)
    client.WriteSchema(WriteSchemaRequest(schema=m.SCHEMA))
    batches = (m.import_request(*(f"group:g{part}-{one}#member@user:a" for one in range(60))) for part in range(5))
    assert m.refused(lambda: client.ImportBulkRelationships(batches)).code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert not list(client.ReadRelationships(m.read_request("group")))


def test_streams_of_a_tenant_are_bounded(served, m):
    server = served(quota=Quota(Allowance(streams=1)))
    client, other = m.connect(server), m.connect(server, m.KEYS["other-admin"])
    for one in (client, other):
        one.WriteSchema(WriteSchemaRequest(schema=m.SCHEMA))
    watching = client.Watch(WatchRequest(optional_update_kinds=[3]))
    next(watching)
    assert m.refused(lambda: client.ReadRelationships(m.read_request("model"))).code.name == "RESOURCE_EXHAUSTED"
    assert not list(other.ReadRelationships(m.read_request("model")))
    client.CheckPermission(m.question("model:kiln#use", "user:ada"))
    watching.cancel()
    until = time.monotonic() + 5.0
    while time.monotonic() < until:
        try:
            assert not list(client.ReadRelationships(m.read_request("model")))
            break
        except grpc.RpcError:
            time.sleep(0.05)
    else:
        pytest.fail("the watch that ended counts on")


def test_a_mistake_of_ours_is_logged_and_told_to_nobody(authzed, m, monkeypatch, caplog):
    def broken(*_, **__):
        raise RuntimeError("the secret inside")

    monkeypatch.setattr(Graph, "check", broken)
    monkeypatch.setattr(Graph, "read", broken)
    for call in (
        lambda: authzed.CheckPermission(m.question("model:kiln#use", "user:ada")),
        lambda: authzed.ReadRelationships(m.read_request("model")),
    ):
        found = m.refused(call)
        assert found.code is grpc.StatusCode.INTERNAL
        assert "secret" not in found.text
    assert "the secret inside" in caplog.text
