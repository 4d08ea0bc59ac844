"""The rotation as multiplication of complex numbers."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cupola.kernels.rotary.pairing import Pairing


def rotate(
    x: Float[Array, "B T H C"], cos: Float[Array, "#B T R"], sin: Float[Array, "#B T R"], pairing: Pairing
) -> Float[Array, "B T H C"]:
    """Returns (a + ib) * (cos + i sin) for each pair (a, b)."""
    wide = x.astype(jnp.float32)
    if pairing is Pairing.HALVES:
        a, b = jnp.split(wide, 2, -1)
    else:
        a, b = wide[..., 0::2], wide[..., 1::2]
    turned = jax.lax.complex(a, b) * jax.lax.complex(cos, sin)[:, :, None]
    pair = (turned.real, turned.imag)
    out = jnp.concatenate(pair, -1) if pairing is Pairing.HALVES else jnp.stack(pair, -1).reshape(x.shape)
    return out.astype(x.dtype)
