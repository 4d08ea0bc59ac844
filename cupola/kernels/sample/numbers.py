"""The random numbers of a draw, and how they become tokens: what every implementation has in common.

Invariant: a row's numbers are a function of its seed, its position and the round alone.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Int, Int32, UInt32

BLOCK = 256
"""Tokens of a block; a draw finds the block, then the token in it."""


def keys_of(seed: UInt32[Array, "R 2"], position: Int32[Array, " R"]) -> Array:
    """Returns the key of each row."""
    return jax.vmap(jax.random.fold_in)(jax.random.wrap_key_data(seed, impl="threefry2x32"), position)


def uniform(keys: Array, round_: int | Int[Array, ""]) -> Float32[Array, "R 2"]:
    """Returns two numbers of each row for a round: one finds the block, one the token."""
    return jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, round_), (2,)))(keys)


def pick(weights: Float32[Array, "R N"], uniform: Float32[Array, " R"]) -> Int32[Array, " R"]:
    """Inverts the distribution function; a weight of 0 is never picked, however sums are rounded."""
    heaped = jnp.cumsum(weights, axis=1)
    index = jnp.arange(weights.shape[1], dtype=jnp.int32)[None]
    passed = (heaped > (uniform * heaped[:, -1])[:, None]) & (weights > 0)
    first = jnp.min(jnp.where(passed, index, weights.shape[1]), axis=1)
    last = jnp.max(jnp.where(weights > 0, index, 0), axis=1)
    return jnp.minimum(first, last)
