"""Cross-entropy over given logits for the compiler: two passes forward, one backward, nothing of their size is kept."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from cupola.kernels.cross_entropy.objective import PLAIN, Objective
from cupola.kernels.cross_entropy.reference import capped


def cross_entropy(
    logits: Float[Array, "B T V"],
    targets: Int[Array, "B T"],
    weights: Float[Array, "B T"],
    objective: Objective = PLAIN,
    class_weights: Float[Array, " V"] | None = None,
) -> Float[Array, ""]:
    """Returns the weighted sum of the losses."""
    return _loss(logits, jnp.where(weights != 0, targets, 0), weights, class_weights, objective)


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _loss(logits, targets, weights, class_weights, objective):
    return _forward(logits, targets, weights, class_weights, objective)[0]


def _forward(logits, targets, weights, class_weights, objective):
    wide = _wide(logits, weights, objective)
    vocabulary, smooth, z = wide.shape[-1], objective.label_smoothing, objective.z_loss
    top = jax.lax.optimization_barrier(jnp.max(wide, -1))
    total = jnp.sum(jnp.exp(wide - top[..., None]), -1)
    normalizer = top + jnp.log(total)
    at = jnp.take_along_axis(wide, targets[..., None], -1)[..., 0]
    classes = jnp.ones(vocabulary, wide.dtype) if class_weights is None else class_weights.astype(wide.dtype)
    of_target = (1 - smooth) * classes[targets]
    cost = of_target * (top - at + jnp.log(total)) + z * normalizer**2
    if smooth:
        linear = jnp.einsum("btv,v->bt", wide, classes, precision=jax.lax.Precision.HIGHEST)
        cost = cost + smooth / vocabulary * (jnp.sum(classes) * normalizer - linear)
    return jnp.sum(weights * cost), (logits, targets, weights, class_weights, top, total, cost)


def _backward(objective, kept, gradient):
    logits, targets, weights, class_weights, top, total, costs = kept
    wide = _wide(logits, weights, objective)
    vocabulary, smooth, z = wide.shape[-1], objective.label_smoothing, objective.z_loss
    classes = jnp.ones(vocabulary, wide.dtype) if class_weights is None else class_weights.astype(wide.dtype)
    by = gradient * weights
    of_target = (1 - smooth) * classes[targets]
    share = of_target + smooth / vocabulary * jnp.sum(classes) + 2 * z * (top + jnp.log(total))
    out = (by * share / total)[..., None] * jnp.exp(wide - top[..., None])
    hit = jax.lax.broadcasted_iota(targets.dtype, wide.shape, 2) == targets[..., None]
    out = out - jnp.where(hit, (by * of_target)[..., None], 0)
    if smooth:
        out = out - smooth / vocabulary * by[..., None] * classes[None, None]
    if objective.soft_cap is not None:
        out = out * (1 - (wide / objective.soft_cap) ** 2)
    return out.astype(logits.dtype), None, gradient * costs, None


_loss.defvjp(_forward, _backward)


def _wide(logits, weights, objective):
    return capped(jnp.where((weights != 0)[..., None], logits, 0).astype(jnp.float32), objective.soft_cap)
