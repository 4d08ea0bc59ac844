"""Norms as the equations, in float32."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def rms_norm(x: Float[Array, "*N D"], scale: Float[Array, " D"], epsilon: float) -> Float[Array, "*N D"]:
    """Returns scale * x / sqrt(mean(x^2) + epsilon)."""
    wide = x.astype(jnp.float32)
    size = jnp.sqrt(jnp.mean(wide**2, -1, keepdims=True) + epsilon)
    return (_row(scale, x) * wide / size).astype(x.dtype)


def layer_norm(
    x: Float[Array, "*N D"], scale: Float[Array, " D"], offset: Float[Array, " D"], epsilon: float
) -> Float[Array, "*N D"]:
    """Returns scale * (x - mean) / sqrt(var + epsilon) + offset."""
    wide = x.astype(jnp.float32)
    centred = wide - jnp.mean(wide, -1, keepdims=True)
    size = jnp.sqrt(jnp.mean(centred**2, -1, keepdims=True) + epsilon)
    return (_row(scale, x) * centred / size + _row(offset, x)).astype(x.dtype)


def _row(vector: Float[Array, " D"], x: Float[Array, "*N D"]) -> Float[Array, "*#N D"]:
    return vector.astype(jnp.float32).reshape((1,) * (x.ndim - 1) + vector.shape)
