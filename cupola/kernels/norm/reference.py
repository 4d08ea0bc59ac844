"""Norms as the equations, in float32."""

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
    """Returns (offset + scale) * x / sqrt(mean(x^2) + epsilon)."""
    wide, by = x.astype(jnp.float32), _row(scale, x) + offset
    if casting is Casting.NONE:
        square = jnp.mean((x * x).astype(jnp.float32), -1, keepdims=True).astype(x.dtype)
        return x / jnp.sqrt(square + jnp.asarray(epsilon, x.dtype)) * by.astype(x.dtype)
    unit = wide / jnp.sqrt(jnp.mean(wide**2, -1, keepdims=True) + epsilon)
    if casting is Casting.LLAMA:
        return unit.astype(x.dtype) * by.astype(x.dtype)
    return (by * unit).astype(x.dtype)


def layer_norm(
    x: Float[Array, "*N D"], scale: Float[Array, " D"], offset: Float[Array, " D"], epsilon: float
) -> Float[Array, "*N D"]:
    """Returns scale * (x - mean) / sqrt(var + epsilon) + offset."""
    wide = x.astype(jnp.float32)
    centred = wide - jnp.mean(wide, -1, keepdims=True)
    size = jnp.sqrt(jnp.mean(centred**2, -1, keepdims=True) + epsilon)
    return (_row(scale, x) * centred / size + _row(offset, x)).astype(x.dtype)


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


def _row(vector: Float[Array, " D"], x: Float[Array, "*N D"]) -> Float[Array, "*#N D"]:
    return vector.astype(jnp.float32).reshape((1,) * (x.ndim - 1) + vector.shape)
