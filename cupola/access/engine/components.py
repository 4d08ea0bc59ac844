"""Strongly connected components of a graph: what must be answered together, and in which order.

Not here: which graphs they are (`lookup_subjects.py`, `closure.py`).
Invariant: a component comes after every one that it leads to; no recursion, so that depth is bounded by memory alone.
Source: Tarjan 1972, "Depth-first search and linear graph algorithms".
"""

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import TypeVar

Node = TypeVar("Node", bound=Hashable)


def components(roots: Iterable[Node], successors: Callable[[Node], Iterable[Node]]) -> Iterator[list[Node]]:
    """Yields the components of all that the roots lead to, those first that lead to no other."""
    found: dict[Node, int] = {}
    lowest: dict[Node, int] = {}
    closed: set[Node] = set()
    pending: list[Node] = []
    way: list[tuple[Node, Iterator[Node] | None]] = []
    for root in roots:
        if root not in found:
            way.append((root, None))
        while way:
            node, rest = way[-1]
            if rest is None:
                found[node] = lowest[node] = len(found)
                pending.append(node)
                rest = iter(successors(node))
                way[-1] = node, rest
            following = next(rest, None)
            if following is None:
                way.pop()
                if way:
                    before = way[-1][0]
                    lowest[before] = min(lowest[before], lowest[node])
                if lowest[node] == found[node]:
                    start = len(pending) - 1
                    while pending[start] != node:
                        start -= 1
                    component = pending[start:]
                    del pending[start:]
                    closed.update(component)
                    yield component
            elif following not in found:
                way.append((following, None))
            elif following not in closed:
                lowest[node] = min(lowest[node], found[following])
