"""Cross-entropy as the equation, with all logits in memory, in float32."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from cupola.core.dtype import Precision
from cupola.kernels.cross_entropy.objective import PLAIN, Losses, Objective


def losses(
    logits: Float[Array, "B T V"],
    targets: Int[Array, "B T"],
    weights: Float[Array, "B T"],
    objective: Objective = PLAIN,
    class_weights: Float[Array, " V"] | None = None,
) -> Losses:
    """Returns the weighted sums; weight 0 hides even a NaN or a target that is no token."""
    counts = weights != 0
    wide = capped(jnp.where(counts[..., None], logits, 0).astype(jnp.float32), objective.soft_cap)
    real = jnp.where(counts, targets, 0)
    classes = jnp.ones(wide.shape[-1]) if class_weights is None else jax.lax.stop_gradient(class_weights)
    normalizer = jax.nn.logsumexp(wide, -1)
    costs = classes[None, None] * (normalizer[..., None] - wide)
    smooth = objective.label_smoothing
    hit = (1 - smooth) * jnp.take_along_axis(costs, real[..., None], -1)[..., 0]
    z_loss = objective.z_loss * normalizer**2
    correct = (jnp.argmax(wide, -1) == real).astype(jnp.float32)
    return Losses(
        loss=jnp.sum(weights * (hit + smooth * jnp.mean(costs, -1) + z_loss)),
        z_loss=jax.lax.stop_gradient(jnp.sum(weights * z_loss)),
        correct=jax.lax.stop_gradient(jnp.sum(weights * correct)),
    )


def cross_entropy(logits, targets, weights, objective=PLAIN, class_weights=None) -> Float[Array, ""]:
    """Returns the weighted sum of the losses."""
    return losses(logits, targets, weights, objective, class_weights).loss


def logits_of(x: Float[Array, "B T D"], head: Float[Array, "V D"]) -> Float[Array, "B T V"]:
    """Returns x . head in float32."""
    wide, matrix = x.astype(jnp.float32), head.astype(jnp.float32)
    return jnp.einsum("btd,vd->btv", wide, matrix, precision=jax.lax.Precision.HIGHEST)


def capped(logits: Float[Array, "*N"], soft_cap: float | None) -> Float[Array, "*N"]:
    """Returns soft_cap * tanh(logits / soft_cap), or the logits as they are."""
    return logits if soft_cap is None else soft_cap * jnp.tanh(logits / soft_cap)


def linear_log_probs(
    x: Float[Array, "B T D"],
    head: Float[Array, "V D"],
    targets: Int[Array, "B T"],
    precision: Precision,
    soft_cap: float | None = None,
) -> Float[Array, "B T"]:
    """Returns log softmax(x . head)[targets] in float32."""
    logits = capped(logits_of(x, head), soft_cap)
    return jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], -1)[..., 0]


def linear_losses(
    x: Float[Array, "B T D"],
    head: Float[Array, "V D"],
    targets: Int[Array, "B T"],
    weights: Float[Array, "B T"],
    precision: Precision,
    objective: Objective = PLAIN,
    class_weights: Float[Array, " V"] | None = None,
) -> Losses:
    """Returns the weighted sums over x . head; weight 0 hides a NaN in x too."""
    seen = jnp.where((weights != 0)[..., None], x, 0)
    return losses(logits_of(seen, head), targets, weights, objective, class_weights)


def linear_cross_entropy(
    x: Float[Array, "B T D"],
    head: Float[Array, "V D"],
    targets: Int[Array, "B T"],
    weights: Float[Array, "B T"],
    precision: Precision,
    objective: Objective = PLAIN,
    class_weights: Float[Array, " V"] | None = None,
) -> Float[Array, ""]:
    """Returns the weighted sum of the losses."""
    return linear_losses(x, head, targets, weights, precision, objective, class_weights).loss
