"""Our workers of bench/access.py that have no peers: nested groups, and the guard of a server.

Groups lie in each other in chains of 20, with 50 users in each: asked is whether a user who is in the group at some
depth is in the outermost one, in a small graph and in a large one, both in SQLite and indexed before. The guard's
share of a request is all that it does before the engine is asked for anything: it finds the caller of a key, and asks
the graph; with keys alone it finds the caller and looks at patterns of names.
Not here: what is aimed at (`access.py`).
"""

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import access_shapes
import harness

from cupola.access import Graph, touch
from cupola.access.relation import Object, Relationship, Subject
from cupola.recipes.guard import open_guard
from cupola.serve.http.guard import Action, Guard
from cupola.serve.http.keys import Keys, make_key

LEVELS, USERS = 20, 50
DEPTHS = (1, 2, 5, 10, 20)
SMALL = 20_000
KEYS, GRAPH = "keys alone", "keys and graph"
QUESTIONS = 200


def depth_case(depth: int, memberships: int) -> str:
    """Returns the name of a case."""
    return f"depth {depth} of {memberships}"


def serve_groups(folder: Path, memberships: int) -> None:
    """Loads both graphs and serves turns."""
    cases: dict[str, Callable[[], dict[str, float]]] = {}
    for count in (SMALL, memberships):
        graph, chains = Graph.open(str(folder / f"{count}.db")), count // (LEVELS * USERS)
        graph.write_schema(access_shapes.PLAIN)
        graph.load(_memberships(chains))
        for depth in DEPTHS:
            questions = itertools.cycle(list(_questions(chains, depth)))
            cases[depth_case(depth, count)] = lambda graph=graph, questions=questions: _ask(graph, questions)
        for _ in range(2):
            cases[depth_case(LEVELS, count)]()
            for thread in threading.enumerate():
                if thread.name == "group index":
                    thread.join()
    harness.serve(cases)


def _memberships(chains: int) -> Iterator[Relationship]:
    for chain, level in itertools.product(range(chains), range(LEVELS)):
        group = Object("group", f"g{chain}_{level}")
        for user in range(USERS):
            yield Relationship(group, "member", Subject("user", f"u{chain}_{level}_{user}"))
        if level:
            outer = Object("group", f"g{chain}_{level - 1}")
            yield Relationship(outer, "member", Subject("group", group.id, "member"))


def _questions(chains: int, depth: int) -> Iterator[tuple[str, str]]:
    # Strides, so that those which follow each other are of other chains.
    for user, chain in itertools.product(range(USERS), range(chains)):
        yield f"group:g{chain}_0#member", f"user:u{chain}_{depth - 1}_{user}"


_numbers = itertools.count()


def _ask(graph: Graph, questions: Iterator[tuple[str, str]]) -> dict[str, float]:
    graph.write(touch(f"file:written#viewer@user:w{next(_numbers)}"))
    graph.check("file:written#viewer", "user:nobody")
    seconds = []
    for permission, user in itertools.islice(questions, QUESTIONS):
        start = time.perf_counter()
        allowed = graph.check(permission, user).allowed
        seconds.append(time.perf_counter() - start)
        if not allowed:
            raise RuntimeError(f"{user} is not in {permission}")
    return access_shapes.quantiles(seconds)


def serve_guard(folder: Path) -> None:
    """Makes keys and a graph of the lab, and serves turns."""
    keys, names = folder / "keys.json", [f"user{i}" for i in range(QUESTIONS)]
    secrets = [make_key(keys, name, subject=f"user:{name}") for name in names]
    guard = open_guard(str(folder / "guard.db"), keys, say=lambda _: None)
    facts = [f"team:casters#member@user:{name}" for name in names]
    facts += ["model:bell#reader@team:casters#everyone", "model:bell#dataset@dataset:ores"]
    guard.graph.write(*map(touch, [*facts, "dataset:ores#reader@team:casters#everyone"]))

    async def ask(one: Guard) -> dict[str, float]:
        seconds = []
        for secret in secrets:
            start = time.perf_counter()
            caller = await one.authenticate(secret)
            await one.check(caller, Action.GENERATE, "model:bell")
            seconds.append(time.perf_counter() - start)
        return access_shapes.quantiles(seconds)

    def case(one: Guard) -> Callable[[], dict[str, float]]:
        def run() -> dict[str, float]:
            guard.graph.write(touch(f"team:other#member@user:w{next(_numbers)}"))
            return asyncio.run(ask(one))

        return run

    harness.serve({KEYS: case(Keys(keys)), GRAPH: case(guard)})
