"""Matrix products on a GPU that the compiler has no good form for: weights in groups, and experts.

Codes of a group become numbers on their way to the tensor cores, so that no matrix of them stands in memory; the rows
of each expert are cut into blocks, and each block is multiplied by its expert's matrix alone.
Not here: products with dense weights, which are cuBLAS's (`xla.py`).
Source: Gale et al. 2023 (MegaBlocks), section 4, for the blocks of experts.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array, Float, Int

from cupola.core.dtype import Precision
from cupola.kernels.gpu import LEAST_PRODUCT, launch, power, product, refused_formats
from cupola.kernels.matmul import xla
from cupola.kernels.matmul.form import Adapted, Grouped, LowRank, Weight, dense, form_of

BLOCK_ROWS, BLOCK_OUTPUTS = 64, 64
BLOCK_BYTES = 64
"""Of codes of an output that are multiplied at once."""
BLOCK_INPUTS = 32
"""That are summed over at once, in a product with experts."""
MOST_BYTES = 2**31
"""Of codes: places in them are counted in 32 bits."""


def dot(x: Float[Array, "..."], weight: Weight, precision: Precision, contract: int) -> Float[Array, "..."]:
    """Returns x . weight, the base of an adapted weight by the kernel and its adapter by the compiler."""
    kept, summed = x.shape[: x.ndim - contract], x.shape[x.ndim - contract :]
    flat, base = x.reshape(math.prod(kept), math.prod(summed)), _base(weight)
    out = _product(base, flat, precision)
    if base is not weight:
        out = out + xla.adapter(weight, flat, precision)
    return out.astype(precision.output).reshape(*kept, *base.shape[contract:])


def refuses(x: Float[Array, "..."], weight: Weight, precision: Precision, contract: int) -> list[str]:
    """Returns why the kernel cannot multiply so."""
    base = _base(weight)
    if not isinstance(base, Grouped):
        return [f"the weight is kept as {form_of(base)}, and it takes Grouped"]
    reasons = _formats(x, precision)
    if base.codes.ndim != 2:
        reasons.append("the weight is a stack of matrices")
    if base.codes.size >= MOST_BYTES:
        reasons.append(f"codes take {base.codes.size} bytes, and it takes fewer than {MOST_BYTES}")
    return reasons


def dot_experts(
    x: Float[Array, "N K"], weight: Weight, sizes: Int[Array, " E"], precision: Precision
) -> Float[Array, "N F"]:
    """Returns each row times the matrix of its group."""
    rows, matrices = x.astype(precision.compute), weight.astype(precision.compute)
    return _experts(rows, matrices, sizes.astype(jnp.int32)).astype(precision.output)


def refuses_experts(x: Float[Array, "N K"], weight: Weight, sizes: Int[Array, " E"], precision: Precision) -> list[str]:
    """Returns why the kernel cannot multiply so."""
    if not isinstance(weight, jax.Array):
        return [f"the weights are kept as {form_of(weight)}, and it takes an array"]
    return _formats(x, precision)


def _formats(x: Float[Array, "..."], precision: Precision) -> list[str]:
    reasons = refused_formats(**{"x": x.dtype, "precision.compute": precision.compute})
    if precision.accumulate != jnp.float32:
        reasons.append(f"sums are {precision.accumulate.name}, and its are float32")
    return reasons


def _base(weight: Weight) -> Weight:
    return weight.base if isinstance(weight, Adapted | LowRank) else weight


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _product(weight: Grouped, x: Float[Array, "N K"], precision: Precision) -> Float[Array, "N F"]:
    (rows, inputs), (outputs, bytes_each), groups = x.shape, weight.codes.shape, weight.scales.shape[1]
    high = power(rows, BLOCK_ROWS, LEAST_PRODUCT)
    # With few rows the time is that of reading codes, by as many programs as there are.
    across = power(outputs, BLOCK_OUTPUTS if rows > LEAST_PRODUCT else BLOCK_OUTPUTS // 2, LEAST_PRODUCT)
    line = pl.BlockSpec((across, groups), lambda i, j: (j, 0))
    offsets = [] if weight.offsets is None else [weight.offsets]
    sizes = rows, inputs, outputs, bytes_each, inputs // max(groups, 1)
    return launch(
        partial(_grouped_kernel, sizes, weight.bits, weight.zero, precision.compute),
        jax.ShapeDtypeStruct((rows, outputs), jnp.float32),
        [x, weight.codes, weight.scales, *offsets],
        grid=(pl.cdiv(rows, high), pl.cdiv(outputs, across)),
        inputs=[
            pl.BlockSpec((high, inputs), lambda i, j: (i, 0)),
            pl.BlockSpec((across, bytes_each), lambda i, j: (j, 0)),
            *[line] * (1 + len(offsets)),
        ],
        outputs=pl.BlockSpec((high, across), lambda i, j: (i, j)),
        numbers=across * BLOCK_BYTES // 2,
        stages=3,
    )


def _grouped_kernel(sizes, bits, zero, compute, x_ref, codes_ref, scales_ref, *refs):
    (rows, _, outputs, bytes_each, group), (*offsets_ref, out_ref) = sizes, refs
    high, across = out_ref.shape
    row, column = pl.program_id(0) * high + jnp.arange(high), pl.program_id(1) * across + jnp.arange(across)
    known = (row < rows)[:, None], (column < outputs)[:, None]
    held = group * bits // 8

    def block(index, out):
        byte = index * BLOCK_BYTES + jnp.arange(BLOCK_BYTES)
        inside = (byte < bytes_each)[None]
        of = jax.lax.div(byte, jnp.full_like(byte, held))
        first = of * group + byte - of * held
        codes = triton.load(codes_ref.at[:, pl.ds(index * BLOCK_BYTES, BLOCK_BYTES)], mask=known[1] & inside, other=0)
        place = jnp.broadcast_to(jnp.arange(across)[:, None], codes.shape), jnp.broadcast_to(of[None], codes.shape)
        numbers = [triton.load(ref.at[place], mask=known[1] & inside, other=0) for ref in (scales_ref, *offsets_ref)]
        scales, *offsets = (each.astype(jnp.float32) for each in numbers)
        wide = codes.astype(jnp.int32)
        parts = [(first, wide)] if bits == 8 else [(first, wide & 15), (first + held, wide >> 4)]
        for at, part in parts:
            matrix = (part - zero).astype(jnp.float32) * scales
            matrix = matrix + offsets[0] if offsets else matrix
            cells = (
                jnp.broadcast_to(jnp.arange(high)[:, None], (high, BLOCK_BYTES)),
                jnp.broadcast_to(at[None], (high, BLOCK_BYTES)),
            )
            x = triton.load(x_ref.at[cells], mask=known[0] & inside, other=0)
            out = out + product(x.astype(compute), matrix.astype(compute), (1, 1))
        return out

    start = jnp.zeros((high, across), jnp.float32)
    out = jax.lax.fori_loop(0, pl.cdiv(bytes_each, BLOCK_BYTES), block, start)
    triton.store(out_ref, out, mask=known[0] & (column < outputs)[None])


def _forward(weight, x, precision):
    return _product(weight, x, precision), (weight, x)


def _backward(precision, kept, gradient):
    def plain(weight: Weight, x: Array) -> Array:
        return xla.matrix_product(x, dense(weight).reshape(x.shape[1], -1), precision)

    return jax.vjp(plain, *kept)[1](gradient)


_product.defvjp(_forward, _backward)


@jax.custom_vjp
def _experts(x: Float[Array, "N K"], weight: Float[Array, "E K F"], sizes: Int[Array, " E"]) -> Float[Array, "N F"]:
    return _by_group(x, weight, sizes, turned=False)


def _experts_forward(x, weight, sizes):
    return _experts(x, weight, sizes), (x, weight, sizes)


def _experts_backward(kept, gradient):
    x, weight, sizes = kept
    given = gradient.astype(x.dtype)
    for_x = _by_group(given, weight, sizes, turned=True).astype(x.dtype)
    return for_x, _for_matrices(x, given, sizes).astype(weight.dtype), None


_experts.defvjp(_experts_forward, _experts_backward)


def _by_group(x, weight, sizes, *, turned: bool) -> Float[Array, "N F"]:
    """Returns each row times its group's matrix, or that matrix turned; 0 beyond all groups."""
    (rows, inputs), experts, outputs = x.shape, weight.shape[0], weight.shape[1 if turned else 2]
    high, across = power(rows, BLOCK_ROWS, LEAST_PRODUCT), power(outputs, BLOCK_OUTPUTS, LEAST_PRODUCT)
    ends = jnp.cumsum(sizes)
    blocks = -(-sizes // high)
    last = jnp.cumsum(blocks)
    # At most so many blocks: each group may end in one that is not full. Those past the last are empty.
    index = jnp.arange(pl.cdiv(rows, high) + experts, dtype=jnp.int32)
    expert = jnp.minimum(jnp.sum(last[None] <= index[:, None], 1), experts - 1).astype(jnp.int32)
    begins = ends[expert] - sizes[expert] + (index - last[expert] + blocks[expert]) * high
    until = jnp.where(index < last[-1], ends[expert], 0).astype(jnp.int32)
    each = pl.BlockSpec((None,), lambda i, j: (i,))
    out = launch(
        partial(_by_group_kernel, inputs, outputs, (high, across), turned),
        jax.ShapeDtypeStruct((rows, outputs), jnp.float32),
        [expert, begins.astype(jnp.int32), until, x, weight],
        grid=(len(index), pl.cdiv(outputs, across)),
        inputs=[each, each, each, _all(x), _all(weight)],
        outputs=pl.BlockSpec((rows, outputs), lambda i, j: (0, 0)),
        numbers=high * across // 2,
        stages=3,
    )
    return jnp.where((jnp.arange(rows) < ends[-1])[:, None], out, 0)


def _by_group_kernel(inputs, outputs, block, turned, expert_ref, begins_ref, until_ref, x_ref, weight_ref, out_ref):
    (high, across), expert, first = block, expert_ref[...], begins_ref[...]
    column = pl.program_id(1) * across
    rows, columns = pl.ds(first, high), pl.ds(column, across)
    known = ((first + jnp.arange(high)) < until_ref[...])[:, None]
    there = column + jnp.arange(across) < outputs

    def step(index, out):
        summed = pl.ds(index * BLOCK_INPUTS, BLOCK_INPUTS)
        inside = index * BLOCK_INPUTS + jnp.arange(BLOCK_INPUTS) < inputs
        x = triton.load(x_ref.at[rows, summed], mask=known & inside[None], other=0)
        if turned:
            matrix = triton.load(weight_ref.at[expert, columns, summed], mask=there[:, None] & inside[None], other=0)
            return out + product(x, matrix, (1, 1))
        matrix = triton.load(weight_ref.at[expert, summed, columns], mask=inside[:, None] & there[None], other=0)
        return out + product(x, matrix)

    start = jnp.zeros((high, across), jnp.float32)
    # A block of no rows has nothing to sum. (Triton's lowering makes bits of the numbers of `where(c, 8, 0)`.)
    turns = pl.cdiv(inputs, BLOCK_INPUTS) * (first < until_ref[...]).astype(jnp.int32)
    triton.store(out_ref.at[rows, columns], jax.lax.fori_loop(0, turns, step, start), mask=known & there[None])


def _for_matrices(x, given, sizes) -> Float[Array, "E K F"]:
    """Returns the sum of each group's x.T . given."""
    (rows, inputs), outputs, experts = x.shape, given.shape[1], len(sizes)
    down, across = (power(size, BLOCK_OUTPUTS, LEAST_PRODUCT) for size in (inputs, outputs))
    ends = jnp.cumsum(sizes)
    each = pl.BlockSpec((None,), lambda e, i, j: (e,))
    return launch(
        partial(_for_matrices_kernel, inputs, outputs),
        jax.ShapeDtypeStruct((experts, inputs, outputs), jnp.float32),
        [ends - sizes, ends, x, given],
        grid=(experts, pl.cdiv(inputs, down), pl.cdiv(outputs, across)),
        inputs=[
            each,
            each,
            pl.BlockSpec((rows, down), lambda e, i, j: (0, i)),
            pl.BlockSpec((rows, across), lambda e, i, j: (0, j)),
        ],
        outputs=pl.BlockSpec((None, down, across), lambda e, i, j: (e, i, j)),
        numbers=down * across // 2,
        stages=3,
    )


def _for_matrices_kernel(inputs, outputs, begins_ref, until_ref, x_ref, given_ref, out_ref):
    first, until, (down, across) = begins_ref[...], until_ref[...], out_ref.shape
    places = [
        (pl.program_id(1) * down + jnp.arange(down) < inputs)[None],
        (pl.program_id(2) * across + jnp.arange(across) < outputs)[None],
    ]

    def step(index, out):
        begins = first + index * BLOCK_INPUTS
        known = (begins + jnp.arange(BLOCK_INPUTS) < until)[:, None]
        x, given = (
            triton.load(ref.at[pl.ds(begins, BLOCK_INPUTS)], mask=known & place, other=0)
            for ref, place in zip((x_ref, given_ref), places, strict=True)
        )
        return out + product(x, given, (0, 0))

    start = jnp.zeros((down, across), jnp.float32)
    turns = jax.lax.div(until - first + (BLOCK_INPUTS - 1), BLOCK_INPUTS)
    out = jax.lax.fori_loop(0, turns, step, start)
    triton.store(out_ref, out, mask=places[0].reshape(down, 1) & places[1])


def _all(x: Array) -> pl.BlockSpec:
    """Returns how a program sees a whole array."""
    return pl.BlockSpec(x.shape, lambda i, j: (0,) * x.ndim)
