"""How fresh an answer must be, and which revision that is.

Not here: tokens (`token.py`), snapshots (`store/`).
Invariant: an answer is given at one revision, whatever it reads; at least as fresh as asked, never staler.
Source: Pang et al. 2019, "Zanzibar", section 2.4 (evaluation timestamps, quantised so that answers share caches).
"""

import enum
import math
import threading
import time
from typing import NamedTuple

from cupola.access.store.protocol import Store
from cupola.access.token import revision_of


class Freshness(enum.Enum):
    """How an answer's revision is chosen."""

    MINIMIZE_LATENCY = "minimize latency"
    """One of the last few seconds, which many questions share."""
    AT_LEAST = "at least as fresh"
    """As above, or the token's where that is newer."""
    EXACTLY = "at exact snapshot"
    """The token's."""
    FULLY = "fully consistent"
    """The newest."""


class Consistency(NamedTuple):
    """How fresh an answer must be.

    Args:
        token: of AT_LEAST and EXACTLY.
    """

    freshness: Freshness = Freshness.MINIMIZE_LATENCY
    token: str = ""


LATEST = Consistency(Freshness.FULLY)
FAST = Consistency()


def at_least(token: str) -> Consistency:
    """Returns the wish for an answer as fresh as a token, at least."""
    return Consistency(Freshness.AT_LEAST, token)


def at_exactly(token: str) -> Consistency:
    """Returns the wish for an answer at a token's revision."""
    return Consistency(Freshness.EXACTLY, token)


class Clock:
    """Chooses revisions for the questions that one process asks of a store.

    Args:
        store: whose revisions.
        quantum_seconds: how long MINIMIZE_LATENCY goes on with one revision; 0 asks the store each time.
    """

    def __init__(self, store: Store, *, quantum_seconds: float = 0.0):
        self._store, self._quantum = store, quantum_seconds
        self._lock = threading.Lock()
        self._shared, self._until = -1, -math.inf

    def wrote(self, revision: int) -> None:
        """Notes that this process has made a revision: its own questions see it at once."""
        with self._lock:
            self._shared = max(self._shared, revision)

    def revision(self, wanted: Consistency) -> int:
        """Returns the revision to answer at.

        Raises:
            InvalidArgument: no token, or another store's.
        """
        freshness = wanted.freshness
        if freshness is Freshness.FULLY:
            return self._store.head()
        if freshness is Freshness.EXACTLY:
            return revision_of(wanted.token, self._store.id)
        least = revision_of(wanted.token, self._store.id) if freshness is Freshness.AT_LEAST else 0
        return max(least, self._recent())

    def _recent(self) -> int:
        now = time.monotonic()
        if now >= self._until:
            head = self._store.head()
            with self._lock:
                self._shared, self._until = max(self._shared, head), now + self._quantum
        return self._shared
