"""A file that cannot be written, read or understood: a typed error with a remedy, and nothing half done."""

import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cupola.access.consistency import LATEST, at_exactly
from cupola.access.errors import (
    AccessError,
    Conflict,
    InvalidArgument,
    PreconditionFailed,
    StoreUnavailable,
    TooMuch,
)
from cupola.access.graph import Graph
from cupola.access.limits import Limits
from cupola.access.relation import Filter, Must, Precondition, create, delete, touch
from cupola.access.store.sql import SQLStore
from cupola.access.store.sqlite import SQLiteDatabase

SCHEMA = "definition user {}\ndefinition doc {\n relation reader: user\n relation owner: user\n}"
LINE, MORE = "doc:a#reader@user:ada", "doc:b#reader@user:ada"


@pytest.fixture
def path(tmp_path) -> str:
    """A file with a schema and one relationship."""
    path = str(tmp_path / "access.db")
    with Graph.open(path) as graph:
        graph.write_schema(SCHEMA)
        graph.write(touch(LINE))
    return path


@pytest.fixture
def graph(path):
    with Graph(SQLStore(SQLiteDatabase(path, timeout_seconds=0.3)), limits=Limits(updates=3)) as graph:
        yield graph


def facts(graph: Graph) -> list[str]:
    return [str(one) for one in graph.read(Filter(), consistency=LATEST)[1]]


@pytest.mark.parametrize("lock", ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"])
def test_locked_by_another(path, graph, lock):
    other = sqlite3.connect(path, isolation_level=None)
    other.execute(lock)
    ways = (
        lambda: graph.write(touch(MORE)),
        lambda: graph.delete(Filter(type="doc")),
        lambda: graph.load([touch(MORE).relationship]),
        lambda: graph.write_schema(SCHEMA + "\ndefinition more {}"),
        lambda: graph.collect(0.0),
    )
    for write in ways:
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match="locked") as caught:
            write()
        assert 0.2 < time.monotonic() - began < 5
        assert "End the other transaction" in caught.value.remedy
    assert facts(graph) == [LINE], "readers do not wait for writers"
    other.execute("ROLLBACK")
    other.close()
    assert graph.store.head() == 2
    graph.write(touch(MORE))
    assert facts(graph) == [LINE, MORE]


FILL = """
import resource, sys
from cupola.access.errors import StoreUnavailable
from cupola.access.graph import Graph
from cupola.access.relation import touch

graph = Graph.open(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (512 << 10, 512 << 10))
made, n = 0, 0
try:
    while True:
        graph.write(*(touch(f"doc:{n}-{k}{'x' * 200}#reader@user:ada") for k in range(50)))
        n += 1
except StoreUnavailable as error:
    assert "free space" in error.remedy, error
# Who asks is answered as before.
assert graph.check("doc:a#reader", "user:ada")
print(n)
"""


def test_a_full_disk(path):
    told = subprocess.run([sys.executable, "-c", FILL, path], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    made = int(told.stdout)
    assert made > 0
    with Graph.open(path) as graph:
        assert graph.store.head() == 2 + made
        assert len(facts(graph)) == 1 + 50 * made, "all of a write, or nothing of it"
        graph.write(touch(MORE))
        assert MORE in facts(graph)


READ = """
import os, sys
from cupola.access.errors import StoreUnavailable
from cupola.access.graph import Graph
from cupola.access.relation import touch
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
try:
    with Graph.open(sys.argv[1]) as graph:
        graph.write(touch("doc:b#reader@user:ada"))
except StoreUnavailable as error:
    print(error)
"""


def test_a_file_that_may_only_be_read(path):
    folder = Path(path).parent
    # Others may go in and read, and no more.
    for part in (folder, *folder.parents):
        if part.owner() == Path(path).owner() and str(part).startswith("/tmp/"):
            part.chmod(part.stat().st_mode | 0o055)
    Path(path).chmod(0o444)
    folder.chmod(0o555)
    told = subprocess.run([sys.executable, "-c", READ, path], capture_output=True, text=True)
    folder.chmod(0o755)
    assert told.returncode == 0, told.stderr
    assert "access.db" in told.stdout
    assert "Look at the file" in told.stdout
    Path(path).chmod(0o644)
    with Graph.open(path) as graph:
        assert facts(graph) == [LINE]


@pytest.mark.parametrize("place", [0, 40])
def test_a_file_that_is_damaged(path, place):
    size = Path(path).stat().st_size
    with open(path, "r+b") as file:
        file.seek(place)
        file.write(b"\xa5" * (size - place))
    with pytest.raises(StoreUnavailable) as caught:
        Graph.open(path)
    assert "access.db" in str(caught.value)


def test_a_page_that_is_damaged(path):
    with Graph.open(path) as graph:
        graph.load(touch(f"doc:{n}#owner@user:ada").relationship for n in range(5000))
    size = Path(path).stat().st_size
    with open(path, "r+b") as file:
        file.seek(size // 2)
        file.write(b"\xa5" * (size // 4))
    with Graph.open(path) as graph, pytest.raises(StoreUnavailable, match="malformed"):
        facts(graph)


def test_a_database_of_a_newer_version(path):
    other = sqlite3.connect(path)
    other.execute("UPDATE access_format SET version = 99")
    other.commit()
    before = list(other.iterdump())
    with pytest.raises(StoreUnavailable, match="newer version of Cupola: its format is 99") as caught:
        Graph.open(path)
    assert "pip install --upgrade" in caught.value.remedy
    assert list(other.iterdump()) == before
    other.close()


def test_tokens_of_others(graph, tmp_path):
    with Graph.open(str(tmp_path / "other.db")) as other:
        foreign = other.write_schema(SCHEMA)
    for token, match in ((foreign, "another store"), ("nonsense", "no token"), ("", "no token")):
        for ask in (
            lambda token=token: graph.changes(token),
            lambda token=token: graph.check("doc:a#reader", "user:ada", consistency=at_exactly(token)),
        ):
            with pytest.raises(InvalidArgument, match=match) as caught:
                ask()
            assert caught.value.remedy


@pytest.mark.parametrize(
    ("kind", "updates", "require"),
    [
        (TooMuch, [touch(f"doc:{n}#reader@user:ada") for n in range(4)], []),
        (InvalidArgument, [touch(MORE), delete(MORE)], []),
        (InvalidArgument, [create(MORE), create(MORE)], []),
        (
            PreconditionFailed,
            [touch(MORE)],
            [
                Precondition(Must.MATCH, Filter(type="doc", id="a")),
                Precondition(Must.NOT_MATCH, Filter(type="doc", id="a")),
            ],
        ),
    ],
    ids=["too many", "twice", "created twice", "contradictory"],
)
def test_writes_that_cannot_be(graph, kind, updates, require):
    with pytest.raises(kind) as caught:
        graph.write(*updates, require=require)
    assert isinstance(caught.value, AccessError)
    assert caught.value.remedy
    assert not isinstance(caught.value, Conflict)
    assert (graph.store.head(), facts(graph)) == (2, [LINE])
