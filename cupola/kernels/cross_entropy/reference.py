"""Cross-entropy as the equation, with all logits in memory, in float32."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from cupola.core.dtype import Precision


def linear_log_probs(
    x: Float[Array, "B T D"], head: Float[Array, "V D"], targets: Int[Array, "B T"], precision: Precision
) -> Float[Array, "B T"]:
    """Returns log softmax(x . head)[targets] in float32."""
    wide, matrix = x.astype(jnp.float32), head.astype(jnp.float32)
    logits = jnp.einsum("btd,vd->btv", wide, matrix, precision=jax.lax.Precision.HIGHEST)
    return jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], -1)[..., 0]


def linear_cross_entropy(
    x: Float[Array, "B T D"],
    head: Float[Array, "V D"],
    targets: Int[Array, "B T"],
    weights: Float[Array, "B T"],
    precision: Precision,
) -> Float[Array, ""]:
    """Returns the weighted sum of negative log-probabilities; weight 0 hides even a NaN or a target that is no token."""
    counts = weights != 0
    seen, real = jnp.where(counts[..., None], x, 0), jnp.where(counts, targets, 0)
    return -jnp.sum(weights * linear_log_probs(seen, head, real, precision))
