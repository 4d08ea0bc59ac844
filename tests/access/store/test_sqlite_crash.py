"""A writer that is killed at any moment leaves whole writes, and all that it was told of."""

import subprocess
import sys

import pytest

SCRIPT = """
import os, random, signal, sys, time
from cupola.access.relation import Filter, Relationship, delete, touch
from cupola.access.store.open import open_store

path, times, chance = sys.argv[1], int(sys.argv[2]), random.Random(int(sys.argv[3]))

def updates(n):
    made = [touch(f"doc:{n}#reader@user:{who}") for who in "abc"]
    gone = [delete(f"doc:{n - 1}#reader@user:a")] if n > 1 else []
    return [*made, touch(f'doc:shared#reader@user:a[c:{{"n":{n}}}]'), *gone]

def write(acknowledge):
    store = open_store(path)
    n = store.head()
    while True:
        n += 1
        assert store.write(updates(n)) == n
        os.write(acknowledge, b"%d " % n)

def check(store, acknowledged):
    head = store.head()
    assert head in (acknowledged, acknowledged + 1), (head, acknowledged)
    changes = store.changes(0, limit=10**9)
    assert [change.revision for change in changes] == list(range(1, head + 1))
    assert all(list(change.updates) == updates(change.revision) for change in changes)
    rows = {}
    for change in changes:
        for operation, one in change.updates:
            rows[one.key] = one
            if operation.value == "delete":
                del rows[one.key]
    assert list(store.snapshot(head).read(Filter())) == [one for _, one in sorted(rows.items())]
    for one in chance.sample(sorted(rows.values(), key=str), min(5, len(rows))):
        assert one in store.snapshot(head).objects(one.subject, "doc", "reader")
    return head

done = 0
for _ in range(times):
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        write(writer)
    os.close(writer)
    told = os.read(reader, 100) if chance.random() < 0.8 else b""
    time.sleep(chance.random() * 0.03)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while more := os.read(reader, 1 << 16):
        told += more
    os.close(reader)
    store = open_store(path)
    done = check(store, max([done, *map(int, told.split())]))
    store.close()
print(done)
"""


@pytest.mark.parametrize("times", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_killed_while_writing(tmp_path, times):
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "access.db"), str(times), str(times)]
    told = subprocess.run(command, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert int(told.stdout) >= times // 2


LOAD = """
import sys
from cupola.access.relation import Object, Relationship, Subject
from cupola.access.store.open import open_store

def feed():
    for n in range(10**9):
        if n == 30_000:
            print("fed", flush=True)
        yield Relationship(Object("doc", str(n)), "reader", Subject("user", "a"))

open_store(sys.argv[1]).load(feed())
"""


def test_killed_while_loading(tmp_path):
    path = str(tmp_path / "access.db")
    process = subprocess.Popen([sys.executable, "-c", LOAD, path], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "fed\n"
    process.kill()
    process.communicate()
    check = (
        "import sys; from cupola.access.store.open import open_store; from cupola.access.relation import *;"
        "s = open_store(sys.argv[1]); print(s.head(), len(s.snapshot(0).read(Filter())), s.write([touch('a:b#c@d:e')]),"
        "len(s.snapshot(1).objects(Subject('d', 'e'), 'a', 'c')))"
    )
    told = subprocess.run([sys.executable, "-c", check, path], capture_output=True, text=True)
    assert told.stdout.split() == ["0", "0", "1", "1"], told.stderr
