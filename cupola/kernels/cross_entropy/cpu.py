"""Cross-entropy with native statistics and gradients of blocks; the products are the compiler's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from cupola.core.dtype import Precision
from cupola.kernels.cross_entropy import fused
from cupola.kernels.cross_entropy.fused import Slope, Statistics, Steps
from cupola.kernels.cross_entropy.objective import PLAIN, Losses, Objective
from cupola.kernels.matmul import dense
from cupola.kernels.native.level import Level
from cupola.kernels.native.library import call


def linear_losses(
    x: Float[Array, "B T D"],
    head: Float[Array, "V D"],
    targets: Int[Array, "B T"],
    weights: Float[Array, "B T"],
    precision: Precision,
    objective: Objective = PLAIN,
    class_weights: Float[Array, " V"] | None = None,
    *,
    level: Level,
) -> Losses:
    """Returns the weighted sums, chunk by chunk."""
    return fused.linear_losses(
        x, head, targets, weights, precision, objective, class_weights, steps=steps(level), aside=True
    )


def linear_cross_entropy(
    x: Float[Array, "B T D"],
    head: Float[Array, "V D"],
    targets: Int[Array, "B T"],
    weights: Float[Array, "B T"],
    precision: Precision,
    objective: Objective = PLAIN,
    class_weights: Float[Array, " V"] | None = None,
    *,
    level: Level,
) -> Float[Array, ""]:
    """Returns the weighted sum of the losses, chunk by chunk."""
    return fused.linear_losses(
        x, head, targets, weights, precision, objective, class_weights, steps=steps(level), aside=False
    ).loss


def linear_log_probs(
    x: Float[Array, "B T D"],
    head: Float[Array, "V D"],
    targets: Int[Array, "B T"],
    precision: Precision,
    soft_cap: float | None = None,
    *,
    level: Level,
) -> Float[Array, "B T"]:
    """Returns the log-probability of each target, chunk by chunk; the gradient makes the logits again."""
    return fused.linear_log_probs(x, head, targets, precision, soft_cap, steps=steps(level))


def refuses_losses(x, head, targets, weights, precision, objective=PLAIN, class_weights=None, *, level) -> list[str]:
    """Returns the formats that there is no kernel for."""
    return _refuses(precision)


def refuses_log_probs(x, head, targets, precision, soft_cap=None, *, level) -> list[str]:
    """Returns the formats that there is no kernel for."""
    return _refuses(precision)


def _refuses(precision: Precision) -> list[str]:
    reasons = []
    if precision.compute not in (jnp.float32, jnp.bfloat16):
        reasons.append(f"products are of {precision.compute.name}, and it takes float32 and bfloat16")
    if precision.accumulate != jnp.float32:
        reasons.append(f"sums are {precision.accumulate.name}, and its are float32")
    return reasons


@functools.cache
def steps(level: Level) -> Steps:
    """Returns what a level does to blocks; the same object each time, so that nothing is compiled twice."""
    return Steps(
        functools.partial(_statistics, level),
        functools.partial(_gradient, level),
        functools.partial(dense.product, level=level),
    )


def _statistics(
    level: Level,
    logits: Float[Array, "U N"],
    where: Int[Array, " N"],
    seen: Statistics,
    classes: Float[Array, " U"] | None,
) -> Statistics:
    column = jax.ShapeDtypeStruct(where.shape, jnp.float32)
    return Statistics(*call("softmax_statistics", level, (column,) * 4, logits, where, *seen, _or_none(classes)))


def _gradient(
    level: Level,
    logits: Float[Array, "U N"],
    where: Int[Array, " N"],
    slope: Slope,
    classes: Float[Array, " U"] | None,
    soft_cap: float | None,
    dtype: jnp.dtype,
) -> tuple[Float[Array, "U N"], Float[Array, "N U"]]:
    results = jax.ShapeDtypeStruct(logits.shape, dtype), jax.ShapeDtypeStruct(logits.shape[::-1], dtype)
    cap = np.float32(soft_cap or 0)
    return tuple(call("softmax_gradient", level, results, logits, where, *slope, _or_none(classes), soft_cap=cap))


def _or_none(classes: Float[Array, " U"] | None) -> Float[Array, " U"]:
    return jnp.zeros(0, jnp.float32) if classes is None else classes.astype(jnp.float32)
