"""Which worker gets a request: a pure choice among those that can take it.

Not here: which can (`workers.py`), what a request's beginning is (`key.py`).
Invariant: a choice changes nothing; what was chosen is noted by `sent`.
Source: the policies of SGLang's router; power of two choices, Mitzenmacher 2001.
"""

import dataclasses
import enum
import random
from collections.abc import Sequence

from cupola.config.value import Value
from cupola.core.errors import ConfigError
from cupola.serve.router.prefix import PrefixTree


class Policy(enum.Enum):
    """How a worker is chosen."""

    CACHE_AWARE = "cache_aware"
    """The one that has most of the request's beginning; the least loaded, if the loads are out of balance."""
    ROUND_ROBIN = "round_robin"
    RANDOM = "random"
    POWER_OF_TWO = "power_of_two"
    """The less loaded of two drawn by chance."""


class Balance(Value):
    """When being balanced comes before being cached.

    Args:
        absolute: loads are out of balance when the largest is greater than the smallest by more than this,
        relative: and also greater than so many times the smallest.
        share: of a request, which the best worker must have at least; below it the least loaded worker
            gets the request, and of these the one that holds least.
        worth_characters: a shorter beginning is worth nothing.
        limit_characters: of beginnings that are remembered for each worker.
    """

    absolute: int = 16
    relative: float = 1.5
    share: float = 0.3
    worth_characters: int = 100
    limit_characters: int = 4_000_000

    def check(self) -> None:
        least = {"absolute": 0, "relative": 1.0, "share": 0.0, "worth_characters": 0, "limit_characters": 1}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise ConfigError(
                    f"{name}={getattr(self, name)} is too small", where=name, remedy=f"Use {low} or more."
                )
        if self.share > 1:
            raise ConfigError(f"share={self.share} can never be had", where="share", remedy="Use 0 to 1.")


@dataclasses.dataclass(frozen=True)
class Load:
    """A worker as the choice sees it.

    Args:
        name: of the worker.
        running: requests that it has been sent and has not answered.
    """

    name: str
    running: int


class Choice:
    """Chooses workers by a policy.

    Args:
        policy: how.
        balance: for CACHE_AWARE.
        seed: of what is drawn by chance.
    """

    def __init__(self, policy: Policy, balance: Balance = Balance(), seed: int | None = None):
        self.policy, self.balance = policy, balance
        self._random = random.Random(seed)
        self._trees: dict[str, PrefixTree] = {}
        self._turn = 0

    def choose(self, loads: Sequence[Load], key: str) -> str:
        """Returns the name of one of these workers, of which there is at least one.

        Args:
            loads: of the workers that can take the request.
            key: the beginning of the request, which a cache may hold.
        """
        if self.policy is Policy.ROUND_ROBIN:
            return sorted(load.name for load in loads)[self._turn % len(loads)]
        if self.policy is Policy.RANDOM:
            return self._random.choice(loads).name
        if self.policy is Policy.POWER_OF_TWO:
            return self._least(self._random.sample(list(loads), min(2, len(loads))))
        return self._cached(loads, key)

    def sent(self, name: str, key: str) -> None:
        """Notes that a worker was sent a request that begins with `key`."""
        self._turn += 1
        if self.policy is Policy.CACHE_AWARE and key:
            self._tree(name).insert(key)

    def forget(self, name: str) -> None:
        """Notes that a worker's cache is empty, or that the worker is gone."""
        self._trees.pop(name, None)

    def held(self, name: str, key: str) -> int:
        """Returns how many characters at the beginning of `key` a worker was sent before."""
        return self._tree(name).match(key)

    def _cached(self, loads: Sequence[Load], key: str) -> str:
        running = [load.running for load in loads]
        least, most = min(running), max(running)
        if most - least > self.balance.absolute and most > self.balance.relative * least:
            return self._least(loads)
        held = {load.name: self.held(load.name, key) for load in loads}
        best = max(held.values(), default=0)
        if best and best >= max(self.balance.worth_characters, self.balance.share * len(key)):
            return self._least([load for load in loads if held[load.name] == best])
        idle = [load for load in loads if load.running == least]
        emptiest = min(self._tree(load.name).characters for load in idle)
        return self._least([load for load in idle if self._tree(load.name).characters == emptiest])

    def _least(self, loads: Sequence[Load]) -> str:
        running = min(load.running for load in loads)
        return self._random.choice([load.name for load in loads if load.running == running])

    def _tree(self, name: str) -> PrefixTree:
        if name not in self._trees:
            self._trees[name] = PrefixTree(self.balance.limit_characters)
        return self._trees[name]
