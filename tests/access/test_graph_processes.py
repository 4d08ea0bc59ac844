"""Many processes over one database: nobody who was shut out gets in, and all see one history."""

import json
import subprocess
import sys
import threading
import uuid

import pytest

from cupola.access.consistency import LATEST, at_exactly
from cupola.access.errors import RevisionGone
from cupola.access.graph import Graph
from cupola.access.relation import Filter, Operation, delete, touch

SCHEMA = "definition user {}\ndefinition doc {\n relation reader: user\n permission view = reader\n}"

READER = """
import sys
from cupola.access.consistency import FAST
from cupola.access.graph import Graph

# Without a token, it goes on with one revision for as long as the test lasts.
graph = Graph.open(sys.argv[1], tenant=sys.argv[2], quantum_seconds=1000.0)
stale = 0
for line in sys.stdin:
    token, permission, subject = line.split()
    stale += graph.check(permission, subject, consistency=FAST).allowed
    print(graph.check(permission, subject, at_least=token).allowed, stale, flush=True)
"""


class Readers:
    """Processes that answer questions."""

    def __init__(self, address: str, tenant: str, count: int):
        command = [sys.executable, "-c", READER, address, tenant]
        pipe = subprocess.PIPE
        self.running = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(count)]

    def ask(self, token: str, permission: str, subject: str) -> list[tuple[bool, int]]:
        """Returns of each reader whether it allows, and how often it did where nobody said how fresh."""
        for one in self.running:
            one.stdin.write(f"{token} {permission} {subject}\n")
            one.stdin.flush()
        answers = [one.stdout.readline().split() for one in self.running]
        return [(allowed == "True", int(stale)) for allowed, stale in answers]

    def end(self) -> None:
        for one in self.running:
            one.communicate()
            assert one.returncode == 0


@pytest.mark.parametrize("rounds", [30, pytest.param(2000, marks=[pytest.mark.slow, pytest.mark.long])])
def test_a_right_that_was_taken_is_gone_for_whoever_has_the_token(shared_address, rounds):
    tenant = uuid.uuid4().hex
    with Graph.open(shared_address, tenant=tenant) as writer, Graph.open(shared_address, tenant=tenant) as other:
        writer.write_schema(SCHEMA)
        kept = writer.write(touch("doc:a#reader@user:bob"))
        readers = Readers(shared_address, tenant, 2)
        try:
            over, noise = threading.Event(), []

            def load() -> None:
                while not over.is_set():
                    noise.append(other.write(touch(f"doc:n{len(noise) % 50}#reader@user:u{len(noise)}")))

            loading = threading.Thread(target=load)
            loading.start()
            assert all(allowed for allowed, _ in readers.ask(kept, "doc:a#view", "user:bob"))
            for n in range(rounds):
                shut = writer.write(delete("doc:a#reader@user:bob"))
                assert not any(allowed for allowed, _ in readers.ask(shut, "doc:a#view", "user:bob")), n
                opened = other.write(touch("doc:a#reader@user:bob"))
                answers = readers.ask(opened, "doc:a#view", "user:bob")
                assert all(allowed for allowed, _ in answers), n
            assert min(stale for _, stale in answers) > rounds, "without tokens they are behind"
        finally:
            over.set()
            loading.join()
            readers.end()
        assert len(noise) > 3


WRITER = """
import json, sys, threading
from cupola.access.graph import Graph
from cupola.access.relation import delete, touch
from cupola.access.token import revision_of

address, tenant, who, count = sys.argv[1:]
made, seen = [], []
with Graph.open(address, tenant=tenant) as graph:
    start = graph.token()
    def watch():
        at = start
        while len(made) < int(count) or graph.token() != at:
            graph.wait(at, 0.1)
            at, changes = graph.changes(at, limit=7)
            seen.extend(change.revision for change in changes)
    watching = threading.Thread(target=watch)
    watching.start()
    for n in range(int(count)):
        updates = [touch(f"doc:{who}-{n}#reader@user:a"), touch(f"doc:{who}-{n}#reader@user:b")]
        if n:
            updates.append(delete(f"doc:{who}-{n - 1}#reader@user:a"))
        made.append(revision_of(graph.write(*updates, metadata={"who": who, "n": n}), graph.store.id))
    watching.join()
print(json.dumps([made, seen]))
"""


@pytest.mark.parametrize("count", [15, pytest.param(500, marks=[pytest.mark.slow, pytest.mark.long])])
def test_one_history_for_writers_in_four_processes(shared_address, count):
    with Graph.open(shared_address, tenant=uuid.uuid4().hex) as graph:
        start = graph.write_schema(SCHEMA)
        command = [sys.executable, "-c", WRITER, shared_address, graph.store.tenant]
        running = [
            subprocess.Popen([*command, str(who), str(count)], stdout=subprocess.PIPE, text=True) for who in range(4)
        ]
        # Who reads meanwhile sees a beginning of the history, whole: of each writer, all up to some write.
        looks = 0
        while any(process.poll() is None for process in running):
            token, found = graph.read(Filter(type="doc", subject_id="b"), consistency=LATEST)
            of = [one.object.id.split("-") for one in found]
            for who in "0123":
                mine = sorted(int(n) for writer, n in of if writer == who)
                assert mine == list(range(len(mine)))
            assert len(graph.changes(start, limit=10**6)[1]) >= len(found)
            assert graph.read(Filter(type="doc", subject_id="b"), consistency=at_exactly(token))[1] == found
            looks += 1
        told = [json.loads(process.communicate()[0]) for process in running]
        assert looks > 3
        _, changes = graph.changes(start, limit=10**6)
        revisions = [change.revision for change in changes]
        assert revisions == list(range(2, 4 * count + 2))
        assert sorted(revision for made, _ in told for revision in made) == revisions
        for made, seen in told:
            assert made == sorted(made)
            assert seen == list(range(seen[0], seen[0] + len(seen))), "watched without a gap, in order"
            assert seen[-1] >= made[-1]
        metadata = [json.loads(change.metadata) for change in changes]
        for who in "0123":
            assert [one["n"] for one in metadata if one["who"] == who] == list(range(count))
        rows = set()
        for change in changes:
            for operation, one in change.updates:
                rows.discard(one) if operation is Operation.DELETE else rows.add(one)
        assert set(graph.read(Filter(), consistency=LATEST)[1]) == rows


OPEN = """
import sys
from cupola.access.graph import Graph
from cupola.access.relation import touch
sys.stdin.readline()
with Graph.open(sys.argv[1], tenant=sys.argv[2]) as graph:
    graph.write_schema("definition user {} definition doc { relation reader: user }")
    print(graph.write(touch(f"doc:{sys.argv[3]}#reader@user:ada")), graph.store.id)
"""


def test_a_new_database_that_many_open_at_once(shared_address):
    tenant = uuid.uuid4().hex
    pipe = subprocess.PIPE
    running = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN, shared_address, tenant, str(n)],
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            text=True,
        )
        for n in range(4)
    ]
    for one in running:
        one.stdin.write("go\n")
        one.stdin.flush()
    told = [one.communicate() for one in running]
    assert [one.returncode for one in running] == [0] * 4, told
    assert len({out.split()[1] for out, _ in told}) == 1, "one tenant"
    with Graph.open(shared_address, tenant=tenant) as graph:
        assert len(graph.read(Filter(), consistency=LATEST)[1]) == 4
        assert graph.store.head() == 8


def test_a_token_from_before_what_is_kept(shared_address):
    with Graph.open(shared_address, tenant=uuid.uuid4().hex) as graph:
        old = graph.write_schema(SCHEMA)
        graph.write(touch("doc:a#reader@user:bob"))
        newest = graph.write(delete("doc:a#reader@user:bob"))
        graph.collect(-1.0)
        for ask in (
            lambda: graph.changes(old),
            lambda: graph.check("doc:a#view", "user:bob", consistency=at_exactly(old)),
            lambda: graph.read(Filter(), consistency=at_exactly(old)),
        ):
            with pytest.raises(RevisionGone, match="no longer kept") as caught:
                ask()
            assert caught.value.remedy
        assert not graph.check("doc:a#view", "user:bob", at_least=old), "at least as fresh is still a good question"
        assert graph.changes(newest) == (newest, [])
