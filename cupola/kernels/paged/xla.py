"""Paged attention for the compiler: one loop over blocks of keys, as many as the longest row has.

The blocks are the same however many queries come, and each sum runs over the same numbers in the
same order: on a CPU the compiler's element-wise form for few queries and its matrix product over
one batch dimension for many give equal bits (with two batch dimensions they do not).
Source: Milakov and Gimelshein 2018 (the running maximum); our `top`, `total` are its m, d.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from cupola.kernels.attention.mask import Mask
from cupola.kernels.paged.reference import refuses as refuses
from cupola.kernels.paged.stored import Keys, Values, load

BLOCK_TOKENS = 128
"""Keys in a block, at least; longer ones compute more for short rows, shorter ones loop more."""
FEW_QUERIES = 8
"""Up to this many queries a row the element-wise form is the faster one."""
HIDDEN = -1e30
"""Score of a hidden key; finite, so that blocks of nothing else change nothing."""


def paged_attend(
    query: Float[Array, "B T H C"],
    keys: Keys,
    values: Values,
    table: Int[Array, "B N"],
    start: Int[Array, " B"],
    mask: Mask,
    scale: float,
) -> Float[Array, "B T H C"]:
    """Returns the mixtures block by block, rescaled whenever a larger score is found."""
    (rows, queries, heads, width), (_, groups, _, size) = query.shape, keys.shape
    folded = heads // groups * queries
    asked = (query.astype(jnp.float32) * scale).reshape(rows, queries, groups, heads // groups, width)
    asked = asked.transpose(0, 2, 3, 1, 4).reshape(rows, groups, folded, width)
    at = start[:, None] + jnp.arange(queries)[None]
    pages = -(-BLOCK_TOKENS // size)
    table = jnp.pad(table, ((0, 0), (0, -table.shape[1] % pages)))
    score, mix = (_scores_few, _mixture_few) if queries <= FEW_QUERIES else (_scores_many, _mixture_many)

    def block(index, state):
        top, total, out = state
        held = jax.lax.dynamic_slice_in_dim(table, index * pages, pages, 1)
        key = load(keys[held]).transpose(0, 2, 3, 1, 4).reshape(rows, groups, width, pages * size)
        value = load(values[held]).transpose(0, 2, 1, 3, 4).reshape(rows, groups, pages * size, width)
        behind = at[:, :, None] - (index * pages * size + jnp.arange(pages * size))[None, None]
        seen = behind >= 0 if mask.window is None else (behind >= 0) & (behind < mask.window)
        seen = jnp.tile(seen, (1, heads // groups, 1))[:, None]
        scores = jnp.where(seen, score(asked, key), HIDDEN)
        higher = jnp.maximum(top, jnp.max(scores, -1))
        weights = jnp.exp(scores - higher[..., None])
        shrink = jnp.exp(top - higher)
        return higher, total * shrink + _sum(weights), out * shrink[..., None] + mix(weights, value)

    first = jnp.zeros((), start.dtype)
    if mask.window is not None:
        first = jnp.maximum(jnp.min(start) - mask.window + 1, 0) // (pages * size)
    last = -(-(jnp.max(start) + queries) // (pages * size))
    shape = (rows, groups, folded)
    state = (jnp.full(shape, HIDDEN / 2), jnp.zeros(shape), jnp.zeros((*shape, width)))
    _, total, out = jax.lax.fori_loop(first, last, block, state)
    out = (out / jnp.where(total > 0, total, 1)[..., None]).reshape(rows, groups, heads // groups, queries, width)
    return out.transpose(0, 3, 1, 2, 4).reshape(query.shape).astype(query.dtype)


def _sum(x: Float[Array, "*N S"]) -> Float[Array, "*N"]:
    """Returns sums over the last dimension, by halves: the compiler's own order changes with the shape."""
    while (size := x.shape[-1]) > 1:
        rest = jnp.pad(x[..., -(-size // 2) :], ((0, 0),) * (x.ndim - 1) + ((0, size % 2),))
        x = x[..., : -(-size // 2)] + rest
    return x[..., 0]


def _scores_few(asked: Float[Array, "B K GT C"], key: Float[Array, "B K C S"]) -> Float[Array, "B K GT S"]:
    return jnp.sum(asked[..., None] * key[:, :, None].astype(jnp.float32), 3)


def _mixture_few(weights: Float[Array, "B K GT S"], value: Float[Array, "B K S C"]) -> Float[Array, "B K GT C"]:
    return jnp.sum(weights[..., None] * value[:, :, None].astype(jnp.float32), 3)


def _scores_many(asked: Float[Array, "B K GT C"], key: Float[Array, "B K C S"]) -> Float[Array, "B K GT S"]:
    return _product(asked.astype(key.dtype), key)


def _mixture_many(weights: Float[Array, "B K GT S"], value: Float[Array, "B K S C"]) -> Float[Array, "B K GT C"]:
    return _product(weights.astype(value.dtype), value)


def _product(a: Float[Array, "B K X Y"], b: Float[Array, "B K Y W"]) -> Float[Array, "B K X W"]:
    left, right = a.reshape(-1, *a.shape[2:]), b.reshape(-1, *b.shape[2:])
    exact = jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    dims = (((2,), (1,)), ((0,), (0,)))
    out = jax.lax.dot_general(left, right, dims, precision=exact, preferred_element_type=jnp.float32)
    return out.reshape(*a.shape[:3], b.shape[3])
