"""Attention on a GPU: a block of scores at a time, in registers, and again for the gradient.

A program takes a block of queries of one head, and only the blocks of keys that one of them may see; backward, a
block of keys with the queries of all the heads that share it, so that each gradient is summed in one order.
Invariant: what stands past an end, or is padding, is neither read nor written.
Source: Dao 2023 (FlashAttention-2), section 3.1; our `top` and `total` are its m, l.
"""

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array, Float

from cupola.core.dtype import Precision
from cupola.kernels.attention.mask import Mask
from cupola.kernels.gpu import LEAST_PRODUCT, launch, power, product, refused_formats

WIDEST = 256
"""Numbers of a head."""
HIDDEN = -1e30
"""Score of a hidden key; finite, so that a row of nothing else gives zeros and not NaN."""


@dataclasses.dataclass(frozen=True)
class _Rules:
    """What programs know when they are compiled.

    Args:
        queries, keys, width: sizes of the arrays.
        high, wide: queries and keys of a block.
        holds: numbers of a head in a block.
        compute: the dtype of operands of products.
    """

    queries: int
    keys: int
    width: int
    high: int
    wide: int
    holds: int
    causal: bool
    window: int | None
    prefix: bool
    segments: bool
    sinks: bool
    scale: float
    soft_cap: float | None
    compute: Any


class _Row(NamedTuple):
    """What programs see of a row of the batch beside its queries and keys; None where the mask lacks it."""

    start: Any
    prefix: Any
    query_segments: Any
    key_segments: Any


def refuses(
    query: Float[Array, "B T H C"],
    key: Float[Array, "B S K C"],
    value: Float[Array, "B S K C"],
    mask: Mask,
    scale: float,
    precision: Precision,
    soft_cap: float | None = None,
    sinks: Float[Array, " H"] | None = None,
) -> list[str]:
    """Returns the formats and widths that there is no kernel for."""
    named = {"query": query.dtype, "key": key.dtype, "value": value.dtype, "precision.compute": precision.compute}
    reasons = refused_formats(**named)
    if precision.accumulate != jnp.float32:
        reasons.append(f"precision.accumulate is {precision.accumulate.name}, and it sums in float32")
    if query.shape[3] > WIDEST:
        reasons.append(f"heads are {query.shape[3]} wide, and it takes up to {WIDEST}")
    return reasons


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
    """Returns softmax(scale * query . key + mask) . value."""
    return _attend(query, key, value, sinks, mask, scale, precision, soft_cap)


@partial(jax.custom_vjp, nondiff_argnums=(5, 6, 7))
def _attend(query, key, value, sinks, mask: Mask, scale: float, precision: Precision, soft_cap: float | None):
    return _forward(query, key, value, sinks, mask, scale, precision, soft_cap)[0]


def _forward(query, key, value, sinks, mask, scale, precision, soft_cap):
    rules = _rules(query, key, sinks, mask, scale, precision, soft_cap)
    batch, queries, heads, _ = query.shape
    repeats = heads // key.shape[2]
    block = pl.BlockSpec((None, rules.high, None, rules.holds), lambda i, h, b: (b, i, h, 0))
    whole = pl.BlockSpec((None, rules.keys, None, rules.holds), lambda i, h, b: (b, 0, h // repeats, 0))
    column = pl.BlockSpec((None, None, rules.high), lambda i, h, b: (b, h, i))
    marks, specs = _marks(rules, mask, batch, blocked="queries")
    out, top, total = launch(
        partial(_forward_kernel, rules),
        [
            jax.ShapeDtypeStruct(query.shape, query.dtype),
            *[jax.ShapeDtypeStruct((batch, heads, queries), jnp.float32)] * 2,
        ],
        [query, key, value, *marks, *([sinks.astype(jnp.float32)] if rules.sinks else [])],
        grid=(pl.cdiv(queries, rules.high), heads, batch),
        inputs=[block, whole, whole, *specs, *[pl.BlockSpec((None,), lambda i, h, b: (h,))] * rules.sinks],
        outputs=[block, column, column],
        numbers=_numbers(rules),
    )
    return out, (query, key, value, sinks, mask, out, top, total)


def _backward(scale, precision, soft_cap, kept, gradient):
    query, key, value, sinks, mask, out, top, total = kept
    drift = jnp.swapaxes(jnp.sum(out.astype(jnp.float32) * gradient.astype(jnp.float32), -1), 1, 2)
    for_sinks = None
    if sinks is not None:
        taken = jnp.exp(sinks.astype(jnp.float32)[None, :, None] - top) / total * drift
        for_sinks = -jnp.sum(taken, (0, 2)).astype(sinks.dtype)
    rules = _rules(query, key, sinks, mask, scale, precision, soft_cap)
    given = query, key, value, gradient, top, total, drift
    return _for_queries(rules, mask, *given), *_for_keys(rules, mask, *given), for_sinks, None


_attend.defvjp(_forward, _backward)


def _for_queries(rules, mask, query, key, value, gradient, top, total, drift):
    batch, queries, heads, _ = query.shape
    repeats = heads // key.shape[2]
    block = pl.BlockSpec((None, rules.high, None, rules.holds), lambda i, h, b: (b, i, h, 0))
    whole = pl.BlockSpec((None, rules.keys, None, rules.holds), lambda i, h, b: (b, 0, h // repeats, 0))
    column = pl.BlockSpec((None, None, rules.high), lambda i, h, b: (b, h, i))
    marks, specs = _marks(rules, mask, batch, blocked="queries")
    return launch(
        partial(_for_queries_kernel, rules),
        jax.ShapeDtypeStruct(query.shape, query.dtype),
        [query, key, value, gradient, top, total, drift, *marks],
        grid=(pl.cdiv(queries, rules.high), heads, batch),
        inputs=[block, whole, whole, block, column, column, column, *specs],
        outputs=block,
        numbers=_numbers(rules),
    )


def _for_keys(rules, mask, query, key, value, gradient, top, total, drift):
    (batch, keys, groups, _), repeats = key.shape, query.shape[2] // key.shape[2]
    block = pl.BlockSpec((None, rules.wide, None, rules.holds), lambda i, k, b: (b, i, k, 0))
    whole = pl.BlockSpec((None, rules.queries, repeats, rules.holds), lambda i, k, b: (b, 0, k, 0))
    column = pl.BlockSpec((None, repeats, rules.queries), lambda i, k, b: (b, k, 0))
    marks, specs = _marks(rules, mask, batch, blocked="keys")
    return launch(
        partial(_for_keys_kernel, rules, repeats),
        [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (key, value)],
        [query, key, value, gradient, top, total, drift, *marks],
        grid=(pl.cdiv(keys, rules.wide), groups, batch),
        inputs=[whole, block, block, whole, column, column, column, *specs],
        outputs=[block, block],
        numbers=_numbers(rules),
    )


def _rules(query, key, sinks, mask, scale, precision, soft_cap) -> _Rules:
    (_, queries, _, width), keys = query.shape, key.shape[1]
    holds = power(width, WIDEST, LEAST_PRODUCT)
    # Products of float32 are made without tensor cores, from operands in registers: their blocks are small.
    room = 2**13 if precision.compute == jnp.bfloat16 else 2**11
    return _Rules(
        queries=queries,
        keys=keys,
        width=width,
        high=power(queries, min(max(room // holds, 32), 128), LEAST_PRODUCT),
        wide=power(keys, min(max(room // holds, 32), 64), LEAST_PRODUCT),
        holds=holds,
        causal=mask.causal,
        window=mask.window,
        prefix=mask.prefix is not None,
        segments=mask.query_segments is not None,
        sinks=sinks is not None,
        scale=scale,
        soft_cap=soft_cap,
        compute=precision.compute,
    )


def _numbers(rules: _Rules) -> int:
    """Returns what decides how many threads a program has: the sums that it holds."""
    return rules.high * max(rules.holds, rules.wide) // 2


def _marks(rules: _Rules, mask: Mask, batch: int, *, blocked: str) -> tuple[list[Array], list[pl.BlockSpec]]:
    """Returns the mask's arrays, and how a program sees them that has a block of queries, or one of keys."""
    marks, specs = [], []
    for x in (jnp.zeros(batch) if mask.start is None else mask.start, mask.prefix):
        if x is not None:
            marks.append(jnp.broadcast_to(x, (batch,)).astype(jnp.int32))
            specs.append(pl.BlockSpec((None,), lambda i, h, b: (b,)))
    if rules.segments:
        own, other = (lambda i, h, b: (b, i)), (lambda i, h, b: (b, 0))
        high, wide = (rules.high, rules.keys) if blocked == "queries" else (rules.queries, rules.wide)
        marks += [x.astype(jnp.int32) for x in (mask.query_segments, mask.key_segments)]
        specs += [
            pl.BlockSpec((None, high), own if blocked == "queries" else other),
            pl.BlockSpec((None, wide), other if blocked == "queries" else own),
        ]
    return marks, specs


def _row(rules: _Rules, refs) -> tuple[_Row, list[Any]]:
    """Returns what is seen of a row, and the references that follow its own."""
    start_ref, *others = refs
    prefix = others.pop(0)[...] if rules.prefix else None
    segments = (others.pop(0), others.pop(0)) if rules.segments else (None, None)
    return _Row(start_ref[...], prefix, *segments), others


def _segments(rules: _Rules, ref, places, most: int, at=None) -> Any:
    """Returns the segments at some places, 0 past the end; without segments all that is not past it has 1."""
    known = places < most
    if not rules.segments:
        return known.astype(jnp.int32)
    return triton.load(ref if at is None else ref.at[at], mask=known, other=0)


def _tile(rules: _Rules, ref, segments) -> Float[Array, "N C"]:
    """Returns rows as operands of products; zeros where they are padding, whatever it holds."""
    inside = (segments != 0)[:, None] & (jnp.arange(rules.holds) < rules.width)[None]
    return triton.load(ref, mask=inside, other=0).astype(rules.compute)


def _seen(rules: _Rules, row: _Row, at, place, query_segments, key_segments):
    """Returns which keys are seen, given places and segments of queries and keys that broadcast."""
    seen = (query_segments == key_segments) & (query_segments != 0)
    if rules.causal:
        behind = at + row.start - place
        shown = behind >= 0
        if rules.window is not None:
            shown = shown & (behind < rules.window)
        if rules.prefix:
            shown = shown | (place < row.prefix)
        seen = seen & shown
    return seen


def _scores(rules: _Rules, products, seen):
    """Returns the scores, hidden ones at HIDDEN, and what a soft cap leaves of their gradient."""
    slope: Any = 1.0
    scores = products * rules.scale
    if rules.soft_cap is not None:
        part = jnp.tanh(scores / rules.soft_cap)
        scores, slope = rules.soft_cap * part, 1 - part * part
    return jnp.where(seen, scores, HIDDEN), slope


def _for_scores(weights, for_weights, drift, slope):
    """Returns the gradient of scores; none of a score that takes all, whatever its two equal terms are rounded to."""
    return jnp.where(weights < 1, weights, 0) * (for_weights - drift) * slope


def _key_blocks(rules: _Rules, row: _Row, first):
    """Returns from which to which block of keys the queries from `first` on see anything."""
    low, end = jnp.int32(0), jnp.int32(pl.cdiv(rules.keys, rules.wide))
    if rules.causal:
        last = jnp.maximum(first + rules.high + row.start, 0)
        last = jnp.maximum(last, row.prefix) if rules.prefix else last
        end = jnp.minimum(end, jax.lax.div(last + (rules.wide - 1), rules.wide))
        if rules.window is not None and not rules.prefix:
            low = jax.lax.div(jnp.maximum(first + row.start - rules.window + 1, 0), rules.wide)
    return low, end


def _query_blocks(rules: _Rules, row: _Row, first):
    """Returns from which to which block of queries any sees the keys from `first` on."""
    low, end = jnp.int32(0), jnp.int32(pl.cdiv(rules.queries, rules.high))
    if rules.causal:
        shown = first < row.prefix if rules.prefix else False
        low = jnp.where(shown, 0, jax.lax.div(jnp.maximum(first - row.start, 0), rules.high))
        if rules.window is not None:
            past = jnp.maximum(first + rules.wide + rules.window - 1 - row.start, 0)
            end = jnp.where(shown, end, jnp.minimum(end, jax.lax.div(past + (rules.high - 1), rules.high)))
    return low, end


def _forward_kernel(rules: _Rules, query_ref, key_ref, value_ref, *refs):
    row, (*sinks_ref, out_ref, top_ref, total_ref) = _row(rules, refs)
    first = pl.program_id(0) * rules.high
    at = first + jnp.arange(rules.high)
    query_segments = _segments(rules, row.query_segments, at, rules.queries)
    query = _tile(rules, query_ref, query_segments)

    def block(index, state):
        top, total, out = state
        places = pl.ds(index * rules.wide, rules.wide)
        place = index * rules.wide + jnp.arange(rules.wide)
        key_segments = _segments(rules, row.key_segments, place, rules.keys, places)
        key = _tile(rules, key_ref.at[places], key_segments)
        seen = _seen(rules, row, at[:, None], place[None], query_segments[:, None], key_segments[None])
        scores, _ = _scores(rules, product(query, key, (1, 1)), seen)
        higher = jnp.maximum(top, jnp.max(scores, 1))
        weights, shrink = jnp.exp(scores - higher[:, None]), jnp.exp(top - higher)
        value = _tile(rules, value_ref.at[places], key_segments)
        out = out * shrink[:, None] + product(weights.astype(rules.compute), value)
        return higher, total * shrink + jnp.sum(weights, 1), out

    nothing = jnp.zeros(rules.high, jnp.float32)
    start = (nothing + sinks_ref[0][...], nothing + 1) if sinks_ref else (nothing + HIDDEN / 2, nothing)
    low, end = _key_blocks(rules, row, first)
    state = *start, jnp.zeros((rules.high, rules.holds), jnp.float32)
    top, total, out = jax.lax.fori_loop(low, end, block, state)
    out = out / jnp.where(total > 0, total, 1)[:, None]
    inside = (at < rules.queries)[:, None] & (jnp.arange(rules.holds) < rules.width)[None]
    triton.store(out_ref, out.astype(out_ref.dtype), mask=inside)
    triton.store(top_ref, top, mask=at < rules.queries)
    # Where nothing is seen every weight is 0, and is not to be divided by it.
    triton.store(total_ref, jnp.where(total > 0, total, 1), mask=at < rules.queries)


def _for_queries_kernel(rules: _Rules, query_ref, key_ref, value_ref, gradient_ref, *refs):
    column_refs, (row, (out_ref,)) = refs[:3], _row(rules, refs[3:])
    first = pl.program_id(0) * rules.high
    at = first + jnp.arange(rules.high)
    query_segments = _segments(rules, row.query_segments, at, rules.queries)
    query, given = (_tile(rules, ref, query_segments) for ref in (query_ref, gradient_ref))
    top, total, drift = (triton.load(ref, mask=at < rules.queries, other=1)[:, None] for ref in column_refs)

    def block(index, out):
        places = pl.ds(index * rules.wide, rules.wide)
        place = index * rules.wide + jnp.arange(rules.wide)
        key_segments = _segments(rules, row.key_segments, place, rules.keys, places)
        key, value = (_tile(rules, ref.at[places], key_segments) for ref in (key_ref, value_ref))
        seen = _seen(rules, row, at[:, None], place[None], query_segments[:, None], key_segments[None])
        scores, slope = _scores(rules, product(query, key, (1, 1)), seen)
        weights = jnp.exp(scores - top) / total
        for_scores = _for_scores(weights, product(given, value, (1, 1)), drift, slope)
        return out + product(for_scores.astype(rules.compute), key)

    start = jnp.zeros((rules.high, rules.holds), jnp.float32)
    low, end = _key_blocks(rules, row, first)
    out = rules.scale * jax.lax.fori_loop(low, end, block, start)
    inside = (at < rules.queries)[:, None] & (jnp.arange(rules.holds) < rules.width)[None]
    triton.store(out_ref, out.astype(out_ref.dtype), mask=inside)


def _for_keys_kernel(rules: _Rules, repeats: int, query_ref, key_ref, value_ref, gradient_ref, *refs):
    column_refs, (row, out_refs) = refs[:3], _row(rules, refs[3:])
    first = pl.program_id(0) * rules.wide
    place = first + jnp.arange(rules.wide)
    key_segments = _segments(rules, row.key_segments, place, rules.keys)
    key, value = (_tile(rules, ref, key_segments) for ref in (key_ref, value_ref))

    low, end = _query_blocks(rules, row, first)

    def head(number, sums):
        def block(index, sums):
            for_key, for_value = sums
            rows = pl.ds(index * rules.high, rules.high)
            at = index * rules.high + jnp.arange(rules.high)
            query_segments = _segments(rules, row.query_segments, at, rules.queries, rows)
            query, given = (_tile(rules, ref.at[rows, number], query_segments) for ref in (query_ref, gradient_ref))
            top, total, drift = (
                triton.load(ref.at[number, rows], mask=at < rules.queries, other=1)[None] for ref in column_refs
            )
            seen = _seen(rules, row, at[None], place[:, None], query_segments[None], key_segments[:, None])
            scores, slope = _scores(rules, product(key, query, (1, 1)), seen)
            weights = jnp.exp(scores - top) / total
            for_value = for_value + product(weights.astype(rules.compute), given)
            for_scores = _for_scores(weights, product(value, given, (1, 1)), drift, slope)
            return for_key + product(for_scores.astype(rules.compute), query), for_value

        return jax.lax.fori_loop(low, end, block, sums)

    nothing = jnp.zeros((rules.wide, rules.holds), jnp.float32)
    for_key, for_value = jax.lax.fori_loop(0, repeats, head, (nothing, nothing))
    inside = (place < rules.keys)[:, None] & (jnp.arange(rules.holds) < rules.width)[None]
    for ref, out in zip(out_refs, (rules.scale * for_key, for_value), strict=True):
        triton.store(ref, out.astype(ref.dtype), mask=inside)
