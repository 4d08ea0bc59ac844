"""Schedules: the share of the peak learning rate that holds at a point of the run.

A schedule is a pure function of progress, the share of the run that is done, so one schedule serves
a run that is counted in steps and one that is counted in minutes. Not here: the peak rate (the
optimizer's), and where progress comes from (the trainer's: step / steps, or elapsed / budget).
Invariant: every schedule is continuous, stays within [0, 1], and is exactly at its final share when
progress is 1.
Source: Loshchilov and Hutter 2017 (cosine); Hu et al. 2024, arXiv 2404.06395 (warmup, stable,
decay); Haegele et al. 2024, arXiv 2405.18392, section 3 (decay by 1 - sqrt).
"""

import enum
import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from cupola.config.value import Value
from cupola.core.errors import ConfigError
from cupola.optim.ranges import check_range


class Schedule(Value):
    """A straight rise over the warmup, then what the subclass says.

    Args:
        warmup: share of the run over which the rate rises from 0 to its peak.
    """

    warmup: float = 0.0

    def __call__(self, progress: Float[Array, ""]) -> Float[Array, ""]:
        """Returns the share of the peak rate, in [0, 1].

        Args:
            progress: share of the run that is done; below 0 counts as 0 and above 1 as 1. Give the
                middle of the step, (step + 1/2) / steps: then neither the first nor the last step is
                taken at rate 0.
        """
        progress = jnp.clip(progress, 0.0, 1.0)
        held = self.after(progress)
        return jnp.where(progress < self.warmup, progress / self.warmup, held) if self.warmup else held

    def after(self, progress: Float[Array, ""]) -> Float[Array, ""]:
        """Returns the share of the peak rate after the warmup; 1 where the warmup ends."""
        raise NotImplementedError

    def check(self) -> None:
        check_share(self, "warmup", "[0, 1)")


class Constant(Schedule):
    """The peak rate until the end."""

    def after(self, progress: Float[Array, ""]) -> Float[Array, ""]:
        return jnp.ones_like(progress)


class Linear(Schedule):
    """A straight fall from the end of the warmup to the end of the run.

    Args:
        final: share of the peak rate that is left at the end.
    """

    final: float = 0.0

    def after(self, progress: Float[Array, ""]) -> Float[Array, ""]:
        return _fall(_left(progress, self.warmup), self.final)

    def check(self) -> None:
        super().check()
        check_range(self, "final", "[0, 1]")


class Cosine(Schedule):
    """Half a cosine wave from the end of the warmup to the end of the run.

    Args:
        final: share of the peak rate that is left at the end.
    """

    final: float = 0.0

    def after(self, progress: Float[Array, ""]) -> Float[Array, ""]:
        # sin^2 of half the angle is (1 - cos) / 2 without its cancellation: exactly 0 at the end.
        return _fall(jnp.sin(math.pi / 2 * _left(progress, self.warmup)) ** 2, self.final)

    def check(self) -> None:
        super().check()
        check_range(self, "final", "[0, 1]")


class Shape(enum.Enum):
    """How the rate falls, with x the share of the decay that is done."""

    LINEAR = "linear"
    """1 - x."""
    ONE_MINUS_SQRT = "one_minus_sqrt"
    """1 - sqrt(x): falls fast at first, which ends at a lower loss than a straight line."""
    EXPONENTIAL = "exponential"
    """final to the power of x: by the same factor in each step."""


class WSD(Schedule):
    """Warmup, stable, decay: the peak rate until the last share of the run.

    Args:
        decay: share of the run, at its end, over which the rate falls.
        final: share of the peak rate that is left at the end.
        shape: how it falls.
    """

    decay: float = 0.3
    final: float = 0.0
    shape: Shape = Shape.LINEAR

    def after(self, progress: Float[Array, ""]) -> Float[Array, ""]:
        left = _left(progress, 1 - self.decay)
        if self.shape is Shape.EXPONENTIAL:
            # The power is exactly `final` at the end and 1 before the fall.
            return jnp.power(jnp.float32(self.final), 1 - left)
        return _fall(left if self.shape is Shape.LINEAR else 1 - jnp.sqrt(1 - left), self.final)

    def check(self) -> None:
        super().check()
        check_share(self, "decay", "(0, 1]")
        check_range(self, "final", "(0, 1]" if self.shape is Shape.EXPONENTIAL else "[0, 1]")
        if self.warmup + self.decay > 1 + 1e-9:
            raise ConfigError(
                f"warmup={self.warmup} and decay={self.decay} together are longer than the run",
                where="decay",
                remedy=f"Use decay={1 - self.warmup:.6g} or less, or warmup={1 - self.decay:.6g} or less.",
            )


def check_share(owner: Value, name: str, interval: str) -> None:
    """Checks a field that is a share of the run, in which a number of steps is a likely mistake."""
    if (value := getattr(owner, name)) > 1:
        raise ConfigError(
            f"{value!r} is longer than the run",
            where=name,
            remedy=f"{name} is a share of the run, not steps: for {value:g} of 10000 steps write {name}={value / 1e4:g}.",
        )
    check_range(owner, name, interval)


def _left(progress: Float[Array, ""], start: float) -> Float[Array, ""]:
    """The share that is left of the way from `start` to the end of the run: 1 before, exactly 0 at the end."""
    return jnp.minimum((1 - progress) / (1 - start), 1.0)


def _fall(share: Float[Array, ""], final: float) -> Float[Array, ""]:
    return final + (1 - final) * share
