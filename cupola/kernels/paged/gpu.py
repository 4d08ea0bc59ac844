"""Paged attention on a GPU: each sequence's own pages are read once for all the queries of a key head.

A few queries over many keys would occupy few of the card's processors, so the keys are split at fixed places among
programs, and their mixtures are joined. Invariant: blocks have one size and begin at fixed places, so that a query's
bits depend on its own sequence alone.
Source: Dao et al. 2023 (Flash-Decoding); Kwon et al. 2023 (PagedAttention).
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array, Float, Int

from cupola.kernels.attention.mask import Mask
from cupola.kernels.gpu import LEAST_PRODUCT, launch, power, product, refused_formats
from cupola.kernels.paged import reference
from cupola.kernels.paged.stored import Keys, Values

WIDEST = 256
"""Numbers of a head."""
BLOCK_QUERIES, BLOCK_KEYS = 32, 64
"""Queries are those of all heads that share a key head: of one token they seldom are more."""
SPLIT_TOKENS = 512
"""Keys of one program."""
HIDDEN = -1e30
"""Score of a hidden key; finite, so that programs of nothing else change nothing."""


def refuses(query, keys, values, table, start, mask: Mask, scale: float) -> list[str]:
    """Returns why the mask, the dtypes or the widths cannot be honoured."""
    reasons = reference.refuses(query, keys, values, table, start, mask, scale) + refused_formats(query=query.dtype)
    if keys.dtype != values.dtype or keys.dtype not in (jnp.float32, jnp.uint16):
        reasons.append(
            f"pages are {keys.dtype.name} and {values.dtype.name}, and it takes float32 and bits of bfloat16"
        )
    if query.shape[3] > WIDEST:
        reasons.append(f"heads are {query.shape[3]} wide, and it takes up to {WIDEST}")
    return reasons


def paged_attend(
    query: Float[Array, "B T H C"],
    keys: Keys,
    values: Values,
    table: Int[Array, "B N"],
    start: Int[Array, " B"],
    mask: Mask,
    scale: float,
) -> Float[Array, "B T H C"]:
    """Returns the mixtures, joined where several programs made one."""
    (rows, length, heads, width), (pages, groups, _, size) = query.shape, keys.shape
    each = table.shape[1]
    repeats, folded = heads // groups, heads // groups * length
    asked = query.reshape(rows, length, groups, repeats, width).transpose(0, 2, 1, 3, 4)
    high, holds = BLOCK_QUERIES, power(width, WIDEST, LEAST_PRODUCT)
    splits = pl.cdiv(each * size, SPLIT_TOKENS)
    # Products are of bf16 where both sides are; pages of bits are else made float32.
    compute = jnp.bfloat16 if query.dtype == jnp.bfloat16 and keys.dtype == jnp.uint16 else jnp.float32
    whole = [pl.BlockSpec((pages, None, *shape), lambda i, j, n: (0, n % groups, 0, 0)) for shape in
             ((width, size), (size, width))]  # fmt: skip
    column = pl.BlockSpec((None, None, high), lambda i, j, n: (n, j, i))
    out, top, total = launch(
        partial(_kernel, (length, repeats, width, size, each), mask.window, scale, compute),
        [
            jax.ShapeDtypeStruct((rows * groups, splits, folded, width), jnp.float32),
            *[jax.ShapeDtypeStruct((rows * groups, splits, folded), jnp.float32)] * 2,
        ],
        [asked.reshape(rows * groups, folded, width), keys, values, table.astype(jnp.int32), start.astype(jnp.int32)],
        grid=(pl.cdiv(folded, high), splits, rows * groups),
        inputs=[
            pl.BlockSpec((None, high, holds), lambda i, j, n: (n, i, 0)),
            *whole,
            pl.BlockSpec((None, each), lambda i, j, n: (n // groups, 0)),
            pl.BlockSpec((None,), lambda i, j, n: (n // groups,)),
        ],
        outputs=[pl.BlockSpec((None, None, high, holds), lambda i, j, n: (n, j, i, 0)), column, column],
        numbers=BLOCK_KEYS * holds // 4,
    )
    return (
        _joined(out, top, total).reshape(asked.shape).transpose(0, 2, 1, 3, 4).reshape(query.shape).astype(query.dtype)
    )


def _joined(
    out: Float[Array, "N J F C"], top: Float[Array, "N J F"], total: Float[Array, "N J F"]
) -> Float[Array, "N F C"]:
    """Returns the mixture of the parts; zeros where there is nothing."""
    highest = jnp.max(top, 1, keepdims=True, initial=HIDDEN)
    share = jnp.exp(top - highest)
    summed = jnp.sum(total * share, 1)
    return jnp.sum(out * share[..., None], 1) / jnp.where(summed > 0, summed, 1)[..., None]


def _kernel(sizes, window, scale, compute, query_ref, keys_ref, values_ref, table_ref, start_ref, *out_refs):
    (length, repeats, width, size, each), (high, holds) = sizes, query_ref.shape
    start, first = start_ref[...], pl.program_id(0) * high
    line, number = first + jnp.arange(high), jnp.arange(holds)
    at = start + jax.lax.div(line, jnp.full_like(line, repeats))
    within = (line < length * repeats)[:, None] & (number < width)[None]
    query = triton.load(query_ref, mask=within, other=0).astype(compute)
    end = start + jnp.minimum(jax.lax.div(first + (high - 1), repeats), length - 1) + 1
    low = jnp.maximum(start + jax.lax.div(first, repeats) - window + 1, 0) if window is not None else 0
    begins = pl.program_id(1) * SPLIT_TOKENS
    low, end = jnp.maximum(low, begins), jnp.minimum(jnp.minimum(end, begins + SPLIT_TOKENS), each * size)

    def block(index, state):
        top, total, out = state
        place = index * BLOCK_KEYS + jnp.arange(BLOCK_KEYS)
        inside = (place >= low) & (place < end)
        held = jax.lax.div(place, jnp.full_like(place, size))
        page = triton.load(table_ref.at[held], mask=inside, other=0)
        key = _gathered(
            keys_ref, compute, page[None], number[:, None], (place - held * size)[None], inside[None], width
        )
        behind = at[:, None] - place[None]
        seen = inside[None] & (behind >= 0)
        seen = seen if window is None else seen & (behind < window)
        scores = jnp.where(seen, product(query, key) * scale, HIDDEN)
        higher = jnp.maximum(top, jnp.max(scores, 1))
        weights, shrink = jnp.exp(scores - higher[:, None]), jnp.exp(top - higher)
        value = _gathered(
            values_ref, compute, page[:, None], number[None], (place - held * size)[:, None], inside[:, None], width
        )
        out = out * shrink[:, None] + product(weights.astype(compute), value)
        return higher, total * shrink + jnp.sum(weights, 1), out

    nothing = jnp.zeros(high, jnp.float32)
    state = nothing + HIDDEN / 2, nothing, jnp.zeros((high, holds), jnp.float32)
    begin, past = jax.lax.div(low, BLOCK_KEYS), jax.lax.div(jnp.maximum(end, 0) + (BLOCK_KEYS - 1), BLOCK_KEYS)
    top, total, out = jax.lax.fori_loop(begin, past, block, state)
    triton.store(out_refs[0], out, mask=within)
    for ref, column in zip(out_refs[1:], (top, total), strict=True):
        triton.store(ref, column, mask=line < length * repeats)


def _gathered(ref, compute, page, number, place, inside, width):
    """Returns keys [C, S] or values [S, C], as operands of products, by the shapes that these broadcast to."""
    shape = jnp.broadcast_shapes(page.shape, number.shape)
    # Numbers of a head come before places in pages of keys, and after them in pages of values.
    order = (number, place) if number.shape[0] > 1 else (place, number)
    index = tuple(jnp.broadcast_to(x, shape) for x in (page, *order))
    kept = triton.load(ref.at[index], mask=inside & (number < width), other=0)
    if kept.dtype == jnp.uint16:
        kept = jax.lax.bitcast_convert_type(kept, jnp.bfloat16)
    return kept.astype(compute)
