"""Norms for the compiler, which fuses each into one pass forward and one backward."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def rms_norm(x: Float[Array, "*N D"], scale: Float[Array, " D"], epsilon: float) -> Float[Array, "*N D"]:
    """Returns x * rsqrt(mean(x^2) + epsilon) * scale."""
    wide = x.astype(jnp.float32)
    inverse = jax.lax.rsqrt(jnp.mean(wide * wide, -1, keepdims=True) + epsilon)
    return (wide * inverse * _like(scale, wide)).astype(x.dtype)


def layer_norm(
    x: Float[Array, "*N D"], scale: Float[Array, " D"], offset: Float[Array, " D"], epsilon: float
) -> Float[Array, "*N D"]:
    """Returns (x - mean) * rsqrt(var + epsilon) * scale + offset."""
    wide = x.astype(jnp.float32)
    centred = wide - jnp.mean(wide, -1, keepdims=True)
    inverse = jax.lax.rsqrt(jnp.mean(centred * centred, -1, keepdims=True) + epsilon)
    return (centred * inverse * _like(scale, wide) + _like(offset, wide)).astype(x.dtype)


def _like(vector: Float[Array, " D"], x: Float[Array, "*N D"]) -> Float[Array, "*N D"]:
    return jax.lax.broadcast_in_dim(vector.astype(jnp.float32), x.shape, (x.ndim - 1,))
