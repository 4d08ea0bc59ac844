"""The matrix product in float32 with the weight made dense."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cupola.core.dtype import Precision
from cupola.kernels.matmul.form import Weight, dense
from cupola.kernels.matmul.packed import as_multiplied


def dot(x: Float[Array, "..."], weight: Weight, precision: Precision, contract: int) -> Float[Array, "..."]:
    """Returns x . weight, summed over the last `contract` dims of x and the first of the weight."""
    flat = as_multiplied(x.reshape(*x.shape[: x.ndim - contract], -1), weight).reshape(x.shape)
    wide, matrix = flat.astype(jnp.float32), dense(weight).astype(jnp.float32)
    return jnp.tensordot(wide, matrix, contract, precision=jax.lax.Precision.HIGHEST).astype(precision.output)
