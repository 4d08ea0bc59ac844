"""Reachability that follows every change of a graph, against a walk over its edges."""

import random

import pytest

from cupola.access.engine.closure import Closure
from cupola.access.engine.components import components


def walked(edges, start):
    found, pending = {start}, [start]
    while pending:
        node = pending.pop()
        fresh = {end for begin, end in edges if begin == node} - found
        found |= fresh
        pending += fresh
    return found


@pytest.mark.parametrize("seed", range(6))
def test_reach_equals_a_walk_after_every_change(seed):
    chance = random.Random(seed)
    size, most = chance.choice([(6, 12), (12, 16), (12, 40)])
    edges = {(chance.randrange(size), chance.randrange(size)) for _ in range(most // 2)}
    closure = Closure(edges)
    for _ in range(250):
        if edges and chance.random() < len(edges) / most:
            edge = chance.choice(sorted(edges))
            edges.discard(edge)
            closure.discard(*edge)
        else:
            edge = (chance.randrange(size), chance.randrange(size))
            edges.add(edge)
            closure.add(*edge)
        for node in range(size):
            assert set(closure.reach.get(node, [node])) == walked(edges, node)
        assert set(closure.reach) == {start for start, _ in edges}


def test_changes_that_change_nothing():
    closure = Closure([(1, 2)])
    closure.add(1, 2)
    closure.discard(2, 1)
    assert list(closure.reach[1]) == [1, 2]


@pytest.mark.parametrize("seed", range(20))
def test_components_come_in_order_and_are_those_that_reach_each_other(seed):
    chance = random.Random(seed)
    edges = {(chance.randrange(9), chance.randrange(9)) for _ in range(chance.randrange(20))}
    found = list(components(range(9), lambda node: [end for start, end in sorted(edges) if start == node]))
    assert sorted(node for component in found for node in component) == list(range(9))
    done = set()
    for component in found:
        for node in component:
            reached = walked(edges, node)
            assert {other for other in reached if node in walked(edges, other)} == set(component)
            assert reached - set(component) <= done
        done |= set(component)


def test_components_of_a_long_chain():
    assert len(list(components([0], lambda node: [node + 1] if node < 50_000 else []))) == 50_001
