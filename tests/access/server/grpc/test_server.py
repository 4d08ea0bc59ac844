"""Listening, health, TLS, shutdown, and being reached by the clients of others."""

import asyncio
import socket
import threading
import time

import grpc
import pytest
from authzed.api.v1 import (
    AsyncClient,
    CheckPermissionResponse,
    Client,
    SyncClient,
    WatchRequest,
    WriteSchemaRequest,
)
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpcutil import bearer_token_credentials, insecure_bearer_token_credentials

from cupola.access.client import Client as OurClient
from cupola.access.errors import InvalidArgument, StoreUnavailable
from cupola.access.server.grpc.server import Options, Server
from cupola.access.server.identity import Everybody
from cupola.access.server.keys import Keys
from cupola.access.server.tenants import Tenants
from cupola.access.server.tls import Certificate, Insecure

HAS = CheckPermissionResponse.PERMISSIONSHIP_HAS_PERMISSION


def test_every_way_to_connect(authzed, server, m):
    authzed.WriteRelationships(m.touches("model:kiln#owner@user:ada"))
    credentials = insecure_bearer_token_credentials(m.ADMIN)
    for client in (
        SyncClient(server.address, credentials),
        Client(server.address, credentials),
        m.connect_anywhere(server),
    ):
        assert client.CheckPermission(m.question("model:kiln#use", "user:ada")).permissionship == HAS


def test_the_asynchronous_client_of_others(authzed, server, m):

    async def ask() -> list[int]:
        client = AsyncClient(server.address, insecure_bearer_token_credentials(m.ADMIN))
        await client.WriteRelationships(m.touches("model:kiln#owner@user:ada"))
        answers = await asyncio.gather(
            *(client.CheckPermission(m.question("model:kiln#use", "user:ada")) for _ in range(20))
        )
        return [answer.permissionship for answer in answers]

    assert asyncio.run(ask()) == [HAS] * 20


def test_health(server):
    with grpc.insecure_channel(server.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        serving = health_pb2.HealthCheckResponse.SERVING
        for service in ("", "authzed.api.v1.PermissionsService", "authzed.api.v1.WatchService"):
            assert stub.Check(health_pb2.HealthCheckRequest(service=service)).status == serving
        with pytest.raises(grpc.RpcError) as error:
            stub.Check(health_pb2.HealthCheckRequest(service="other"))
        assert error.value.code() is grpc.StatusCode.NOT_FOUND


def test_tls(served, signed, m):
    server = served(certificate=Certificate(signed.chain, signed.key))
    client = SyncClient(server.address, bearer_token_credentials(m.ADMIN, signed.roots))
    client.WriteSchema(WriteSchemaRequest(schema=m.SCHEMA))
    with OurClient(server.address, m.ADMIN, roots=signed.roots) as ours:
        assert "definition user" in ours.read_schema()[1]
    with OurClient(server.address, m.ADMIN, timeout_seconds=5) as ours, pytest.raises(StoreUnavailable):
        ours.read_schema()
    with (
        OurClient(server.address, m.ADMIN, insecure=Insecure.ALLOWED, timeout_seconds=5) as ours,
        pytest.raises(StoreUnavailable),
    ):
        ours.read_schema()


def test_callers_must_show_a_certificate_where_they_are_asked_for_one(served, signed, m):
    server = served(certificate=Certificate(signed.chain, signed.key, signed.chain))
    with (
        OurClient(server.address, m.ADMIN, roots=signed.roots, timeout_seconds=5) as ours,
        pytest.raises(StoreUnavailable),
    ):
        ours.read_schema()
    shown = grpc.ssl_channel_credentials(signed.roots, signed.key.read_bytes(), signed.chain.read_bytes())
    client = SyncClient(
        server.address, grpc.composite_channel_credentials(shown, grpc.access_token_call_credentials(m.ADMIN))
    )
    assert client.WriteSchema(WriteSchemaRequest(schema=m.SCHEMA)).written_at.token


def test_where_others_hear_it_does_not_listen_in_the_clear():
    with pytest.raises(InvalidArgument, match="in the clear"):
        Server(Tenants(), Keys([]), options=Options(host="0.0.0.0", port=0))
    Server(Tenants(), Keys([]), options=Options(host="0.0.0.0", port=0, insecure=Insecure.ALLOWED)).stop(0)


def test_a_port_that_is_taken():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(StoreUnavailable, match="the port is taken"):
            Server(Tenants(), Everybody(), options=Options(port=taken.getsockname()[1]))


def test_a_message_over_the_bound_is_refused(served, m):
    client = m.connect(served(message_bytes=1000))
    found = m.refused(lambda: client.WriteSchema(WriteSchemaRequest(schema="/* " + "x" * 2000 + " */")))
    assert found.code is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_more_calls_than_can_wait_are_refused(served, m):
    server = served(calls=1, streams=1, waiting=0)
    client = m.connect(server)
    client.WriteSchema(WriteSchemaRequest(schema=m.SCHEMA))
    streams = [client.Watch(WatchRequest(optional_update_kinds=[3]))]
    next(streams[0])
    streams.append(client.Watch(WatchRequest(optional_update_kinds=[3])))
    time.sleep(0.2)
    assert m.refused(lambda: client.CheckPermission(m.question("model:kiln#use", "user:ada"))).code is (
        grpc.StatusCode.RESOURCE_EXHAUSTED
    )
    for stream in streams:
        stream.cancel()


def test_it_stops_when_what_runs_has_ended_and_ends_what_is_watched(served, m):
    seen = []
    server = served(observe=seen.append)
    client = m.connect(server)
    client.WriteSchema(WriteSchemaRequest(schema=m.SCHEMA))
    watching = client.Watch(WatchRequest(optional_update_kinds=[1, 3]))
    first = next(watching)
    assert first.is_checkpoint

    def slow():
        for number in range(3):
            time.sleep(0.2)
            yield m.import_request(f"group:g{number}#member@user:ada")

    sent = client.ImportBulkRelationships.future(slow())
    time.sleep(0.3)
    began = time.monotonic()
    stopping = threading.Thread(target=server.stop, args=(10.0,))
    stopping.start()
    assert sent.result().num_loaded == 3, "what runs ends"
    found = m.refused(lambda: watching)
    assert found.code is grpc.StatusCode.UNAVAILABLE
    assert found.metadata["kind"] == "StoreUnavailable"
    stopping.join()
    assert time.monotonic() - began < 5.0, "it does not wait for the grace to be over"
    assert m.refused(lambda: client.CheckPermission(m.question("model:kiln#use", "user:ada"))).code is (
        grpc.StatusCode.UNAVAILABLE
    )
    assert {one.method: one.code for one in seen} == {
        "WriteSchema": "OK",
        "Watch": "UNAVAILABLE",
        "ImportBulkRelationships": "OK",
    }
    assert next(one for one in seen if one.method == "ImportBulkRelationships").request is None


def test_what_runs_over_the_grace_is_cut_off(served, m):
    server = served()
    client = m.connect(server)
    client.WriteSchema(WriteSchemaRequest(schema=m.SCHEMA))
    end = threading.Event()

    def slow():
        yield m.import_request("group:g#member@user:ada")
        end.wait(10)

    sent = client.ImportBulkRelationships.future(slow())
    time.sleep(0.2)
    began = time.monotonic()
    server.stop(0.2)
    assert time.monotonic() - began < 3.0
    end.set()
    assert sent.exception() is not None


def test_every_call_is_told_of(served, m):
    seen = []
    server = served(observe=seen.append)
    client = m.connect(server)
    client.WriteSchema(WriteSchemaRequest(schema=m.SCHEMA))
    client.CheckPermission(m.question("model:kiln#use", "user:ada"))
    list(client.ReadRelationships(m.read_request("model")))
    m.refused(lambda: m.connect(server, "wrong").CheckPermission(m.question("model:kiln#use", "user:ada")))
    assert [(one.method, one.caller and one.caller.name, one.code) for one in seen] == [
        ("WriteSchema", "acme-admin", "OK"),
        ("CheckPermission", "acme-admin", "OK"),
        ("ReadRelationships", "acme-admin", "OK"),
        ("CheckPermission", None, "UNAUTHENTICATED"),
    ]
    assert seen[1].answer.checked_at.token
    assert seen[1].seconds > 0
