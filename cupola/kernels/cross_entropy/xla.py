"""Cross-entropy for the compiler: statistics and gradient of a block of transposed logits.

Logits are [classes, positions], because the compiler sums over the first dim of many columns at once,
and sums over the last one number after the other.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from cupola.core.dtype import Precision
from cupola.kernels.cross_entropy import fused
from cupola.kernels.cross_entropy.fused import Slope, Statistics, Steps
from cupola.kernels.cross_entropy.objective import PLAIN, Losses, Objective
from cupola.kernels.product import contiguous


def linear_losses(
    x: Float[Array, "B T D"],
    head: Float[Array, "V D"],
    targets: Int[Array, "B T"],
    weights: Float[Array, "B T"],
    precision: Precision,
    objective: Objective = PLAIN,
    class_weights: Float[Array, " V"] | None = None,
) -> Losses:
    """Returns the weighted sums, chunk by chunk."""
    return fused.linear_losses(x, head, targets, weights, precision, objective, class_weights, steps=STEPS, aside=True)


def linear_cross_entropy(
    x: Float[Array, "B T D"],
    head: Float[Array, "V D"],
    targets: Int[Array, "B T"],
    weights: Float[Array, "B T"],
    precision: Precision,
    objective: Objective = PLAIN,
    class_weights: Float[Array, " V"] | None = None,
) -> Float[Array, ""]:
    """Returns the weighted sum of the losses, chunk by chunk."""
    return fused.linear_losses(
        x, head, targets, weights, precision, objective, class_weights, steps=STEPS, aside=False
    ).loss


def linear_log_probs(
    x: Float[Array, "B T D"],
    head: Float[Array, "V D"],
    targets: Int[Array, "B T"],
    precision: Precision,
    soft_cap: float | None = None,
) -> Float[Array, "B T"]:
    """Returns the log-probability of each target, chunk by chunk; the gradient makes the logits again."""
    return fused.linear_log_probs(x, head, targets, precision, soft_cap, steps=STEPS)


def statistics(
    logits: Float[Array, "U N"], where: Int[Array, " N"], seen: Statistics, classes: Float[Array, " U"] | None
) -> Statistics:
    """Returns the statistics with a block's added."""
    # The barrier keeps the maximum from being taken again for each number.
    top = jax.lax.optimization_barrier(jnp.maximum(seen.top, jnp.max(logits, 0)))
    total = seen.total * jnp.exp(seen.top - top) + jnp.sum(jnp.exp(logits - top[None]), 0)
    at = seen.at + jnp.sum(jnp.where(_hit(logits, where), logits, 0), 0)
    return Statistics(top, total, at, seen.sum if classes is None else seen.sum + jnp.sum(logits * classes[:, None], 0))


def gradient(
    logits: Float[Array, "U N"],
    where: Int[Array, " N"],
    slope: Slope,
    classes: Float[Array, " U"] | None,
    soft_cap: float | None,
    dtype: jnp.dtype,
) -> tuple[Float[Array, "U N"], Float[Array, "N U"]]:
    """Returns the gradient of a block and its transpose."""
    out = slope.share[None] * jnp.exp(logits - slope.top[None])
    out = out - jnp.where(_hit(logits, where), slope.hit[None], 0)
    if classes is not None:
        out = out - slope.spread[None] * classes[:, None]
    if soft_cap is not None:
        out = out * (1 - (logits / soft_cap) ** 2)
    out = out.astype(dtype)
    return out, contiguous(out.T)


def _hit(logits: Float[Array, "U N"], where: Int[Array, " N"]):
    return jax.lax.broadcasted_iota(where.dtype, logits.shape, 0) == where[None]


STEPS = Steps(statistics, gradient)
