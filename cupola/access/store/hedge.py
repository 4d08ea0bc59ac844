"""Asks a second time elsewhere what takes longer than such questions mostly do, and goes on with the first answer.

Not here: where elsewhere is, and whether what it says is true of the question (`postgres.py`).
Invariant: an answer is that of one of the two, whole; it fails when the first has failed and the second has not
answered. Second questions stay under a small share of all, so that a database that is slow for everybody does not get
twice the work.
Source: Pang et al. 2019, "Zanzibar", section 3.2.7: the second request is sent after an estimated percentile of delay.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

Result = TypeVar("Result")

PERCENTILE = 0.95
RECENT = 256
"""Questions whose delay is remembered."""
ENOUGH = 32
"""Questions before which nothing is known of their delay."""
SHARE = 0.1
"""Second questions that each question makes room for."""
MOST_SAVED = 8.0
"""Second questions for which there is room at most."""


class Hedge:
    """Runs reads, some of them twice.

    Args:
        workers: reads that run at the same time.
    """

    def __init__(self, workers: int):
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="access-read")
        self._lock = threading.Lock()
        self._delays: deque[float] = deque(maxlen=RECENT)
        self._count, self._patience, self._saved = 0, float("inf"), 0.0

    @property
    def patience_seconds(self) -> float:
        """How long a question is waited for before it is asked again; infinite while too little is known."""
        return self._patience

    def run(self, first: Callable[[], Result], second: Callable[[], Result]) -> Result:
        """Returns what `first` returns, or `second` where that takes long and `second` comes to an end before it.

        Raises:
            Exception: whatever `first` raises.
        """
        asked = self._pool.submit(self._timed, first)
        patience = self._patience
        done, _ = wait([asked], None if patience == float("inf") else patience)
        if done or not self._may_hedge():
            return asked.result()
        hedged = self._pool.submit(second)
        return self._first_of(asked, hedged)

    def close(self) -> None:
        """Waits for what runs, and takes no more."""
        self._pool.shutdown()

    @staticmethod
    def _first_of(asked: "Future[Result]", hedged: "Future[Result]") -> Result:
        wait([asked, hedged], return_when=FIRST_COMPLETED)
        if not asked.done() or asked.exception() is not None:
            # A second question that fails tells nothing: it was one too many.
            if hedged.exception() is None:
                asked.cancel()
                return hedged.result()
        else:
            hedged.cancel()
        return asked.result()

    def _timed(self, first: Callable[[], Result]) -> Result:
        began = time.monotonic()
        try:
            return first()
        finally:
            self._learn(time.monotonic() - began)

    def _learn(self, seconds: float) -> None:
        with self._lock:
            self._delays.append(seconds)
            self._count += 1
            self._saved = min(self._saved + SHARE, MOST_SAVED)
            if len(self._delays) >= ENOUGH and self._count % ENOUGH == 0:
                self._patience = sorted(self._delays)[int(PERCENTILE * len(self._delays))]

    def _may_hedge(self) -> bool:
        with self._lock:
            if self._saved < 1.0:
                return False
            self._saved -= 1.0
            return True
