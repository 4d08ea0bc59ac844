"""Where the time of a run goes: a ledger of wall-clock seconds by cause.

Invariant: the seconds of all causes sum to the wall clock; a cause inside another is counted once,
for the inner one, and what no cause claims is OTHER.
"""

import contextlib
import enum
import time
from collections.abc import Callable, Iterator

from cupola.observe.units import Number, seconds_text


class Cause(enum.Enum):
    """What a stretch of time was spent on."""

    START = "start-up"
    COMPILE = "compile"
    STEP = "step"
    DATA = "data wait"
    EVALUATE = "evaluate"
    CHECKPOINT = "checkpoint"
    OTHER = "other"


class Ledger:
    """Counts wall-clock time by cause from the moment it is made.

    Args:
        clock: returns seconds.

    Example:
        ledger = Ledger()
        with ledger.time(Cause.STEP):
            state = step(state, batch)
        print(ledger.text())
    """

    def __init__(self, *, clock: Callable[[], Number] = time.perf_counter):
        self._clock = clock
        self._spent = dict.fromkeys(Cause, 0.0)
        self._open = [Cause.OTHER]
        self._start = self._mark = clock()

    @contextlib.contextmanager
    def time(self, cause: Cause) -> Iterator[None]:
        """Counts the time inside for `cause`; one thread at a time."""
        self._settle()
        self._open.append(cause)
        try:
            yield
        finally:
            self._settle()
            self._open.pop()

    def seconds(self) -> dict[Cause, float]:
        """Returns the seconds of every cause until now."""
        self._settle()
        return dict(self._spent)

    @property
    def total_seconds(self) -> float:
        """Wall-clock seconds since the ledger was made."""
        return self._clock() - self._start

    @property
    def goodput(self) -> float:
        """Share of the wall clock spent in training steps."""
        spent = self.seconds()
        return spent[Cause.STEP] / (sum(spent.values()) or 1.0)

    def text(self) -> str:
        """Returns one line per cause that took time, the longest first."""
        spent = {cause: s for cause, s in self.seconds().items() if s > 0}
        total = sum(spent.values()) or 1.0
        rows = sorted(spent.items(), key=lambda row: -row[1])
        lines = [f"{cause.value:<11} {seconds_text(s):>9} {s / total:>6.1%}" for cause, s in rows]
        return "\n".join([*lines, f"{'wall clock':<11} {seconds_text(total):>9}"])

    def _settle(self) -> None:
        now = self._clock()
        self._spent[self._open[-1]] += now - self._mark
        self._mark = now
