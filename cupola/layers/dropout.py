"""Dropout: in training each number is zero with some probability, and the rest grow to make up for it.

Source: Srivastava et al. 2014.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cupola.config.value import Value
from cupola.core.context import Context, Mode
from cupola.core.errors import ConfigError


class Dropout(Value):
    """Zeroes each number with probability `rate` in training; does nothing in evaluation."""

    rate: float

    def check(self) -> None:
        if not 0 <= self.rate < 1:
            raise ConfigError(f"rate={self.rate} is no probability below 1", remedy="Use 0 <= rate < 1, such as 0.1.")

    def __call__(self, x: Float[Array, "*N D"], context: Context) -> Float[Array, "*N D"]:
        """Returns x with the dropped numbers zero and the others divided by 1 - rate.

        Raises:
            ConfigError: it trains, but the call's context has no key.
        """
        if context.mode is not Mode.TRAIN or self.rate == 0:
            return x
        kept = jax.random.bernoulli(context.draw("dropout"), 1 - self.rate, x.shape)
        return jnp.where(kept, x / (1 - self.rate), 0).astype(x.dtype)
