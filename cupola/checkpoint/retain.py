"""Which checkpoints are kept: the last few, every so many steps, the best by a metric.

Invariant: a policy never lets go of the checkpoint that was written last.
"""

import enum
import math
from collections.abc import Iterable

from cupola.checkpoint.manifest import Manifest
from cupola.config.errors import ConfigError
from cupola.config.value import Value


class Best(enum.Enum):
    """Which end of a metric is good."""

    LOWEST = "lowest"
    HIGHEST = "highest"


class Retention(Value):
    """Which checkpoints stay; one that any rule names stays.

    Args:
        last: this many of the highest steps.
        every_steps: every one whose step is a multiple of this; None keeps none for it.
        best: the best by this metric; None keeps none for it.
        best_is: which end of the metric is good.
    """

    last: int = 3
    every_steps: int | None = None
    best: str | None = None
    best_is: Best = Best.LOWEST

    def check(self) -> None:
        if self.last < 1:
            raise ConfigError(f"{self.last} checkpoints cannot be kept", where="last", remedy="Use last=1 or more.")
        if self.every_steps is not None and self.every_steps < 1:
            raise ConfigError(
                f"there is no multiple of {self.every_steps} steps",
                where="every_steps",
                remedy="Use every_steps=1 or more, or None.",
            )

    def kept(self, manifests: Iterable[Manifest], *, newest: int) -> set[int]:
        """Returns the steps to keep of these, `newest` (the one written last) always among them."""
        held = {m.step: m for m in manifests}
        keep = {newest, *sorted(held)[-self.last :]}
        if self.every_steps is not None:
            keep |= {step for step in held if step % self.every_steps == 0}
        if self.best is not None and (step := best_step(held.values(), self.best, self.best_is)) is not None:
            keep.add(step)
        return keep


def best_step(manifests: Iterable[Manifest], metric: str, best_is: Best) -> int | None:
    """Returns the step with the best finite `metric`, the later of equals; None if none has it."""
    sign = 1 if best_is is Best.HIGHEST else -1
    marks = [(sign * m.metrics[metric], m.step) for m in manifests if math.isfinite(m.metrics.get(metric, math.nan))]
    return max(marks)[1] if marks else None
