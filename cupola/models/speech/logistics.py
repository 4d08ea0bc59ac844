"""A mixture of logistic distributions over samples of so many bits: its likelihood, and draws from it.

Invariant: the probabilities of all values that a sample can have sum to 1.
Source: Salimans et al. 2017, arXiv 1701.05517, section 2.1 (our mean, scale = its mu, s); samples times
127.5: Shen et al. 2017, arXiv 1712.05884, section 3.1.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from cupola.config.value import Value
from cupola.core.errors import ConfigError


class Logistics(Value):
    """A mixture of `components` logistic distributions.

    Args:
        components: each has a logit of its share, a mean, and the logarithm of a scale.
        bits: a sample has 2^bits values.
        stretch: full scale is this in the units of means and scales.
        least_log_scale: no scale is smaller, in those units.
    """

    components: int = 10
    bits: int = 16
    stretch: float = 127.5
    least_log_scale: float = -7.0

    def check(self) -> None:
        if self.components < 1 or not 1 <= self.bits <= 24 or self.stretch <= 0:
            raise ConfigError(
                f"components={self.components}, bits={self.bits}, stretch={self.stretch}",
                where="components",
                remedy="Use such as 10, 16 and 127.5.",
            )

    @property
    def outputs(self) -> int:
        """Numbers that describe a mixture."""
        return 3 * self.components

    def quantized(self, samples: Float[Array, "*N"]) -> Float[Array, "*N"]:
        """Returns the nearest values, from -1 to 1, that a sample can have."""
        half = 2.0 ** (self.bits - 1)
        return jnp.clip(jnp.round(samples * half), -half, half - 1) / half

    def log_probs(self, described: Float[Array, "*N O"], samples: Float[Array, "*N"]) -> Float[Array, "*N"]:
        """Returns the logarithm of each sample's probability, in nats.

        Args:
            described: the mixtures.
            samples: from -1 to 1, of the values that a sample can have.

        Numerics: in float32. sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - e^(b - a)), of which
        each factor's logarithm keeps its digits however far a sample is from a mean.
        """
        shares, means, log_scales = self._split(described)
        half = 2.0 ** (self.bits - 1)
        width, y = self.stretch / half, (samples * self.stretch)[..., None]
        rate = jnp.exp(-log_scales)
        above, below = (y + width / 2 - means) * rate, (y - width / 2 - means) * rate
        under_top, over_bottom = -jax.nn.softplus(-above), -jax.nn.softplus(below)
        between = under_top + over_bottom + jnp.log(-jnp.expm1(-width * rate))
        lowest = (samples <= -1)[..., None]
        highest = (samples >= (half - 1) / half)[..., None]
        each = jnp.where(lowest, under_top, jnp.where(highest, over_bottom, between))
        return jax.nn.logsumexp(shares + each, axis=-1)

    def draw(self, described: Float[Array, "*N O"], key: Key[Array, ""]) -> Float[Array, "*N"]:
        """Returns a sample of each mixture, from -1 to 1."""
        shares, means, log_scales = self._split(described)
        which, where = jax.random.split(key)
        chosen = jax.random.categorical(which, shares)[..., None]
        mean, log_scale = (jnp.take_along_axis(x, chosen, -1)[..., 0] for x in (means, log_scales))
        even = jax.random.uniform(where, mean.shape, minval=1e-7, maxval=1 - 1e-7)
        return self.quantized((mean + jnp.exp(log_scale) * jax.scipy.special.logit(even)) / self.stretch)

    def _split(
        self, described: Float[Array, "*N O"]
    ) -> tuple[Float[Array, "*N K"], Float[Array, "*N K"], Float[Array, "*N K"]]:
        logits, means, log_scales = jnp.split(described.astype(jnp.float32), 3, axis=-1)
        return jax.nn.log_softmax(logits), means, jnp.maximum(log_scales, self.least_log_scale)
