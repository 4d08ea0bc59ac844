"""Attention for the compiler: transposed scores, visible blocks only, scores computed again backwards.

Scores are kept transposed, [B, K, S, T]: every product then has the form that a CPU runs fast
(`kernels/product.py`) and maxima and sums run over rows, vectorized. Queries are cut into blocks,
and a block of a causal mask never touches keys that none of its queries may see. The gradient keeps
one maximum and one sum per query and computes the scores again.
Source: Dao et al. 2022 (FlashAttention), section 3.1; our `top`, `total` are its m, l.
"""

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from cupola.core.dtype import Precision
from cupola.kernels.attention.mask import Mask
from cupola.kernels.attention.reference import unpadded
from cupola.kernels.product import contiguous, operand, product

BLOCK_QUERIES = 128
"""Queries in a block; at 128 half of the scores of 256 positions' upper triangle are skipped."""
HIDDEN = -1e30
"""Score of a hidden key; finite, so that a row of nothing else gives zeros and not NaN."""


class _Block(NamedTuple):
    """A range of queries, and the range of keys that any of them may see."""

    queries: slice
    keys: slice


def attend(
    query: Float[Array, "B T H C"],
    key: Float[Array, "B S K C"],
    value: Float[Array, "B S K C"],
    mask: Mask,
    scale: float,
    precision: Precision,
    soft_cap: float | None = None,
    sinks: Float[Array, " H"] | None = None,
) -> Float[Array, "B T H C"]:
    """Returns softmax(scale * query . key + mask) . value, block by block."""
    query = unpadded(query, mask.query_segments)
    key, value = (unpadded(x, mask.key_segments) for x in (key, value))
    return _attend(query, key, value, sinks, mask, scale, precision, soft_cap)


@partial(jax.custom_vjp, nondiff_argnums=(5, 6, 7))
def _attend(query, key, value, sinks, mask: Mask, scale: float, precision: Precision, soft_cap: float | None):
    return _forward(query, key, value, sinks, mask, scale, precision, soft_cap)[0]


def _forward(query, key, value, sinks, mask, scale, precision, soft_cap):
    groups = key.shape[2]
    rows = query.shape[1] * (query.shape[2] // groups)
    scaled = operand(query.astype(jnp.float32) * scale, precision, rows)
    keys = contiguous(operand(key, precision, rows).transpose(0, 2, 1, 3))
    ones = jnp.ones((*value.shape[:3], 1), value.dtype)
    # A row of ones under the values gives the sum of the weights with the same product and rounding.
    values = contiguous(operand(jnp.concatenate((value, ones), -1), precision, rows).transpose(0, 2, 3, 1))
    outs, tops, totals = [], [], []
    for block in _blocks(mask, query.shape[1], key.shape[1]):
        folded = _fold(scaled[:, block.queries], groups)
        scores, _ = _scores(folded, keys, block, mask, precision, soft_cap)
        floor = HIDDEN / 2 if sinks is None else _along(sinks, groups, block)
        top = jnp.max(scores, 2, keepdims=True, initial=HIDDEN)
        top = jnp.maximum(jax.lax.optimization_barrier(top), floor)
        weights = operand(jnp.exp(scores - top), precision, rows)
        sums = product(values[..., block.keys], weights, (3, 2), precision, batch=2)
        total = sums[:, :, -1:]
        if sinks is not None:
            total = total + jnp.exp(floor - top)
        outs.append(_unfold(sums[:, :, :-1] / jnp.where(total > 0, total, 1), query.shape[2]))
        tops.append(top)
        totals.append(total)
    out = jnp.concatenate(outs, 1).astype(query.dtype)
    return out, (query, key, value, sinks, mask, out, tops, totals)


def _backward(scale, precision, soft_cap, kept, gradient):
    query, key, value, sinks, mask, out, tops, totals = kept
    heads, groups = query.shape[2], key.shape[2]
    rows = query.shape[1] * (heads // groups)
    scaled = operand(query.astype(jnp.float32) * scale, precision, rows)
    keys, values = (contiguous(operand(x, precision, rows).transpose(0, 2, 1, 3)) for x in (key, value))
    keys_across = contiguous(operand(key, precision, rows).transpose(0, 2, 3, 1))
    for_query = []
    for_key = jnp.zeros(keys.shape, precision.accumulate)
    for_value = for_key
    for_sinks = jnp.zeros((groups, heads // groups), jnp.float32)
    for block, top, total in zip(_blocks(mask, query.shape[1], key.shape[1]), tops, totals, strict=True):
        folded = _fold(scaled[:, block.queries], groups)
        into, given = (_fold(x[:, block.queries].astype(jnp.float32), groups) for x in (out, gradient))
        inverse = jnp.where(total > 0, 1 / jnp.where(total > 0, total, 1), 0)
        drift = jnp.swapaxes(jnp.sum(given * into, 3, keepdims=True), 2, 3) * inverse
        given = contiguous(operand(given * jnp.swapaxes(inverse, 2, 3), precision, rows))
        scores, slope = _scores(folded, keys, block, mask, precision, soft_cap)
        weights = operand(jnp.exp(scores - top), precision, rows)
        for_weights = product(values[:, :, block.keys], given, (3, 3), precision, batch=2)
        for_scores = operand(weights.astype(jnp.float32) * (for_weights - drift) * slope, precision, rows)
        turned = product(keys_across[..., block.keys], for_scores, (3, 2), precision, batch=2)
        for_query.append(_unfold(turned * scale, heads))
        for_value = for_value.at[:, :, block.keys].add(product(weights, given, (3, 2), precision, batch=2))
        for_key = for_key.at[:, :, block.keys].add(product(for_scores, folded, (3, 2), precision, batch=2))
        if sinks is not None:
            taken = jnp.exp(_along(sinks, groups, block) - top) * drift
            for_sinks -= taken.reshape(len(taken), groups, heads // groups, -1).sum((0, 3))
    return (
        jnp.concatenate(for_query, 1).astype(query.dtype),
        for_key.transpose(0, 2, 1, 3).astype(key.dtype),
        for_value.transpose(0, 2, 1, 3).astype(value.dtype),
        None if sinks is None else for_sinks.reshape(heads).astype(sinks.dtype),
        None,
    )


_attend.defvjp(_forward, _backward)


def _blocks(mask: Mask, queries: int, keys: int) -> list[_Block]:
    """Cuts the queries into blocks, each with the keys that the mask's fixed part leaves visible."""
    if not mask.causal or mask.start is not None or mask.prefix is not None or queries != keys:
        return [_Block(slice(0, queries), slice(0, keys))]
    blocks = []
    for start in range(0, queries, BLOCK_QUERIES):
        stop = min(start + BLOCK_QUERIES, queries)
        first = 0 if mask.window is None else max(0, start - mask.window + 1)
        blocks.append(_Block(slice(start, stop), slice(first, stop)))
    return blocks


def _scores(
    folded: Float[Array, "B K GT C"],
    keys: Float[Array, "B K S C"],
    block: _Block,
    mask: Mask,
    precision: Precision,
    soft_cap: float | None,
) -> tuple[Float[Array, "B K _ GT"], Any]:
    """Returns the transposed scores of a block, hidden ones at HIDDEN, and what a soft cap leaves of their gradient."""
    scores = product(keys[:, :, block.keys], folded, (3, 3), precision, batch=2)
    slope: Any = 1.0
    if soft_cap is not None:
        part = jnp.tanh(scores / soft_cap)
        scores, slope = soft_cap * part, 1 - part * part
    queries = block.queries.stop - block.queries.start
    seen = jnp.swapaxes(_visible(mask, block), 1, 2)
    seen = jnp.broadcast_to(seen, (*seen.shape[:2], queries))
    return jnp.where(jnp.tile(seen, (1, 1, folded.shape[2] // queries))[:, None], scores, HIDDEN), slope


def _along(sinks: Float[Array, " H"], groups: int, block: _Block) -> Float[Array, "1 K 1 GT"]:
    """Returns each head's sink beside the queries of a block, as `_fold` lays them."""
    queries = block.queries.stop - block.queries.start
    return jnp.repeat(sinks.astype(jnp.float32).reshape(groups, -1), queries, 1)[None, :, None]


def _visible(mask: Mask, block: _Block) -> Bool[Array, "#B T S"]:
    """Returns what the mask shows of a block, as if the block's first key stood at 0."""
    queries, keys = block
    if mask.query_segments is not None and mask.key_segments is not None:
        mask = mask.within(mask.query_segments[:, queries], mask.key_segments[:, keys])
    offset = queries.start - keys.start
    if offset:
        mask = dataclasses.replace(mask, start=jnp.full((1,), offset))
    return mask.visible(queries.stop - queries.start, keys.stop - keys.start)


def _fold(x: Float[Array, "B T H C"], groups: int) -> Float[Array, "B K GT C"]:
    """Lays the query heads that share a key head one after the other along the queries."""
    batch, queries, heads, width = x.shape
    grouped = x.reshape(batch, queries, groups, heads // groups, width).transpose(0, 2, 3, 1, 4)
    return contiguous(grouped.reshape(batch, groups, heads // groups * queries, width))


def _unfold(x: Float[Array, "B K C GT"], heads: int) -> Float[Array, "B T H C"]:
    """Undoes `_fold` for a transposed result."""
    batch, groups, width, folded = x.shape
    repeats = heads // groups
    return (
        x.reshape(batch, groups, width, repeats, folded // repeats)
        .transpose(0, 4, 1, 3, 2)
        .reshape(batch, folded // repeats, heads, width)
    )
