"""What a tenant may use up: questions and writes per second, and how much of it at the same time.

Not here: the limits of one call (`limits.py`).
Invariant: what one tenant uses never makes another wait; whoever is refused is told when to come back, and nothing
was done.
"""

import contextlib
import dataclasses
import enum
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping

from cupola.access.errors import TooMuch


class Spending(enum.Enum):
    """What a call uses up."""

    QUESTIONS = "questions"
    """Checks, and everything else that reads, one each."""
    WRITES = "writes"
    """Relationships written or deleted, one each."""


class Work(enum.Enum):
    """How long a call goes on."""

    CALLS = "calls"
    """Until it is answered."""
    STREAMS = "streams"
    """As long as the caller reads or sends."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Allowance:
    """What a tenant may use up.

    Args:
        questions_per_second: in the long run.
        questions_at_once: that were saved up; a larger batch goes through, and then nothing until it is paid off.
        writes_per_second: likewise of writes.
        writes_at_once: likewise.
        calls: that are worked on at the same time.
        streams: that are open at the same time: lookups, exports, watches.
    """

    questions_per_second: float | int = math.inf
    questions_at_once: float | int = 10_000
    writes_per_second: float | int = math.inf
    writes_at_once: float | int = 10_000
    calls: int = 256
    streams: int = 64

    def rate(self, spending: Spending) -> tuple[float, float]:
        """Returns how much comes back per second, and how much is saved up at most."""
        if spending is Spending.QUESTIONS:
            return float(self.questions_per_second), float(self.questions_at_once)
        return float(self.writes_per_second), float(self.writes_at_once)

    def most(self, work: Work) -> int:
        """Returns how many of a kind may go on at the same time."""
        return self.calls if work is Work.CALLS else self.streams


class OverQuota(TooMuch):
    """A tenant has used up what it may.

    Args:
        retry_seconds: after which there is something again.
    """

    def __init__(self, problem: str, *, where: str = "", remedy: str = "", retry_seconds: float | int = 0.0):
        super().__init__(problem, where=where, remedy=remedy)
        self.retry_seconds = float(retry_seconds)


@dataclasses.dataclass
class _Bucket:
    left: float
    at_seconds: float


class Quota:
    """Counts what each tenant uses up.

    Args:
        default: of tenants that are not named.
        tenants: allowances by name.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        default: Allowance = Allowance(),
        tenants: Mapping[str, Allowance] | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._default, self._named, self._clock = default, dict(tenants or {}), clock
        self._lock = threading.Lock()
        self._buckets: dict[tuple[str, Spending], _Bucket] = {}
        self._working: dict[tuple[str, Work], int] = {}

    def spend(self, tenant: str, spending: Spending, amount: int = 1) -> None:
        """Takes an amount from what a tenant has left.

        Raises:
            OverQuota: nothing is left.
        """
        rate, most = self._allowance(tenant).rate(spending)
        if math.isinf(rate):
            return
        with self._lock:
            now = self._clock()
            bucket = self._buckets.setdefault((tenant, spending), _Bucket(most, now))
            bucket.left = min(most, bucket.left + rate * (now - bucket.at_seconds))
            bucket.at_seconds = now
            if bucket.left >= min(1.0, most) > 0.0:
                # A batch may take more than is left: refusing it would refuse it for ever.
                bucket.left -= amount
                return
            wait = (1.0 - bucket.left) / rate if rate > 0 else math.inf
        raise OverQuota(
            f"tenant {tenant} has used up its {spending.value}: {rate:g} per second",
            where="quota",
            remedy="Ask for a larger allowance." if math.isinf(wait) else f"Try again in {wait:.3f} s.",
            retry_seconds=0.0 if math.isinf(wait) else wait,
        )

    @contextlib.contextmanager
    def working(self, tenant: str, work: Work) -> Iterator[None]:
        """Counts a call for as long as it goes on.

        Raises:
            OverQuota: as many as may go on do already.
        """
        key, most = (tenant, work), self._allowance(tenant).most(work)
        with self._lock:
            going_on = self._working.get(key, 0)
            if going_on < most:
                self._working[key] = going_on + 1
        if going_on >= most:
            raise OverQuota(
                f"tenant {tenant} has {most} {work.value} going on, which is all it may",
                where="quota",
                remedy="Wait until some have ended.",
                retry_seconds=0.1,
            )
        try:
            yield
        finally:
            with self._lock:
                self._working[key] -= 1
                if not self._working[key]:
                    del self._working[key]

    def _allowance(self, tenant: str) -> Allowance:
        return self._named.get(tenant, self._default)
