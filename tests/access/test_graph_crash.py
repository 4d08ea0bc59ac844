"""Whoever dies while it writes leaves whole writes, all that it told of, and nothing that others cannot follow."""

import subprocess
import sys
import threading
import uuid
from pathlib import Path

import pytest

from cupola.access.consistency import LATEST
from cupola.access.errors import AccessError, StoreUnavailable
from cupola.access.graph import Graph
from cupola.access.relation import Filter, touch

CRASH = Path(__file__).parent / "crash.py"
SCHEMA = "definition user {}\ndefinition doc {\n relation reader: user\n relation owner: user\n}"


@pytest.mark.parametrize("times", [10, pytest.param(200, marks=[pytest.mark.slow, pytest.mark.long])])
def test_writers_that_are_killed(shared_address, times):
    command = [sys.executable, str(CRASH), shared_address, uuid.uuid4().hex, str(times), str(times)]
    told = subprocess.run(command, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert int(told.stdout) > times


LOAD = """
import itertools, sys
from cupola.access.graph import Graph
from cupola.access.relation import Relationship

def feed():
    for n in itertools.count():
        if n == 30_000:
            print("fed", flush=True)
        yield Relationship.parse(f"doc:{n}#reader@user:ada")

Graph.open(sys.argv[1], tenant=sys.argv[2]).load(feed())
"""


def test_a_load_that_is_killed_leaves_nothing(shared_address):
    with Graph.open(shared_address, tenant=uuid.uuid4().hex) as graph:
        token = graph.write_schema(SCHEMA)
        command = [sys.executable, "-c", LOAD, shared_address, graph.store.tenant]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "fed\n"
        process.kill()
        process.communicate()
        assert graph.token() == token
        assert graph.read(Filter(), consistency=LATEST)[1] == []
        # What it held is let go, and what stands in the way of a new load is gone.
        later = graph.write(touch("doc:7#reader@user:ada"))
        assert graph.changes(token)[0] == later
        _, found = graph.lookup_resources("doc", "reader", "user:ada", consistency=LATEST)
        assert [one.id for one in found] == ["7"]


def test_a_database_server_that_crashes(postgres_server):
    """Whatever was told of is there when it comes back; who writes and reads meanwhile gets typed errors."""
    graph = Graph.open(postgres_server.address)
    start = graph.write_schema(SCHEMA)
    made: set[str] = set()
    errors: list[Exception] = []
    over = threading.Event()

    def write(who: int) -> None:
        n = 0
        while not over.is_set():
            n += 1
            try:
                graph.write(touch(f"doc:{who}-{n}#reader@user:ada"), touch(f"doc:{who}-{n}#owner@user:ada"))
                made.add(f"{who}-{n}")
            except StoreUnavailable:
                over.wait(0.02)
            except Exception as error:
                errors.append(error)
                return

    writers = [threading.Thread(target=write, args=(who,)) for who in range(2)]
    for writer in writers:
        writer.start()
    for _ in range(3):
        before = len(made)
        while len(made) < before + 30 and not errors:
            over.wait(0.01)
        postgres_server.stop()
        with pytest.raises(AccessError):
            graph.token(LATEST)
        postgres_server.start()
    while len(made) < before + 60 and not errors:
        over.wait(0.01)
    over.set()
    for writer in writers:
        writer.join()
    assert errors == []
    _, changes = graph.changes(start, limit=10**6)
    assert [change.revision for change in changes] == list(range(2, len(changes) + 2))
    kept = [change.updates[0].relationship.object.id for change in changes]
    assert len(kept) == len(set(kept)), "none is there twice"
    assert made <= set(kept)
    assert all(len(change.updates) == 2 for change in changes), "none is half there"
    read = [one.object.id for one in graph.read(Filter(relation="owner"), consistency=LATEST)[1]]
    assert read == sorted(kept)
    graph.close()
