"""Which nodes of a changing graph lead to which, kept flat: one bitmap of all reachable nodes for each.

Not here: what the nodes are (`groups.py`).
Invariant: after every change `reach` is what a walk over the edges finds, cycles included.
Source: Pang et al. 2019, "Zanzibar", section 3.2.4 (Leopard): `reach` is GROUP2GROUP.
"""

from collections.abc import Iterable, Mapping

from pyroaring import BitMap

from cupola.access.engine.components import components


class Closure:
    """The edges of a graph and what follows from them; nodes are whole numbers below 2**32.

    Args:
        edges: (from, to) pairs to begin with, worked out at once.
    """

    def __init__(self, edges: Iterable[tuple[int, int]] = ()):
        self._after: dict[int, BitMap] = {}
        self._before: dict[int, BitMap] = {}
        self._reach: dict[int, BitMap] = {}
        for start, end in edges:
            self._after.setdefault(start, BitMap()).add(end)
            self._before.setdefault(end, BitMap()).add(start)
        self._recompute(self._after)

    @property
    def reach(self) -> Mapping[int, BitMap]:
        """All that a node leads to, itself included; a node without edges of its own is not in it."""
        return self._reach

    def add(self, start: int, end: int) -> None:
        """Adds an edge, if it is not there."""
        after = self._after.setdefault(start, BitMap())
        if end in after:
            return
        after.add(end)
        self._before.setdefault(end, BitMap()).add(start)
        gained = self._reach.get(end) or BitMap([end])
        self._reach.setdefault(start, BitMap([start]))
        pending = [start]
        while pending:
            node = pending.pop()
            # Who leads to all of it already has told everyone before him.
            if not gained.issubset(self._reach[node]):
                self._reach[node] |= gained
                pending += self._before.get(node, ())

    def discard(self, start: int, end: int) -> None:
        """Takes an edge away, if it is there."""
        after = self._after.get(start)
        if after is None or end not in after:
            return
        _drop(self._after, start, end)
        _drop(self._before, end, start)
        affected, pending = BitMap([start]), [start]
        while pending:
            fresh = self._before.get(pending.pop(), BitMap()) - affected
            affected |= fresh
            pending += fresh
        # Another way to the same end, not through what is affected, keeps everything as it is.
        for other in self._after.get(start, BitMap()) - affected:
            if end in self._reach.get(other, ()):
                return
        self._recompute(affected)

    def _recompute(self, nodes: Iterable[int]) -> None:
        """Works out what some nodes reach; all others are right."""
        stale = BitMap(nodes)
        for component in components(stale, lambda node: self._after.get(node, BitMap()) & stale):
            ends = BitMap().union(*(self._after[node] for node in component if node in self._after))
            together = BitMap(component)
            reach = together | ends
            for end in ends - together:
                reach |= self._reach.get(end, BitMap())
            for node in component:
                if node in self._after:
                    self._reach[node] = reach.copy()
                else:
                    self._reach.pop(node, None)


def _drop(edges: dict[int, BitMap], start: int, end: int) -> None:
    edges[start].discard(end)
    if not edges[start]:
        del edges[start]
