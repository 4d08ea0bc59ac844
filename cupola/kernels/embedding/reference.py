"""The look-up as a product with rows that are one at the token and zero elsewhere."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def look_up(table: Float[Array, "V D"], tokens: Int[Array, "*N"]) -> Float[Array, "*N D"]:
    """Returns the row of each token."""
    hot = (tokens[..., None] == jnp.arange(table.shape[0]).reshape((1,) * tokens.ndim + (-1,))).astype(jnp.float32)
    found = jnp.tensordot(hot, table.astype(jnp.float32), 1, precision=jax.lax.Precision.HIGHEST)
    return found.astype(table.dtype)
