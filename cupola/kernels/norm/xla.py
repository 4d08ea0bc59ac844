"""Norms for the compiler, which fuses each into one pass forward and one backward."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cupola.kernels.norm.casting import Casting


def rms_norm(
    x: Float[Array, "*N D"],
    scale: Float[Array, " D"],
    epsilon: float,
    offset: float = 0.0,
    casting: Casting = Casting.GEMMA,
) -> Float[Array, "*N D"]:
    """Returns x * rsqrt(mean(x^2) + epsilon) * (offset + scale)."""
    wide, by = x.astype(jnp.float32), scale.astype(jnp.float32)
    by = _like(by + offset if offset else by, wide)
    if casting is Casting.NONE:
        square = jnp.mean((x * x).astype(jnp.float32), -1, keepdims=True).astype(x.dtype)
        return x * jax.lax.rsqrt(square + jnp.asarray(epsilon, x.dtype)) * by.astype(x.dtype)
    unit = wide * jax.lax.rsqrt(jnp.mean(wide * wide, -1, keepdims=True) + epsilon)
    if casting is Casting.LLAMA:
        return unit.astype(x.dtype) * by.astype(x.dtype)
    return (unit * by).astype(x.dtype)


def layer_norm(
    x: Float[Array, "*N D"], scale: Float[Array, " D"], offset: Float[Array, " D"], epsilon: float
) -> Float[Array, "*N D"]:
    """Returns (x - mean) * rsqrt(var + epsilon) * scale + offset."""
    wide = x.astype(jnp.float32)
    centred = wide - jnp.mean(wide, -1, keepdims=True)
    inverse = jax.lax.rsqrt(jnp.mean(centred * centred, -1, keepdims=True) + epsilon)
    return (centred * inverse * _like(scale, wide) + _like(offset, wide)).astype(x.dtype)


def add_rms_norm(
    x: Float[Array, "*N D"],
    residual: Float[Array, "*N D"],
    scale: Float[Array, " D"],
    epsilon: float,
    offset: float = 0.0,
    casting: Casting = Casting.GEMMA,
) -> tuple[Float[Array, "*N D"], Float[Array, "*N D"]]:
    """Returns the norm of x + residual, and x + residual."""
    summed = x + residual
    return rms_norm(summed, scale, epsilon, offset, casting), summed


def add_layer_norm(
    x: Float[Array, "*N D"],
    residual: Float[Array, "*N D"],
    scale: Float[Array, " D"],
    offset: Float[Array, " D"],
    epsilon: float,
) -> tuple[Float[Array, "*N D"], Float[Array, "*N D"]]:
    """Returns the norm of x + residual, and x + residual."""
    summed = x + residual
    return layer_norm(summed, scale, offset, epsilon), summed


def _like(vector: Float[Array, " D"], x: Float[Array, "*N D"]) -> Float[Array, "*N D"]:
    return jax.lax.broadcast_in_dim(vector.astype(jnp.float32), x.shape, (x.ndim - 1,))
