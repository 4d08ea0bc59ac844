import json
import os
import signal
import ssl
import subprocess
import sys
import time

import grpc
import httpx2
import pytest
from authzed.api.v1 import (
    CheckPermissionRequest,
    ObjectReference,
    PermissionsServiceStub,
    SubjectReference,
    WriteSchemaRequest,
)
from authzed.api.v1.schema_service_pb2_grpc import SchemaServiceStub

from cupola.access.errors import InvalidArgument
from cupola.access.server.audit import Audit
from cupola.access.server.grpc.server import Options
from cupola.access.server.http.bounds import Bounds
from cupola.access.server.serve import Address, Exposure, Server
from cupola.access.server.tenants import Tenants
from cupola.access.server.tls import Certificate, Insecure

SCHEMA = "definition user {}\ndefinition file { relation reader: user }"
QUICK = Bounds(grace_seconds=0.5)


def test_both_servers_share_graphs_metrics_and_the_log(tmp_path):
    audit = Audit(tmp_path / "audit.jsonl", sample=1.0)
    server = Server(Tenants(), grpc=Options(port=0), bounds=QUICK, audit=audit)
    with server.running() as url, httpx2.Client(base_url=url) as api:
        with grpc.insecure_channel(server.grpc.address) as channel:
            SchemaServiceStub(channel).WriteSchema(WriteSchemaRequest(schema=SCHEMA))
            fact = {"touch": ["file:1#reader@user:ada"]}
            assert api.post("/v1/relationships/write", json=fact).status_code == 200
            answer = PermissionsServiceStub(channel).CheckPermission(
                CheckPermissionRequest(
                    resource=ObjectReference(object_type="file", object_id="1"),
                    permission="reader",
                    subject=SubjectReference(object=ObjectReference(object_type="user", object_id="ada")),
                )
            )
        assert answer.permissionship == answer.PERMISSIONSHIP_HAS_PERMISSION
        api.post("/v1/check", json={"permission": "file:1#reader", "subject": "user:bob"})
        assert 'route="grpc/CheckPermission",status="OK"' in api.get("/metrics").text
    told = [json.loads(line) for line in audit.path.read_text().splitlines()]
    assert [one["kind"] for one in told] == ["write", "write", "decision", "decision"]
    assert told[1]["changes"] == ["touch file:1#reader@user:ada"]
    assert told[1]["by"] == "everybody"
    assert told[3]["verdict"] == "no"


def test_tls(signed):
    server = Server(Tenants(), certificate=Certificate(signed.chain, signed.key), bounds=QUICK)
    context = ssl.create_default_context(cadata=signed.roots.decode())
    with server.running() as url, httpx2.Client(base_url=url, verify=context) as api:
        assert url.startswith("https://")
        assert api.get("/health").status_code == 200


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"http": Address("0.0.0.0")}, "keys would travel|no keys are asked"),
        ({"http": Address("0.0.0.0"), "insecure": Insecure.ALLOWED}, "no keys are asked"),
        ({"http": None, "grpc": Options(host="0.0.0.0", port=0)}, "keys would travel|no keys are asked"),
        ({"http": Address("0.0.0.0"), "exposure": Exposure.ANYONE}, "in the clear"),
        (
            {"http": Address("no.such.host.invalid"), "insecure": Insecure.ALLOWED, "exposure": Exposure.ANYONE},
            "no address",
        ),
    ],
)
def test_what_is_not_safe_is_refused(options, says):
    with pytest.raises(InvalidArgument, match=says):
        Server(Tenants(), **options)


def test_a_taken_port_is_refused():
    server = Server(Tenants(), bounds=QUICK)
    port = int(server.url.rpartition(":")[2])
    with pytest.raises(InvalidArgument, match="cannot listen"):
        Server(Tenants(), http=Address(port=port))
    server.stop()
    server.stop()


PROGRAM = """
import logging, sys
from cupola.access.server.serve import Address, Server
from cupola.access.server.tenants import Tenants
server = Server(Tenants(sys.argv[1]), http=Address(port=0))
print(server.url, flush=True)
server.run()
print("ended", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_it_and_what_was_written_stays(tmp_path, number):
    path = str(tmp_path / "access.db")
    program = subprocess.Popen([sys.executable, "-c", PROGRAM, path], stdout=subprocess.PIPE, text=True)
    try:
        url, deadline = program.stdout.readline().strip(), time.monotonic() + 20
        with httpx2.Client(base_url=url) as api:
            while True:
                try:
                    assert api.post("/v1/schema", json={"text": SCHEMA}).status_code == 200
                    break
                except httpx2.TransportError:
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
        os.kill(program.pid, number)
        assert program.wait(timeout=20) == 0
        assert program.stdout.read() == "ended\n"
    finally:
        program.kill()
        program.wait()
        program.stdout.close()
    tenants = Tenants(path)
    with tenants.graph("default") as graph:
        assert len(graph.schemas()) == 1
    tenants.close()
