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


class Rope(Value):
    """Turns each pair of a head's numbers by position * base^(-2i/C) radians.

    Args:
        head_width: numbers in a head, even.
        max_length: positions that exist; the table of angles has a row for each.
        base: the slowest pair turns once in about 2 pi * base positions.
        pairing: which two numbers make a pair.
    """

    head_width: int = bound("width of a head")
    max_length: int = bound("longest sequence, in tokens")
    base: float = 10000.0
    pairing: Pairing = Pairing.HALVES

    def check(self) -> None:
        if self.head_width % 2:
            raise ConfigError(
                f"head_width={self.head_width} has no pairs to turn",
                remedy=f"Use a head of {self.head_width + 1}, or rope=None.",
            )

    def __call__(self, x: Float[Array, "B T H C"], positions: Int[Array, "#B T"]) -> Float[Array, "B T H C"]:
        """Returns x turned to its positions; positions at max_length or past it are the caller's error."""
        rates = self.base ** (-np.arange(0, self.head_width, 2) / self.head_width)
        angles = np.arange(self.max_length)[:, None] * rates
        cos, sin = (jnp.asarray(f(angles), jnp.float32)[positions] for f in (np.cos, np.sin))
        return rotate(x, cos, sin, pairing=self.pairing)
