"""Attention over pages: shapes, the equation in float64, and what is wrong with a way to compute it.

Not here: operations that have a gradient (`cases.py`); the tolerance is theirs (`judge.py`).
"""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from judge import DRAWS, SLACK

from cupola.core.dtype import BFLOAT16, FLOAT32
from cupola.kernels.attention import Mask
from cupola.kernels.paged.api import PAGED_ATTEND
from cupola.kernels.paged.stored import load, store, stored_dtype

WINDOW = Mask(causal=True, window=37)
SHAPES = {
    "typical": (2, 7, (9, 3), 64, 16, 45),
    "one number": (1, 1, (1, 1), 1, 1, 0),
    "odd sizes": (3, 5, (5, 5), 7, 3, 130),
    "one key head, wide, pages longer than a block": (2, 3, (4, 1), 130, 160, 301),
    "odd width, whole pages": (1, 37, (6, 2), 35, 16, 91),
    "many queries": (1, 150, (3, 1), 8, 4, 70),
    "no sequence": (0, 4, (2, 1), 8, 4, 0),
    "no query": (2, 0, (2, 1), 8, 4, 0),
}
"""By name: sequences, queries of each, (query heads, key heads), width, size of a page, where the first one starts."""


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng([seed, *shape]).normal(size=shape), jnp.float32)


def equation(query, keys, values, table, start, mask):
    """Sequence by sequence, in float64."""
    query, keys, values = (np.asarray(load(x), np.float64) for x in (query, keys, values))
    out, repeats = np.zeros(query.shape), query.shape[2] // keys.shape[1]
    for b, pages in enumerate(np.asarray(table)):
        key, value = np.moveaxis(keys[pages], 3, 1), np.moveaxis(values[pages], 2, 1)
        key, value = (x.reshape(-1, *x.shape[2:]).repeat(repeats, 1) for x in (key, value))
        at, place = int(start[b]) + np.arange(query.shape[1])[:, None, None], np.arange(len(key))[None, None]
        seen = (place <= at) & (mask.window is None or place > at - mask.window)
        scores = np.einsum("thc,shc->ths", query[b], key) / np.sqrt(query.shape[3])
        weights = np.where(seen, np.exp(scores - scores.max(-1, where=seen, initial=-np.inf, keepdims=True)), 0)
        out[b] = np.einsum("ths,shc->thc", weights / weights.sum(-1, keepdims=True), value)
    return out


plainly = jax.jit(partial(PAGED_ATTEND, "reference"), static_argnames=("mask", "scale"))


def standard(query, keys, values, table, start, mask):
    """Returns what comes out in float64 and how far from that one may be, as `judge.py` has it: twice what the plain
    formula errs by on some nearby inputs, and the last place of the largest number.
    """
    truths, errors = [], []
    for draw in range(DRAWS):
        factors = 1 + np.random.default_rng(draw).uniform(-0.1, 0.1, 3) * bool(draw)
        one = jnp.asarray(query * factors[0], query.dtype)
        pool = [store(load(x) * by, x.dtype) for x, by in zip((keys, values), factors[1:], strict=True)]
        given = one.astype(jnp.float32), *pool, table, start
        truths.append(equation(*given, mask))
        plain = plainly(*given, mask=mask, scale=query.shape[3] ** -0.5)
        errors.append(np.abs(np.asarray(plain, np.float64) - truths[-1]).max(initial=0))
    most = np.abs(truths[0]).max(initial=0)
    return truths[0], 2 * max(errors) + SLACK * float(jnp.finfo(query.dtype).eps) * most


@cache
def case(shape, asked, precision):
    """Returns the arrays of a case, in which all that stands past a sequence's end is NaN, and their standard."""
    rows, queries, (heads, groups), width, size, start = SHAPES[shape]
    length = -(-(start + queries) // size) or 1
    starts = np.asarray([max(start - 11 * row, 0) for row in range(rows)], np.int32)
    table = np.random.default_rng(1).permutation(rows * length).reshape(rows, length).astype(np.int32)
    query, dtype = normal(rows, queries, heads, width).astype(asked), stored_dtype(precision)
    numbers = normal(rows * length, groups, width, size), normal(rows * length, groups, size, width, seed=1)
    pool = [store(x, dtype) for x in numbers]
    judged = standard(query, *pool, jnp.asarray(table), jnp.asarray(starts), WINDOW)
    pool, nothing = [np.array(x) for x in pool], np.array(store(jnp.float32(np.nan), dtype))
    for row, place in np.ndindex(rows, length * size):
        if place >= starts[row] + queries:
            page = table[row, place // size]
            pool[0][page, :, :, place % size] = pool[1][page, :, place % size] = nothing
    return (query, *map(jnp.asarray, (*pool, table, starts))), judged


def complaints(shape, asked, function):
    """Returns what is wrong with a function of an operation's arguments, whatever the pool keeps."""
    found = []
    for precision in (FLOAT32, BFLOAT16):
        given, (true, allowed) = case(shape, asked, precision)
        got = function(*given, WINDOW, given[0].shape[3] ** -0.5)
        far = np.abs(np.asarray(got, np.float64) - true).max(initial=0)
        if got.dtype != asked or not far <= allowed:
            found.append(f"{shape}, {got.dtype} for {asked}: off by {far:.3g}, where {allowed:.3g} is allowed")
    return found
