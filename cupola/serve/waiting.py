"""The queue: which waiting sequence goes first.

Not here: whether there is room for it (`schedule.py`).
Invariant: a sequence that `max_wait_steps` admitting steps have passed over stands before all that were not.

Source: Zheng et al. 2024, "SGLang: Efficient Execution of Structured Language Model Programs",
section 3, algorithm 1 (cache-aware scheduling).
"""

import collections
import heapq
import operator
import random
from collections.abc import Iterator

from cupola.serve.admit import Limits, Policy
from cupola.serve.radix import Radix
from cupola.serve.sequence import Sequence, State

PROBES = 32
"""How many sequences are looked up in the tree again each time that the first are asked for."""

_by_order = operator.attrgetter("order")


class Waiting:
    """Sequences in the queue.

    In a queue longer than `PROBES`, what the tree holds of each is known as of its last look-up; all
    get their turn.
    """

    def __init__(self, limits: Limits, tree: Radix):
        self._policy, self._most, self._tree = limits.policy, limits.max_wait_steps, tree
        self._random = random.Random(limits.seed)
        self._queue: dict[Sequence, None] = {}
        self._probes: collections.deque[Sequence] = collections.deque()
        self._admitting = 0

    def __len__(self) -> int:
        return len(self._queue)

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self._queue)

    def add(self, sequence: Sequence) -> None:
        """Queues a sequence; one that was retracted goes to the front of its priority."""
        sequence.state, sequence.enqueued, sequence.seen_version = State.WAITING, self._admitting, -1
        self._queue[sequence] = None
        self._probes.append(sequence)
        self._rank(sequence)
        self.look(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Takes a sequence out."""
        del self._queue[sequence]

    def passed(self) -> None:
        """Counts a step that admitted a sequence past those that still wait."""
        self._admitting += 1

    def first(self, number: int) -> list[Sequence]:
        """Returns so many sequences, the first to go first."""
        for sequence in self._queue:  # In the order of queueing: the first that is not overdue ends it.
            if not sequence.urgent:
                if self._admitting - sequence.enqueued < self._most:
                    break
                sequence.urgent = True
                self._rank(sequence)
        for _ in range(min(PROBES, len(self._probes))):
            sequence = self._probes.popleft()
            if sequence in self._queue:
                self.look(sequence)
                self._probes.append(sequence)
        return heapq.nsmallest(number, self._queue, key=_by_order)

    def look(self, sequence: Sequence) -> None:
        """Finds out how much of a sequence the tree holds now."""
        if sequence.seen_version != self._tree.version:
            sequence.seen_version = self._tree.version
            found = 0 if sequence.reads_prompt else self._tree.peek(sequence.key, sequence.matchable)
            if found != sequence.shared_tokens:
                sequence.shared_tokens = found
                self._rank(sequence)

    def _rank(self, sequence: Sequence) -> None:
        if sequence.urgent:
            sequence.order = (0, sequence.arrival)
            return
        by_policy: float = 0
        if self._policy is Policy.LONGEST_PREFIX:
            by_policy = -sequence.shared_tokens
        elif self._policy is Policy.RANDOM:
            by_policy = self._random.random()
        sequence.order = (1, -sequence.request.priority, not sequence.retracted, by_policy, sequence.arrival)
