"""AdamW as the equation, leaf by leaf, in the operations and the order that optax has. The compiler fuses each leaf."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from cupola.kernels.adamw.rule import Leaves, Rule


def adamw(
    params: Leaves,
    gradients: Leaves,
    means: Leaves,
    squares: Leaves,
    rule: Rule,
    rate: Float[Array, ""],
    count: Int[Array, ""],
    scale: Float[Array, ""],
) -> tuple[list[Array], list[Array], list[Array]]:
    """Returns the moved parameters, the means, and the means of squares."""
    moved, next_means, next_squares = [], [], []
    for p, g, m, v, multiplier, decay in zip(
        params, gradients, means, squares, rule.multipliers, rule.decays, strict=True
    ):
        now, g = p.astype(jnp.float32), g.astype(jnp.float32) * scale
        m = (1 - rule.b1) * g + rule.b1 * m
        v = (1 - rule.b2) * (g * g) + rule.b2 * v
        unbiased = m / (1 - rule.b1**count), v / (1 - rule.b2**count)
        step = multiplier * (unbiased[0] / (jnp.sqrt(unbiased[1]) + rule.epsilon))
        step = step + decay * now if decay else step
        moved.append((now - rate * step).astype(p.dtype))
        next_means.append(m)
        next_squares.append(v)
    return moved, next_means, next_squares


def global_norm(arrays: Leaves) -> Float[Array, ""]:
    """Returns the root of the sum of all squares."""
    return jnp.sqrt(sum((jnp.sum(jnp.square(x.astype(jnp.float32))) for x in arrays), jnp.float32(0)))
