"""Smoothing of noisy series: an exponential mean without the bias of its start."""

import math
from collections.abc import Sequence

from cupola.observe.units import Number


class Smooth:
    """The exponential mean of the numbers added so far; those that are not finite are left out.

    Args:
        span: about how many of the last numbers it averages.
    """

    def __init__(self, span: Number):
        self._keep = 1 - 1 / max(span, 1.0)
        self._sum = self._weight = 0.0

    def add(self, value: Number) -> float:
        """Returns the mean after `value`; nan before any finite number."""
        self.parts(value)
        return self.value

    def parts(self, value: Number) -> tuple[float, float]:
        """Returns (weighted sum, weight) after `value`, whose ratio is the mean."""
        if math.isfinite(value):
            self._sum = self._keep * self._sum + value
            self._weight = self._keep * self._weight + 1
        return self._sum, self._weight

    @property
    def value(self) -> float:
        """The mean; nan before any finite number."""
        return self._sum / self._weight if self._weight else math.nan


def centred(values: Sequence[Number], span: Number) -> list[float]:
    """Returns at every number the mean of those on both sides, the nearer the heavier."""
    before, after = Smooth(span), Smooth(span)
    ahead = [after.parts(value) for value in reversed(values)][::-1]
    pairs = [(before.parts(value), later) for value, later in zip(values, ahead, strict=True)]
    return [(a + b) / (m + n) if m + n else math.nan for (a, m), (b, n) in pairs]
