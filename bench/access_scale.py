"""A large graph behind our gRPC server: how fast it is loaded, and how fast it answers 1, 16 and 64 clients.

Files lie in a tree of folders; users view them directly, through groups that lie in groups, or through a folder.
Questions are drawn evenly from all files, half of them yes: hardly one meets what another has read, apart from
folders and groups. Server and clients are processes of their own on the same cores; every answer is checked.
  safe    as fast as the server can (minimize latency)
  recent  at least as fresh as the newest of 10 writes a second
Not here: what is aimed at, the table (`access.py`).
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import pwd
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import access_shapes
import grpc
from authzed.api.v1 import core_pb2 as core
from authzed.api.v1 import permission_service_pb2 as api

from cupola.access import Graph
from cupola.access.relation import Object, Relationship, Subject
from cupola.access.server.grpc.server import Options, Server
from cupola.access.server.identity import Everybody
from cupola.access.server.tenants import Tenants

BLOCK = 100
"""Relationships of a folder with its ten files; a graph has a whole number of them."""
SAFE, RECENT = "safe", "recent"
CLIENTS = (1, 16, 64)
QUANTUM_SECONDS = 1.0
"""How long the server goes on with one revision where a question does not say how fresh."""
SCHEMA = """
definition user {}
definition group {
    relation member: user | group#member
}
definition folder {
    relation parent: folder
    relation viewer: user | group#member
    permission view = viewer + parent->view
}
definition file {
    relation parent: folder
    relation viewer: user | group#member
    permission view = viewer + parent->view
}
"""
INDEXED_MICROSECONDS = 10_000
"""Of four clients: with the index an answer takes about one millisecond, without it as many as there are groups."""
_CHECK = "/authzed.api.v1.PermissionsService/CheckPermission"
_WRITE = "/authzed.api.v1.PermissionsService/WriteRelationships"
YES = api.CheckPermissionResponse.PERMISSIONSHIP_HAS_PERMISSION


class Scale:
    """The graph, which is made by counting: nothing of it is kept.

    Args:
        relationships: how many, about.
    """

    def __init__(self, relationships: int):
        self.blocks = max(relationships // BLOCK, 100)
        self._groups, self._users = self.blocks // 2, self.blocks * 10

    def relationships(self) -> Iterator[Relationship]:
        """Yields all of them."""
        for block in range(self.blocks):
            folder = Object("folder", f"d{block}")
            yield Relationship(folder, "parent", Subject("folder", f"d{block // 10 if block else 'top'}"))
            yield Relationship(folder, "viewer", Subject("group", f"g{block % self._groups}", "member"))
            for file in range(10 * block, 10 * block + 10):
                yield from self._of_file(file, Subject("folder", folder.id))
            for k in range(26):
                group, user = self._membership(block, k)
                yield Relationship(Object("group", group), "member", Subject("user", user))
            yield Relationship(Object("group", "outside"), "member", Subject("user", f"x{block}"))
            if 0 < block < self._groups:
                outer = Object("group", f"g{(block - 1) // 2}")
                yield Relationship(outer, "member", Subject("group", f"g{block}", "member"))

    def _of_file(self, number: int, folder: Subject) -> Iterator[Relationship]:
        file = Object("file", f"f{number}")
        yield Relationship(file, "parent", folder)
        yield Relationship(file, "viewer", Subject("group", f"g{number % self._groups}", "member"))
        for k in range(5):
            yield Relationship(file, "viewer", Subject("user", self._viewer(number, k)))

    def _viewer(self, file: int, k: int) -> str:
        return f"u{(file * 7919 + k * 104729) % self._users}"

    def _membership(self, block: int, k: int) -> tuple[str, str]:
        return f"g{(block * 7 + k) % self._groups}", f"u{(block * 26 + k) % self._users}"

    def _member(self, group: int) -> str:
        return self._membership(group // 7, group % 7)[1]

    def questions(self, seed: int) -> Iterator[tuple[str, str, bool]]:
        """Yields files, users and answers without end."""
        chance = random.Random(seed)
        while True:
            file = chance.randrange(10 * self.blocks)
            yield f"f{file}", self._viewer(file, chance.randrange(5)), True
            yield f"f{file}", f"x{chance.randrange(self.blocks)}", False
            yield f"f{file}", self._member(file % self._groups), True
            yield f"f{file}", f"x{chance.randrange(self.blocks)}", False
            yield f"f{file}", self._member(file // 100 % self._groups), True
            yield f"f{file}", f"x{chance.randrange(self.blocks)}", False


def measure(relationships: int, seconds: float) -> list[dict[str, Any]]:
    """Loads and asks in SQLite and PostgreSQL, where there is one; returns what each has shown."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        found.append(_measure("SQLite", f"{folder}/scale.db", relationships, seconds))
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(postgres())
        if address:
            found.append(_measure("PostgreSQL", address, relationships, seconds))
        else:
            say("PostgreSQL is left out: it needs Debian's package postgresql")
    return found


def _measure(store: str, address: str, relationships: int, seconds: float) -> dict[str, Any]:
    scale = Scale(relationships)
    found: dict[str, Any] = {"store": store} | load(store, address, scale)
    started = [sys.executable, __file__, "serve", address]
    with subprocess.Popen(started, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        port = json.loads(server.stdout.readline() if server.stdout else "{}")["port"]
        found["warm_seconds"] = warm(port, relationships)
        for freshness, clients in itertools.product((SAFE, RECENT), CLIENTS):
            found[f"{freshness} {clients}"] = ask(port, relationships, clients, freshness, seconds)
            say(f"{store}: {freshness}, {clients} clients: {found[f'{freshness} {clients}']}")
        server.communicate()
    return found


def load(store: str, address: str, scale: Scale) -> dict[str, Any]:
    """Loads the graph at one revision; returns how many relationships and how fast."""

    def counted() -> Iterator[Relationship]:
        for number, one in enumerate(scale.relationships(), 1):
            yield one
            if number % 1_000_000 == 0:
                say(f"{store}: {number} relationships after {time.perf_counter() - start:.0f} s")

    with Graph.open(address) as graph:
        graph.write_schema(SCHEMA)
        start = time.perf_counter()
        count = graph.load(counted())
        seconds = time.perf_counter() - start
    say(f"{store}: {count} relationships in {seconds:.0f} s, {count / seconds:.0f} a second")
    return {"relationships": count, "load_seconds": seconds, "loaded_per_second": count / seconds}


def warm(port: int, relationships: int) -> float:
    """Asks until answers are fast, which they are once the groups have been indexed in the background, or for as long
    as that may take at most; returns seconds."""
    start = time.perf_counter()
    while ask(port, relationships, 4, SAFE, 2.0)["p50"] > INDEXED_MICROSECONDS:
        if time.perf_counter() - start > 30 + relationships / 25_000:
            say("the groups are not indexed yet: what follows is without")
            break
    ask(port, relationships, 4, SAFE, 5.0)
    return time.perf_counter() - start


def ask(port: int, relationships: int, clients: int, freshness: str, seconds: float) -> dict[str, float]:
    """Returns microseconds and answers per second of so many clients at a time."""
    asked = ["ask", str(port), str(relationships), str(clients), freshness, str(seconds)]
    told = subprocess.run([sys.executable, __file__, *asked], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(told.stdout)


def say(text: str) -> None:
    """Tells of progress."""
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """Starts a PostgreSQL of our own; gives its address, or "" where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        yield ""
        return
    # The server refuses to run as root.
    account = "postgres" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
    become = ["runuser", "-u", account, "--"] if os.getuid() == 0 else []
    folder = Path(tempfile.mkdtemp(prefix="access-"))
    shutil.chown(folder, account)
    control = [*become, found[-1].parent / "pg_ctl", "-D", folder / "data", "-w"]

    def run(*command: Any) -> None:
        subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, check=True)

    try:
        run(*become, found[-1], "-D", folder / "data", "-U", account, "-A", "trust", "-E", "UTF8")
        options = f"-c listen_addresses='' -c unix_socket_directories='{folder}' -c shared_buffers=1GB"
        options += " -c max_wal_size=8GB -c maintenance_work_mem=1GB"
        run(*control, "-l", folder / "log", "-o", options, "start")
        try:
            yield f"postgresql://{account}@/postgres?host={folder}"
        finally:
            run(*control, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)


# From here on: the server and the clients, each in a process of its own.


def serve(address: str) -> None:
    """Serves until standard input ends."""
    graphs = Tenants(address, quantum_seconds=QUANTUM_SECONDS)
    with Server(graphs, Everybody(), options=Options(port=0)) as server:
        print(json.dumps({"port": server.port}), flush=True)
        sys.stdin.read()
    graphs.close()


class Clients:
    """Some clients that ask one question after the other, each as soon as it has its answer.

    Args:
        scale: what they ask about.
        channel: to the server.
        freshness: of the answers.
    """

    def __init__(self, scale: Scale, channel: grpc.aio.Channel, freshness: str):
        # Bytes go out and come in as they are: the less the clients compute, the more is left to the server.
        self._check = channel.unary_unary(_CHECK)
        self._write = channel.unary_unary(
            _WRITE,
            request_serializer=api.WriteRelationshipsRequest.SerializeToString,
            response_deserializer=api.WriteRelationshipsResponse.FromString,
        )
        self._questions = scale.questions(random.SystemRandom().randrange(1 << 30))
        self._recent, self._token = freshness == RECENT, ""
        self.seconds: list[float] = []

    async def ask(self, until: float) -> None:
        """Asks until a moment of `perf_counter`."""
        while (start := time.perf_counter()) < until:
            file, user, expected = next(self._questions)
            request = message(file, user, self._token)
            told = api.CheckPermissionResponse.FromString(await self._check(request))
            self.seconds.append(time.perf_counter() - start)
            if (told.permissionship == YES) is not expected:
                raise RuntimeError(f"{user} on {file}: {told}")

    async def write(self) -> None:
        """Writes ten times a second where questions are to be recent."""
        for number in itertools.count():
            if not self._recent:
                return
            relationship = core.Relationship(
                resource=core.ObjectReference(object_type="file", object_id=f"new{number % 100}"),
                relation="viewer",
                subject=core.SubjectReference(object=core.ObjectReference(object_type="user", object_id=f"w{number}")),
            )
            update = core.RelationshipUpdate(
                operation=core.RelationshipUpdate.OPERATION_TOUCH, relationship=relationship
            )
            told = await self._write(api.WriteRelationshipsRequest(updates=[update]))
            self._token = told.written_at.token
            await asyncio.sleep(0.1)


def message(file: str, user: str, token: str) -> bytes:
    """Returns a question as it goes over the wire."""
    freshness = api.Consistency(minimize_latency=True)
    if token:
        freshness = api.Consistency(at_least_as_fresh=core.ZedToken(token=token))
    return api.CheckPermissionRequest(
        consistency=freshness,
        resource=core.ObjectReference(object_type="file", object_id=file),
        permission="view",
        subject=core.SubjectReference(object=core.ObjectReference(object_type="user", object_id=user)),
    ).SerializeToString()


async def run_clients(port: int, relationships: int, clients: int, freshness: str, seconds: float) -> None:
    """Runs them and prints what they have seen."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        several = Clients(Scale(relationships), channel, freshness)
        writer = asyncio.create_task(several.write())
        await several.ask(time.perf_counter() + 0.5)
        several.seconds.clear()
        start = time.perf_counter()
        await asyncio.gather(*(several.ask(start + seconds) for _ in range(clients)))
        spent = time.perf_counter() - start
        writer.cancel()
    answers = len(several.seconds)
    print(json.dumps(access_shapes.quantiles(several.seconds) | {"per_second": answers / spent}))


def main() -> None:
    """Is one of the processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    roles = parser.add_subparsers(dest="role", required=True)
    roles.add_parser("serve").add_argument("address")
    asking = roles.add_parser("ask")
    for name, kind in (("port", int), ("relationships", int), ("clients", int), ("freshness", str), ("seconds", float)):
        asking.add_argument(name, type=kind)
    asked = vars(parser.parse_args())
    if asked.pop("role") == "serve":
        serve(**asked)
    else:
        asyncio.run(run_clients(**asked))


if __name__ == "__main__":
    main()
