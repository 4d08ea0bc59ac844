"""The rotation for the compiler: two products and a sum, no complex numbers."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from cupola.kernels.rotary.pairing import Pairing


def rotate(
    x: Float[Array, "B T H C"], cos: Float[Array, "#B T R"], sin: Float[Array, "#B T R"], pairing: Pairing
) -> Float[Array, "B T H C"]:
    """Returns (a cos - b sin, b cos + a sin) for each pair (a, b)."""
    wide, cos, sin = x.astype(jnp.float32), cos[:, :, None], sin[:, :, None]
    if pairing is Pairing.HALVES:
        a, b = jnp.split(wide, 2, -1)
        out = jnp.concatenate((a * cos - b * sin, b * cos + a * sin), -1)
    else:
        a, b = wide[..., 0::2], wide[..., 1::2]
        out = jnp.stack((a * cos - b * sin, b * cos + a * sin), -1).reshape(x.shape)
    return out.astype(x.dtype)
