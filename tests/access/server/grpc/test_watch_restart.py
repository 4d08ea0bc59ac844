"""Watching and reading across the death of a server: nothing is lost, nothing comes twice, nothing is stale."""

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from authzed.api.v1 import (
    CheckPermissionResponse,
    Consistency,
    RelationshipUpdate,
    WatchRequest,
    WriteRelationshipsRequest,
    WriteSchemaRequest,
)
from authzed.api.v1 import watch_service_pb2 as api

from cupola.access.graph import Graph

SERVE = """
import sys, time
from cupola.access.server.grpc.server import Options, Server
from cupola.access.server.identity import Everybody, Role
from cupola.access.server.tenants import Tenants

options = Options(port=int(sys.argv[2]), pulse_seconds=0.2)
server = Server(Tenants(sys.argv[1], quantum_seconds=1000.0), Everybody(), options=options)
server.start()
print(server.port, flush=True)
time.sleep(1000)
"""
YES = CheckPermissionResponse.PERMISSIONSHIP_HAS_PERMISSION
KINDS = [api.WATCH_KIND_INCLUDE_RELATIONSHIP_UPDATES, api.WATCH_KIND_INCLUDE_CHECKPOINTS]


class Process:
    """A server in a process of its own."""

    def __init__(self, path: str, port: int = 0):
        self.running = subprocess.Popen(
            [sys.executable, "-c", SERVE, path, str(port)], stdout=subprocess.PIPE, text=True
        )
        self.port = int(self.running.stdout.readline())
        self.address = f"127.0.0.1:{self.port}"

    def kill(self) -> None:
        self.running.kill()
        self.running.communicate()


def stubborn(call):
    """Calls until a server answers."""
    until = time.monotonic() + 60
    while True:
        try:
            return call()
        except grpc.RpcError as error:
            if time.monotonic() > until or error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            time.sleep(0.05)


@pytest.mark.parametrize("deaths", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_a_server_that_dies_and_comes_again(m, tmp_path, deaths):
    path = str(tmp_path / "access.db")
    server = Process(path)
    client, watcher = m.connect(server), m.connect(server)
    start = client.WriteSchema(WriteSchemaRequest(schema=m.SCHEMA)).written_at
    made, over, written = [], threading.Event(), threading.Event()

    def write() -> None:
        while not over.is_set():
            request = m.touches(f"model:m{len(made)}#owner@user:ada")
            stubborn(lambda: client.WriteRelationships(request))  # noqa: B023
            made.append(f"m{len(made)}")

    def watch() -> list[str]:
        seen, at, pulses = [], start, 0
        while not (written.is_set() and len(seen) >= len(made) and pulses):
            stream = watcher.Watch(WatchRequest(optional_start_cursor=at, optional_update_kinds=KINDS))
            try:
                for one in stream:
                    at = one.changes_through
                    seen += [update.relationship.resource.object_id for update in one.updates]
                    pulses += one.is_checkpoint
                    if written.is_set() and len(seen) >= len(made):
                        stream.cancel()
                        break
                    if len(seen) % 5 == 4:
                        time.sleep(0.01)  # Slower than the writer, now and then.
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                time.sleep(0.05)
        return seen

    with ThreadPoolExecutor(2) as pool:
        writing, watching = pool.submit(write), pool.submit(watch)
        for _ in range(deaths):
            before, until = len(made), time.monotonic() + 60
            while len(made) < before + 20 and time.monotonic() < until:
                time.sleep(0.01)
            server.kill()
            server = Process(path, server.port)
        time.sleep(0.3)
        over.set()
        writing.result(90)
        written.set()
        seen = watching.result(90)
    server.kill()
    # A write whose answer was lost is made again; a touch of what is there changes nothing and is not told of.
    assert seen == made
    assert len(made) >= 20 * deaths
    with Graph.open(path) as graph:
        assert graph.store.head() >= len(made)


@pytest.mark.parametrize("rounds", [50, pytest.param(2000, marks=pytest.mark.slow)])
def test_a_right_that_was_taken_is_gone_in_every_server(m, tmp_path, rounds):
    path = str(tmp_path / "access.db")
    servers = [Process(path) for _ in range(2)]
    first, second = (m.connect(server) for server in servers)
    first.WriteSchema(WriteSchemaRequest(schema=m.SCHEMA))
    stale = 0
    try:
        for n in range(rounds):
            writer, reader = (first, second) if n % 2 else (second, first)
            fact = f"model:kiln#owner@user:u{n}"
            opened = writer.WriteRelationships(m.touches(fact)).written_at
            asked = m.question("model:kiln#own", f"user:u{n}", consistency=Consistency(at_least_as_fresh=opened))
            assert reader.CheckPermission(asked).permissionship == YES
            gone = RelationshipUpdate(operation=RelationshipUpdate.OPERATION_DELETE, relationship=m.fact(fact))
            shut = writer.WriteRelationships(WriteRelationshipsRequest(updates=[gone])).written_at
            stale += reader.CheckPermission(m.question("model:kiln#own", f"user:u{n}")).permissionship == YES
            asked = m.question("model:kiln#own", f"user:u{n}", consistency=Consistency(at_least_as_fresh=shut))
            assert reader.CheckPermission(asked).permissionship != YES, n
    finally:
        for server in servers:
            server.kill()


def test_a_token_from_before_what_is_kept(m, tmp_path):
    path = str(tmp_path / "access.db")
    server = Process(path)
    client = m.connect(server)
    old = client.WriteSchema(WriteSchemaRequest(schema=m.SCHEMA)).written_at
    client.WriteRelationships(m.touches("model:kiln#owner@user:ada"))
    with Graph.open(path) as graph:
        graph.collect(-1.0)
    found = m.refused(lambda: client.Watch(WatchRequest(optional_start_cursor=old)))
    server.kill()
    assert found.code is grpc.StatusCode.OUT_OF_RANGE
    assert "no longer kept" in found.text
