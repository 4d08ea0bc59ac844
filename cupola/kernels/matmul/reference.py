"""The matrix product in float32 with the weight made dense."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from cupola.core.dtype import Precision
from cupola.kernels.matmul.form import Weight, dense
from cupola.kernels.matmul.packed import as_multiplied


def dot(x: Float[Array, "..."], weight: Weight, precision: Precision, contract: int) -> Float[Array, "..."]:
    """Returns x . weight, summed over the last `contract` dims of x and the first of the weight."""
    kept, summed = x.shape[: x.ndim - contract], x.shape[x.ndim - contract :]
    flat = as_multiplied(x.reshape(*kept, math.prod(summed)), weight).reshape(x.shape)
    wide, matrix = flat.astype(jnp.float32), dense(weight).astype(jnp.float32)
    return jnp.tensordot(wide, matrix, contract, precision=jax.lax.Precision.HIGHEST).astype(precision.output)


def dots(
    x: Float[Array, "..."], weights: tuple[Float[Array, "..."], ...], precision: Precision, contract: int
) -> tuple[Float[Array, "..."], ...]:
    """Returns x . weight for each weight."""
    return tuple(dot(x, weight, precision, contract) for weight in weights)


def dot_experts(
    x: Float[Array, "N K"], weight: Weight, sizes: Int[Array, " E"], precision: Precision
) -> Float[Array, "N F"]:
    """Returns each row times the matrix of its group."""
    matrices = dense(weight).astype(jnp.float32)
    owner = jnp.searchsorted(jnp.cumsum(sizes), jnp.arange(x.shape[0]), side="right")
    out = jnp.zeros((x.shape[0], matrices.shape[2]))
    for expert, matrix in enumerate(matrices):
        product = jnp.dot(x.astype(jnp.float32), matrix, precision=jax.lax.Precision.HIGHEST)
        out = jnp.where((owner == expert)[:, None], product, out)
    return out.astype(precision.output)
