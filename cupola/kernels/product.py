"""How to ask XLA for a product of low-precision numbers so that it is given the fast path.

On a CPU with bf16 units XLA runs a bf16 product four times as fast as a float32 one, if and only if
the left operand is summed over its last dimension, both operands lie in memory in the order of
their dimensions, and the result is float32. Any other form falls back to float32 with conversions.
Not here: what is multiplied. Invariant: every form of a product gives the same numbers, within the
rounding of its sums; only the time differs.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cupola.core.dtype import Precision

FEW_ROWS = 4
"""Up to this many rows a bf16 product is slower than a float32 one over the same rounded numbers."""


def contiguous(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns the same numbers, laid out in the order of the dimensions: a transpose made real.

    Without it XLA folds a transpose into the product's dimension numbers, where a CPU loses the
    fast path. Other devices fold it at no cost and are left alone.
    """
    return jax.lax.platform_dependent(x, cpu=_laid_out, default=lambda x: x)


def _laid_out(x: Float[Array, "..."]) -> Float[Array, "..."]:
    # The barrier keeps the transpose; the dimension dropped after it resets the layout that is seen.
    return jax.lax.squeeze(jax.lax.optimization_barrier(x[..., None]), (x.ndim,))


def operand(x: Float[Array, "..."], precision: Precision, rows: int) -> Float[Array, "..."]:
    """Returns x as an operand of a product with this many rows: rounded to the compute dtype.

    With few rows the rounded numbers are kept in float32, where matrix-vector products are fast.
    """
    if rows > FEW_ROWS or precision.compute == np.float32:
        return x.astype(precision.compute)
    kept = jnp.finfo(precision.compute)
    return jax.lax.reduce_precision(x.astype(jnp.float32), kept.nexp, kept.nmant)


def product(
    a: Float[Array, "..."],
    b: Float[Array, "..."],
    over: tuple[int, int],
    precision: Precision,
    batch: int = 0,
    onto: Float[Array, "..."] | None = None,
) -> Float[Array, "..."]:
    """Returns the product of two operands, summed over one dimension of each.

    Args:
        over: the dimension of a and of b that is summed over.
        batch: how many leading dims are a batch of products.
        onto: what it is added to.
    """
    dims = tuple(range(batch))
    exact = jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    out = jax.lax.dot_general(
        a,
        b,
        (((over[0],), (over[1],)), (dims, dims)),
        precision=exact,
        preferred_element_type=precision.accumulate,
    )
    return out if onto is None else onto + out


def rows_of(x: Float[Array, "..."], summed: int) -> int:
    """Returns how many rows an activation has when its last `summed` dims are summed over."""
    return math.prod(x.shape[: x.ndim - summed])
