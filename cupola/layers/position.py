"""Where a token stands: rotary position embedding.

Invariant: angles depend on positions only through differences, so a sequence may start anywhere.
Source: Su et al. 2021 (RoFormer), section 3.2.2; our base is its 10000.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from cupola.config.value import Value, bound
from cupola.core.errors import ConfigError
from cupola.kernels.rotary import Pairing, rotate

TABLE_ROWS = 1024
"""Positions up to which one table of angles is kept; of a longer sequence, two of about its root."""


class Scaling(Value):
    """Makes a rotary embedding turn slower, so that a model reaches past the length it was trained on."""

    def __call__(self, rates: Float[np.ndarray, " R"]) -> Float[np.ndarray, " R"]:
        """Returns the rates, in radians a position, slowed."""
        raise NotImplementedError


class LinearScaling(Scaling):
    """Divides every rate by `factor`.

    Source: Chen et al. 2023 (position interpolation), section 2.3.
    """

    factor: float

    def check(self) -> None:
        _check_factor(self.factor)

    def __call__(self, rates: Float[np.ndarray, " R"]) -> Float[np.ndarray, " R"]:
        """Returns the rates, divided."""
        return rates / self.factor


class Llama3Scaling(Scaling):
    """Divides by `factor` the rates of pairs that turn rarely in the length of training, and no others.

    Args:
        factor: divides the slowest rates.
        low_frequency: pairs that turn fewer times than this are slowed in full.
        high_frequency: pairs that turn more times than this are left alone; in between, in between.
        original_length: positions that the model was first trained on.

    Source: Dubey et al. 2024 (Llama 3), as its released configs have it ("llama3").
    """

    factor: float
    low_frequency: float = 1.0
    high_frequency: float = 4.0
    original_length: int

    def check(self) -> None:
        _check_factor(self.factor)
        if not 0 < self.low_frequency < self.high_frequency:
            raise ConfigError(
                f"low_frequency={self.low_frequency} is not above 0 and below high_frequency={self.high_frequency}",
                remedy="Use low_frequency=1.0 and high_frequency=4.0.",
            )

    def __call__(self, rates: Float[np.ndarray, " R"]) -> Float[np.ndarray, " R"]:
        """Returns the rates, the slow ones slowed."""
        turns = self.original_length * rates / (2 * np.pi)
        kept = np.clip((turns - self.low_frequency) / (self.high_frequency - self.low_frequency), 0, 1)
        return rates * (kept + (1 - kept) / self.factor)


def _check_factor(factor: float) -> None:
    if not factor >= 1:
        raise ConfigError(f"factor={factor} would turn faster", remedy="Use a factor of 1 or more.")


class Rope(Value):
    """Turns each pair of a head's numbers by position * base^(-2i/C) radians.

    Args:
        head_width: numbers in a head, even.
        max_length: positions that exist.
        base: the slowest pair turns once in about 2 pi * base positions.
        pairing: which two numbers make a pair.
        scaling: makes pairs turn slower; None leaves them.
    """

    head_width: int = bound("width of a head")
    max_length: int = bound("longest sequence, in tokens")
    base: float = 10000.0
    pairing: Pairing = Pairing.HALVES
    scaling: Scaling | None = None

    def check(self) -> None:
        if self.head_width % 2:
            raise ConfigError(
                f"head_width={self.head_width} has no pairs to turn",
                remedy=f"Use a head of {self.head_width + 1}, or rope=None.",
            )

    @property
    def rates(self) -> Float[np.ndarray, " R"]:
        """Radians that each pair turns from one position to the next."""
        rates = self.base ** (-np.arange(0, self.head_width, 2) / self.head_width)
        return rates if self.scaling is None else self.scaling(rates)

    def __call__(self, x: Float[Array, "B T H C"], positions: Int[Array, "#B T"]) -> Float[Array, "B T H C"]:
        """Returns x turned to its positions; positions at max_length or past it are the caller's error."""
        if self.max_length <= TABLE_ROWS:
            cos, sin = self._table(self.max_length, 1, positions)
        else:
            # A table of every position is a constant of megabytes in each compiled step; the angle is
            # the sum of two that stand in small ones.
            rows = 1 << (self.max_length.bit_length() + 1) // 2
            near_cos, near_sin = self._table(rows, 1, positions % rows)
            far_cos, far_sin = self._table(-(-self.max_length // rows), rows, positions // rows)
            cos, sin = near_cos * far_cos - near_sin * far_sin, near_sin * far_cos + near_cos * far_sin
        return rotate(x, cos, sin, pairing=self.pairing)

    def _table(
        self, rows: int, step: int, index: Int[Array, "#B T"]
    ) -> tuple[Float[Array, "#B T R"], Float[Array, "#B T R"]]:
        """Returns cosine and sine of the angles at positions index * step, looked up in a table of `rows`."""
        angles = step * np.arange(rows)[:, None] * self.rates
        cos, sin = (jnp.asarray(f(angles), jnp.float32)[index] for f in (np.cos, np.sin))
        return cos, sin
