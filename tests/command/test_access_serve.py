"""The permission graph served: a process, two ports, a signal; clients of others; and what it does not import."""

import contextlib
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import grpc
import pytest
from authzed.api.v1 import (
    CheckPermissionRequest,
    CheckPermissionResponse,
    InsecureClient,
    ObjectReference,
    SubjectReference,
)
from openfga_sdk import ClientConfiguration
from openfga_sdk.client.models import ClientCheckRequest
from openfga_sdk.models import CreateStoreRequest
from openfga_sdk.sync import OpenFgaClient

CUPOLA = str(Path(sys.executable).with_name("cupola"))
SCHEMA = "definition user {}\ndefinition doc { relation owner: user }\n"


def run(*words, **options):
    return subprocess.run([CUPOLA, "access", *map(str, words)], capture_output=True, text=True, timeout=60, **options)


@contextlib.contextmanager
def serving(*words):
    """A server; gives its gRPC address, its URL and the process."""
    command = [CUPOLA, "access", "serve", *map(str, words), "--port", "0", "--grpc-port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        told = process.stdout.readline() + process.stdout.readline()
        found = re.search(r"gRPC at (\S+)\nHTTP and the playground at (http\S+);", told)
        assert found, told + (process.stdout.read() if process.poll() is not None else "")
        yield found[1], found[2], process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def database(tmp_path):
    (tmp_path / "lab.zed").write_text(SCHEMA)
    assert run("schema", "write", tmp_path / "access.db", tmp_path / "lab.zed").returncode == 0
    assert run("write", tmp_path / "access.db", "doc:1#owner@user:ada").returncode == 0
    return tmp_path / "access.db"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_clients_of_others_ask_it_and_a_signal_ends_it_well(database, number):
    with serving(database) as (address, url, process):
        client = InsecureClient(address, "none")
        request = CheckPermissionRequest(
            resource=ObjectReference(object_type="doc", object_id="1"),
            permission="owner",
            subject=SubjectReference(object=ObjectReference(object_type="user", object_id="ada")),
        )
        with grpc.insecure_channel(address):
            answer = client.CheckPermission(request)
        assert answer.permissionship == CheckPermissionResponse.PERMISSIONSHIP_HAS_PERMISSION
        with OpenFgaClient(ClientConfiguration(api_url=url)) as fga:
            store = fga.create_store(CreateStoreRequest(name="a store"))
            fga.set_store_id(store.id)
            fga.write_authorization_model(
                {"schema_version": "1.1", "type_definitions": [{"type": "user", "relations": {}}]}
            )
            with pytest.raises(Exception, match="doc"):
                fga.check(ClientCheckRequest(user="user:ada", relation="owner", object="doc:1"))
        with urllib.request.urlopen(url) as page:
            assert "<title>" in page.read().decode()
        process.send_signal(number)
        told, _ = process.communicate(timeout=30)
        assert (process.returncode, told.splitlines()[-1]) == (0, "stopped")


def test_the_commands_ask_a_server_as_they_ask_a_database(database, tmp_path):
    key = run("key", "ada", "--role", "admin", "--file", tmp_path / "keys").stdout
    (tmp_path / "key").write_text(key)
    with serving(database, "--keys", tmp_path / "keys") as (address, _, _):
        server = f"grpc://{address}"
        assert run("check", server, "doc:1#owner", "user:ada", "--key", "-", input=key).stdout == "allowed\n"
        refused = run("check", server, "doc:1#owner", "user:ada")
        assert (refused.returncode, "Unauthenticated" in refused.stderr) == (2, True)
        more = ("--key", tmp_path / "key")
        token = run("write", server, "doc:2#owner@user:ada", *more).stdout.strip()
        assert run("lookup", "resources", server, "doc", "owner", "user:ada", *more).stdout == "doc:1\ndoc:2\n"
        assert run("lookup", "subjects", server, "doc:2#owner", "user", *more).stdout == "user:ada\n"
        assert run("export", server, *more).stdout.splitlines() == ["doc:1#owner@user:ada", "doc:2#owner@user:ada"]
        assert run("import", server, "-", *more, input="doc:3#owner@user:bob\n").returncode == 0
        assert "definition doc" in run("schema", "read", server, *more).stdout
        assert "doc:1#owner" in run("explain", server, "doc:1#owner", "user:ada", *more).stdout
        assert "user:ada" in run("expand", server, "doc:1#owner", *more).stdout
        watching(server, token, ["touch\tdoc:3#owner@user:bob", "create\tdoc:3#owner@user:bob"], more)


def test_a_watch_goes_on_from_its_token(database):
    token = run("write", database, "doc:2#owner@user:ada").stdout.strip()
    run("write", database, "doc:3#owner@user:ada")
    run("write", database, "--operation", "delete", "doc:3#owner@user:ada")
    watching(str(database), token, ["touch\tdoc:3#owner@user:ada"])


def watching(address, token, expected, more=()):
    command = [CUPOLA, "access", "watch", address, "--from", token, *map(str, more)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        line = next(line for line in process.stdout if not line.startswith("now"))
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=30)
    assert line.rpartition("\t")[0] in expected
    assert process.returncode == 130, told
    assert "Traceback" not in told


def test_a_reader_who_goes_away_is_no_error(database):
    run("import", database, "-", input="".join(f"doc:d{n}#owner@user:ada\n" for n in range(5000)))
    command = f"{CUPOLA} access export {database} | head -1"
    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert ended.stdout == "doc:1#owner@user:ada\n"
    assert "Traceback" not in ended.stderr


BLOCKED = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocked())
sys.argv = ["cupola", *{words}]
from cupola.command.main import main
main()
"""


def blocked(names, *words):
    code = BLOCKED.format(blocked=set(names), words=list(map(str, words)))
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


def test_the_permission_graph_needs_no_jax(database):
    ended = blocked(["jax", "jaxlib", "optax", "numpy"], "access", "check", database, "doc:1#owner", "user:ada")
    assert (ended.returncode, ended.stdout) == (0, "allowed\n"), ended.stderr
    other = blocked(["jax"], "train", "quickstart")
    assert (other.returncode, "jax is not installed" in other.stderr) == (2, True)


def test_the_other_commands_need_no_package_of_the_permission_graph():
    ended = blocked(["grpc", "authzed", "yaml"], "access", "check", "access.db", "a:b#c", "u:x")
    assert (ended.returncode, "cupola[access]" in ended.stderr) == (2, True), ended.stderr
    assert blocked(["grpc", "authzed", "yaml"], "version").returncode == 0


def test_nothing_is_imported_before_it_is_asked_for():
    code = "import sys, cupola.command.main; print([m for m in ('jax', 'grpc', 'cupola.access') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
