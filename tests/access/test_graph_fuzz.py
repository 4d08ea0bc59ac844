"""A graph against the naive evaluator: random schemas, relationships and questions of every kind.

Every case is asked at two moments (the last one, and one of the past or with relationships of its own): checks one by
one without caches, checks in bulk twice over (from the store, then from what is kept) with all groups in the index and
without it, explanations, lookups both ways, and trees.
"""

import json
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import random_graphs
from compare import differences, shrunk
from naive import Naive

from cupola.access.engine.cache import Table
from cupola.access.engine.condition import Conditions
from cupola.access.engine.facts import Facts
from cupola.access.engine.groups import Groups
from cupola.access.engine.members import Members


@pytest.fixture(autouse=True)
def moment(unchecked, monkeypatch):
    """All is asked at one time, before which some relationships have expired."""
    monkeypatch.setattr(time, "time", lambda: random_graphs.NOW)


def explore(start, stop):
    """Returns what was met in the cases of some seeds, counted."""
    program = Path(__file__).parent / "fuzz" / "explore.py"
    told = subprocess.run([sys.executable, program, str(start), str(stop)], capture_output=True, text=True)
    if told.returncode:
        pytest.fail(told.stderr, pytrace=False)
    return Counter(json.loads(told.stdout))


@pytest.mark.parametrize("part", range(5))
def test_all_answers_are_those_of_the_naive_evaluator(part):
    tally = explore(part * 100, part * 100 + 100)
    assert tally["index True"] + tally["index False"] >= 20
    assert min(tally[f"answer {sure}"] for sure in range(3)) >= 100
    assert tally["schema that its language refuses"] < 60
    assert tally["moment without trees"] < 40


@pytest.mark.slow
@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.long) for part in range(1, 10))])
def test_all_answers_over_ten_thousand_schemas(part):
    start = 10_000 + part * 1_000
    tally = explore(start, start + 1_000)
    assert tally["index True"] >= 10
    assert tally["index False"] >= 300


@pytest.mark.parametrize(
    ("broken", "name", "instead"),
    [
        (Naive, "opposite", lambda self, value: (self.everybody, self.everybody, *self.nobody[2:])),
        (Members, "exclusion", lambda self, other: self),
        (Facts, "lives", lambda self, relationship: True),
        (Conditions, "value", lambda self, caveat, context: True),
        (Groups, "member", lambda self, object, relation, subject: False),
        (Table, "touch", lambda self, key, revision: None),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_broken_is_found(monkeypatch, broken, name, instead):
    monkeypatch.setattr(broken, name, instead)
    found = (one for seed in range(400) for one in differences(random_graphs.make(random.Random(seed)), seed))
    assert next(found, None)


def test_what_is_found_is_made_small(monkeypatch):
    monkeypatch.setattr(Members, "exclusion", lambda self, other: self)
    seed = next(seed for seed in range(400) if next(differences(random_graphs.make(random.Random(seed)), seed), None))
    small = shrunk(random_graphs.make(random.Random(seed)), seed)
    assert sum(len(touched) for touched, _ in small.writes) <= 3
    assert " - " in small.text or " but not " in small.text
    assert small.dump("why").startswith("schema: |-")
