"""The look-up for the compiler; its gradient adds row after row, in float32."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def look_up(table: Float[Array, "V D"], tokens: Int[Array, "*N"]) -> Float[Array, "*N D"]:
    """Returns the row of each token."""
    return _look_up(table, tokens, table.shape[0], table.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _look_up(table, tokens, vocabulary, dtype):
    return table[tokens]


def _forward(table, tokens, vocabulary, dtype):
    return table[tokens], tokens


def _backward(vocabulary, dtype, tokens, gradient):
    # Sums of bf16 rows would lose what is small beside the sum.
    sums = jnp.zeros((vocabulary, gradient.shape[-1]), jnp.float32)
    return sums.at[tokens].add(gradient.astype(jnp.float32)).astype(dtype), None


_look_up.defvjp(_forward, _backward)
