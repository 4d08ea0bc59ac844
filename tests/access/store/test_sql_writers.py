"""Many who write and read at once, in threads and in processes."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from cupola.access.errors import Conflict
from cupola.access.relation import Filter, Object, Relationship, Subject, touch

WRITES = 15


def pair(name: str) -> list:
    return [touch(f"doc:{name}#left@user:ada"), touch(f"doc:{name}#right@group:{name}#member")]


def read(store, revision: int) -> None:
    """Sees as many pairs as there were writes."""
    snapshot = store.snapshot(revision)
    left, right = (len(snapshot.read(Filter(relation=side))) for side in ("left", "right"))
    assert left == right == revision


def test_threads(address, opening):
    store = opening(address)
    stores = [store] if address == ":memory:" else [store, opening(address)]
    over = threading.Event()

    def write(who: int) -> list[int]:
        return [stores[who % len(stores)].write(pair(f"{who}-{n}")) for n in range(WRITES)]

    def look(who: int) -> int:
        seen = 0
        while not over.is_set():
            revision = stores[who % len(stores)].head()
            assert revision >= seen
            read(stores[who % len(stores)], revision)
            read(stores[who % len(stores)], revision // 2)
            assert [one.revision for one in store.changes(0, limit=10_000)][:revision] == list(range(1, revision + 1))
            seen = revision
        return seen

    with ThreadPoolExecutor(8) as pool:
        readers = [pool.submit(look, who) for who in range(2)]
        made = list(pool.map(write, range(4)))
        over.set()
        assert max(reader.result() for reader in readers) >= 0
    assert sorted(revision for mine in made for revision in mine) == list(range(1, 4 * WRITES + 1))
    assert all(mine == sorted(mine) for mine in made)
    for each in stores:
        read(each, 4 * WRITES)


def test_nothing_is_lost_between_reading_and_writing(store):
    """A counter that many read, raise and write."""
    place = Object("count", "er"), "is", Subject("number", "n")

    def count(_) -> None:
        for _ in range(8):
            while True:
                head = store.head()
                found = store.snapshot(head).find(*place)
                more = Relationship(*place, expires_seconds=(found.expires_seconds if found else 0.0) + 1.0)
                try:
                    store.write([touch(more)], expect_head=head)
                    break
                except Conflict:
                    continue

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(count, range(4)))
    assert store.snapshot(store.head()).find(*place).expires_seconds == 32


SCRIPT = """
import sys
from cupola.access.relation import touch
from cupola.access.store.open import open_store
address, tenant, who, count = sys.argv[1:]
store = open_store(address, tenant=tenant)
for n in range(int(count)):
    print(store.write([touch(f"doc:{who}-{n}#left@user:ada"), touch(f"doc:{who}-{n}#right@group:{who}-{n}#member")]))
store.close()
"""


def test_processes(kept, opening):
    store = opening(kept)
    command = [sys.executable, "-c", SCRIPT, kept, store.tenant]
    running = [
        subprocess.Popen([*command, str(who), str(WRITES)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for who in range(2)
    ]
    seen = 0
    while seen < 2 * WRITES and any(process.poll() is None for process in running):
        if store.wait(seen, 0.2):
            seen = store.head()
            read(store, seen)
    told = [process.communicate() for process in running]
    assert [process.returncode for process in running] == [0, 0], told
    assert sorted(int(line) for out, _ in told for line in out.split()) == list(range(1, 2 * WRITES + 1))
    assert [change.revision for change in store.changes(0)] == list(range(1, 2 * WRITES + 1))
    read(store, 2 * WRITES)


def test_reads_while_old_versions_are_collected(store):
    """Who reads at a revision sees it whole, or is told that it is gone."""
    errors = []

    def look() -> None:
        for _ in range(40):
            revision = store.head()
            try:
                snapshot = store.snapshot(revision)
                found = snapshot.subjects(Object("doc", "a"), "reader")
            except Exception as error:
                errors.append(type(error).__name__)
            else:
                assert len(found) == min(revision, 1)

    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(look) for _ in range(2)]
        for n in range(20):
            store.write([touch(f'doc:a#reader@user:ada[c:{{"n":{n}}}]')])
            store.collect(4e9)
        for reader in readers:
            reader.result()
    assert set(errors) <= {"RevisionGone"}


@pytest.mark.parametrize("seconds", [0.0, 0.05])
def test_waiting_ends(store, seconds):
    assert store.wait(store.head(), seconds) is False
