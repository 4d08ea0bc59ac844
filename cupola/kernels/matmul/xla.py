"""The matrix product for the compiler, with a gradient whose products keep the fast path.

The compiler's own gradient for the weight sums over the first dimension of both operands, a form
that has no fast path on a CPU; here the activations are transposed first (five times as fast).
"""

import math
from functools import partial, singledispatch

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from cupola.core.dtype import Precision
from cupola.kernels.matmul.form import Adapted, Grouped, Int8, LowRank, Turned, Weight, dense
from cupola.kernels.matmul.packed import Packed, PackedGroups, as_multiplied
from cupola.kernels.product import FEW_ROWS, contiguous, operand, product


def dot(x: Float[Array, "..."], weight: Weight, precision: Precision, contract: int) -> Float[Array, "..."]:
    """Returns x . weight: one product of matrices over all rows, whatever the form."""
    kept, summed = x.shape[: x.ndim - contract], x.shape[x.ndim - contract :]
    flat = x.reshape(math.prod(kept), math.prod(summed))
    out, shape = _product(weight, flat, precision, contract)
    return out.astype(precision.output).reshape(*kept, *shape)


def dots(
    x: Float[Array, "..."], weights: tuple[Float[Array, "..."], ...], precision: Precision, contract: int
) -> tuple[Float[Array, "..."], ...]:
    """Returns x . weight for each weight."""
    return tuple(dot(x, weight, precision, contract) for weight in weights)


@singledispatch
def _product(
    weight: Weight, x: Float[Array, "N K"], precision: Precision, contract: int
) -> tuple[Float[Array, "N F"], tuple[int, ...]]:
    """Returns the product with the weight's matrix and the shape of its output dims."""
    return matrix_product(x, weight.reshape(x.shape[1], -1), precision), weight.shape[contract:]


@_product.register
def _(weight: Int8, x: Float[Array, "N K"], precision: Precision, contract: int):
    out, shape = _product(weight.values.astype(jnp.float32), x, precision, contract)
    return out * jax.lax.broadcast_in_dim(weight.scales, out.shape, (1,)), shape


@_product.register(Grouped)
@_product.register(Packed)
def _(weight: Grouped | Packed, x: Float[Array, "N K"], precision: Precision, contract: int):
    return _product(dense(weight), x, precision, contract)


@_product.register
def _(weight: Turned, x: Float[Array, "N K"], precision: Precision, contract: int):
    rows = x.shape[0]
    # With fewer rows the compiler takes another way, of other speed and other bits.
    x = jnp.pad(x.astype(precision.compute), ((0, max(0, FEW_ROWS - rows)), (0, 0)))
    return product(x, weight.values.astype(precision.compute), (1, 1), precision)[:rows], weight.shape[contract:]


@_product.register
def _(weight: PackedGroups, x: Float[Array, "N K"], precision: Precision, contract: int):
    return _product(dense(weight), as_multiplied(x, weight), precision, contract)


@_product.register(Adapted)
@_product.register(LowRank)
def _(weight: Adapted | LowRank, x: Float[Array, "N K"], precision: Precision, contract: int):
    base, shape = _product(weight.base, x, precision, contract)
    return base + adapter(weight, x, precision), shape


def adapter(weight: Adapted | LowRank, x: Float[Array, "N K"], precision: Precision) -> Float[Array, "N F"]:
    """Returns what a weight's adapters add to the product with its base."""
    if isinstance(weight, LowRank):
        return weight.scale * matrix_product(matrix_product(x, weight.down, precision), weight.up, precision)
    inner, _ = _product(Turned(values=weight.down, shape=weight.down.shape[::-1]), x, precision, 1)
    return _product(Turned(values=weight.up, shape=weight.up.shape[::-1]), inner * weight.chosen, precision, 1)[0]


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def matrix_product(x: Float[Array, "N K"], w: Float[Array, "K F"], precision: Precision) -> Float[Array, "N F"]:
    """Returns the product of two matrices, with a gradient whose products keep the fast path."""
    rows = x.shape[0]
    return product(operand(x, precision, rows), operand(w, precision, rows), (1, 0), precision)


def _forward(x, w, precision):
    rows = x.shape[0]
    a, b = operand(x, precision, rows), operand(w, precision, rows)
    # Empty arrays carry the two dtypes, which the gradients must have, past the rounding.
    return product(a, b, (1, 0), precision), (a, b, x[:0, :0], w[:0, :0])


def _backward(precision, kept, gradient):
    a, b, like_x, like_w = kept
    g = gradient.astype(a.dtype)
    for_x = product(g, b, (1, 1), precision)
    return for_x.astype(like_x.dtype), _weight_gradient(a, g, precision).astype(like_w.dtype)


def _weight_gradient(a: Float[Array, "N K"], g: Float[Array, "N F"], precision: Precision) -> Float[Array, "K F"]:
    """Returns a.T . g by way of the transpose of the smaller of the two."""
    if a.shape[1] <= g.shape[1]:
        return product(contiguous(a.T), g, (1, 0), precision)
    return contiguous(product(contiguous(g.T), a, (1, 0), precision)).T


matrix_product.defvjp(_forward, _backward)


def dot_experts(
    x: Float[Array, "N K"], weight: Weight, sizes: Int[Array, " E"], precision: Precision
) -> Float[Array, "N F"]:
    """Returns each row times the matrix of its group."""
    exact = jax.lax.Precision.HIGHEST if precision.compute == jnp.float32 else None
    out = jax.lax.ragged_dot(
        x.astype(precision.compute),
        dense(weight).astype(precision.compute),
        sizes.astype(jnp.int32),
        precision=exact,
        preferred_element_type=precision.accumulate,
    )
    return out.astype(precision.output)
