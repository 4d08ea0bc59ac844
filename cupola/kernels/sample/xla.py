"""Sampling for the compiler: no vocabulary is ever sorted.

A token is drawn from the tokens above a bound, first the block and then the token in it; if more than top_p of the
probability lies above that token, it becomes the bound.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int32, UInt32

from cupola.kernels.sample.numbers import BLOCK, keys_of, pick, uniform

FINE = 64
"""Tokens of a block in the search for the likeliest few."""
FEW = 64
"""Up to this top_k the cut is found among the likeliest tokens, beyond it by bisection."""


def draw(
    logits: Float[Array, "R V"],
    temperature: Float32[Array, " R"],
    top_k: Int32[Array, " R"],
    top_p: Float32[Array, " R"],
    min_p: Float32[Array, " R"],
    seed: UInt32[Array, "R 2"],
    position: Int32[Array, " R"],
    vocabulary: int,
) -> Int32[Array, " R"]:
    """Returns a token of each row."""
    blocks = _blocks(logits, vocabulary)
    likeliest, peak = _argmax(blocks)
    tokens = jax.lax.cond(
        jnp.any(temperature > 0),
        lambda: _random(blocks, likeliest, peak, temperature, top_k, top_p, min_p, keys_of(seed, position)),
        lambda: likeliest,
    )
    # A row that is not a number, or in which nothing is allowed, still gives a token that exists.
    return jnp.minimum(tokens, vocabulary - 1)


def log_sum(logits: Float[Array, "R V"], vocabulary: int) -> Float32[Array, " R"]:
    """Returns the logarithm of the sum of the exponentials of each row."""
    blocks = _blocks(logits, vocabulary)
    peak = jnp.max(jnp.max(blocks, axis=2), axis=1)
    return peak + jnp.log(jnp.sum(jnp.exp(blocks - peak[:, None, None]), axis=(1, 2)))


def likeliest(logits: Float32[Array, "R V"], count: int) -> tuple[Float32[Array, "R N"], Int32[Array, "R N"]]:
    """Returns the largest logits, the largest first, and their ids: they stand in the blocks of largest peaks."""
    total = logits.shape[1]
    if total // FINE <= count:
        values, ids = jax.lax.top_k(logits, count)
        return values, ids.astype(jnp.int32)
    fine = _cut(logits, FINE)
    _, blocks = jax.lax.top_k(jnp.max(fine, axis=2), count)
    blocks = jnp.sort(blocks, axis=1)  # by id, so that of equals the lowest comes first
    held = jnp.take_along_axis(fine, blocks[:, :, None], axis=1).reshape(logits.shape[0], -1)
    values, places = jax.lax.top_k(held, count)
    block = jnp.take_along_axis(blocks, places // FINE, axis=1)
    return values, (block * FINE + places % FINE).astype(jnp.int32)


def _blocks(logits: Float[Array, "R V"], vocabulary: int) -> Float32[Array, "R N Z"]:
    """Splits each row into blocks; what fills the last one can never be drawn."""
    return _cut(logits[:, :vocabulary].astype(jnp.float32), BLOCK)


def _cut(logits: Float32[Array, "R V"], size: int) -> Float32[Array, "R N Z"]:
    padded = jnp.pad(logits, ((0, 0), (0, -logits.shape[1] % size)), constant_values=-jnp.inf)
    return padded.reshape(logits.shape[0], -1, size)


def _argmax(logits: Float32[Array, "R N Z"]) -> tuple[Int32[Array, " R"], Float32[Array, " R"]]:
    """Returns the likeliest token of each row, the lowest id of equals, and its logit."""
    peaks = jnp.max(logits, axis=2)
    block = jnp.argmax(peaks, axis=1).astype(jnp.int32)
    inside = jnp.argmax(_block_at(logits, block), axis=1).astype(jnp.int32)
    return block * BLOCK + inside, jnp.max(peaks, axis=1)


def _random(
    logits: Float32[Array, "R N Z"],
    likeliest: Int32[Array, " R"],
    peak: Float32[Array, " R"],
    temperature: Float32[Array, " R"],
    top_k: Int32[Array, " R"],
    top_p: Float32[Array, " R"],
    min_p: Float32[Array, " R"],
    keys: Array,
) -> Int32[Array, " R"]:
    hot = temperature > 0
    # With an infinite temperature's inverse a logit of -inf would become NaN; those of 0 are not drawn here.
    heat = jnp.where(hot, temperature, 1)
    cut = jnp.where(hot, top_k, 0)
    bound = jax.lax.cond(
        jnp.any(cut > 0), lambda: _kth(logits.reshape(logits.shape[0], -1), cut), lambda: jnp.full_like(peak, -jnp.inf)
    )
    # The likeliest token weighs 1, so that min_p is a bound on the weight.
    weights = jnp.exp((logits - peak[:, None, None]) / heat[:, None, None])
    weights = jnp.where(logits >= bound[:, None, None], weights, 0)
    sums = jnp.sum(weights, axis=2)
    limit = jnp.where(top_p < 1, top_p * jnp.sum(sums, axis=1), jnp.inf)
    weights = jnp.where(weights >= min_p[:, None, None], weights, 0)
    first = _draw(weights, jnp.sum(weights, axis=2), jnp.zeros_like(peak), uniform(keys, 0))

    def go_on(state):
        return jnp.any(state[1])

    def check_and_redraw(state):
        tokens, open_, round_ = state
        block = _block_at(weights, tokens // BLOCK)
        weight = jnp.take_along_axis(block, tokens[:, None] % BLOCK, axis=1)[:, 0]
        above = jnp.sum(jnp.where(weights > weight[:, None, None], weights, 0), axis=2)
        mass = jnp.sum(above, axis=1)
        outside = open_ & (mass >= limit) & (mass > 0)
        again = _draw(weights, above, weight, uniform(keys, round_))
        return jnp.where(outside, again, tokens), outside, round_ + 1

    open_ = hot & (top_p < 1)
    tokens, _, _ = jax.lax.while_loop(go_on, check_and_redraw, (first, open_, jnp.int32(1)))
    return jnp.where(hot, tokens, likeliest)


def _draw(
    weights: Float32[Array, "R N Z"],
    sums: Float32[Array, "R N"],
    bound: Float32[Array, " R"],
    uniform: Float32[Array, "R 2"],
) -> Int32[Array, " R"]:
    """Draws a token in proportion to its weight among those above the bound; `sums` are theirs by block."""
    block = pick(sums, uniform[:, 0])
    inside = _block_at(weights, block)
    return block * BLOCK + pick(jnp.where(inside > bound[:, None], inside, 0), uniform[:, 1])


def _block_at(values: Float32[Array, "R N Z"], block: Int32[Array, " R"]) -> Float32[Array, "R Z"]:
    return jnp.take_along_axis(values, block[:, None, None], axis=1)[:, 0]


def _kth(logits: Float32[Array, "R V"], k: Int32[Array, " R"]) -> Float32[Array, " R"]:
    """Returns the k-th largest logit of each row; -inf where k is 0."""
    few = min(FEW, logits.shape[1])

    def ranked() -> Float32[Array, " R"]:
        values, _ = likeliest(logits, few)
        return jnp.take_along_axis(values, jnp.maximum(k - 1, 0)[:, None], axis=1)[:, 0]

    found = jax.lax.cond(jnp.any(k > few), lambda: _bisected(logits, k), ranked)
    return jnp.where(k == 0, -jnp.inf, found)


def _bisected(logits: Float32[Array, "R V"], k: Int32[Array, " R"]) -> Float32[Array, " R"]:
    """Returns the k-th largest logit, bit by bit: the largest number that at least k logits reach."""

    def with_bit(i, found: Int32[Array, " R"]) -> Int32[Array, " R"]:
        # Adding a half of what is left, from the least to the largest integer, without overflow.
        tried = jnp.where(i == 0, jnp.zeros_like(found), found + (jnp.int32(1) << (31 - jnp.maximum(i, 1))))
        reach: Bool[Array, "R V"] = logits >= _as_float(tried)[:, None]
        return jnp.where(jnp.sum(reach, axis=1) >= k, tried, found)

    least = jnp.full(k.shape, jnp.iinfo(jnp.int32).min, jnp.int32)
    found = _as_float(jax.lax.fori_loop(0, 32, with_bit, least))
    return jnp.where(jnp.isnan(found), -jnp.inf, found)  # fewer than k logits are numbers: take them all


def _as_float(order: Int32[Array, " R"]) -> Float32[Array, " R"]:
    """Returns the float of a place in the order of all floats; NaNs stand at both ends."""
    bits = jnp.where(order < 0, order ^ jnp.int32(0x7FFFFFFF), order)
    return jax.lax.bitcast_convert_type(bits, jnp.float32)
