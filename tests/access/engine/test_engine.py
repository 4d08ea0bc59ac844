"""Many who ask at once."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from cupola.access.consistency import LATEST
from cupola.access.engine.engine import Engine
from cupola.access.graph import Graph

ASKING = 16
SCHEMA = """
definition user {}
caveat near(distance int) { distance < 3 }
definition group { relation member: user | group#member }
definition model { relation reader: user | group#member | user with near }
"""


@pytest.fixture
def found(monkeypatch):
    """What was looked for, each time slowly; and an event that lets the looking begin."""
    looked, go, find = [], threading.Event(), Engine._find

    def slow(self, version, facts, at, plan, object, permission, subject, answers):
        looked.append((str(object), str(subject)))
        assert go.wait(10)
        return find(self, version, facts, at, plan, object, permission, subject, answers)

    monkeypatch.setattr(Engine, "_find", slow)
    return looked, go


def ask_at_once(graph: Graph, go: threading.Event, subjects: list[str], **options) -> list:
    with ThreadPoolExecutor(ASKING) as pool:
        asked = [
            pool.submit(graph.check, "model:kiln#reader", subject, consistency=LATEST, **options)
            for subject in subjects
        ]
        threading.Timer(0.2, go.set).start()
        return [one.result() for one in asked]


@pytest.fixture
def world(make_graph):
    return make_graph(
        SCHEMA, "model:kiln#reader@group:a#member", "group:a#member@user:ada", "model:kiln#reader@user:bob[near]"
    )


def test_one_looks_for_what_many_ask(world, found):
    looked, go = found
    assert all(ask_at_once(world, go, ["user:ada"] * ASKING))
    assert looked == [("model:kiln", "user:ada")]
    assert not world._engine._versions[world.schema().id].cache.asked


def test_different_questions_wait_for_nobody(world, found):
    looked, go = found
    subjects = [f"user:u{n}" for n in range(ASKING)]
    assert not any(ask_at_once(world, go, subjects))
    assert sorted(looked) == sorted(("model:kiln", subject) for subject in subjects)


def test_a_condition_is_everybodys_own(world, found):
    looked, go = found
    assert all(ask_at_once(world, go, ["user:bob"] * ASKING, context={"distance": 1}))
    assert len(looked) == ASKING
    assert {one.missing for one in ask_at_once(world, go, ["user:bob"] * ASKING)} == {("distance",)}


def test_a_failure_is_one_askers_own(world, monkeypatch):
    find, failed = Engine._find, []

    def fail_once(self, *asked):
        if not failed:
            failed.append(threading.get_ident())
            threading.Event().wait(0.2)
            raise MemoryError
        return find(self, *asked)

    monkeypatch.setattr(Engine, "_find", fail_once)
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(world.check, "model:kiln#reader", "user:ada", consistency=LATEST) for _ in range(4)]
        errors = [one.exception() for one in asked]
    assert sum(isinstance(error, MemoryError) for error in errors) == 1
    assert errors.count(None) == 3
