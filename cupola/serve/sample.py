"""Drawing the next token of many rows at once, each by its own settings and its own random numbers.

Not here: what the settings mean to a client (`request.Sampling`), grammars (`grammar.py`), the packing of
settings into arrays (`rows.py`).
Order: logit_bias, penalties, mask of the grammar; then temperature, top_k, top_p, min_p. A cut keeps every
token that is as likely as the last one it must keep, so that ties never depend on an order.
Invariant: what a row draws is a function of its logits, its settings, its seed and its position alone,
bit for bit: neither the batch, the row's place, a cache hit nor speculation changes it.
No vocabulary is ever sorted. A token is drawn from the tokens above a bound, first the block and then the
token in it; if more than top_p of the probability lies above that token, it becomes the bound. This is
rejection sampling from the nucleus, exact, and takes about 1 + ln(1 / top_p) rounds.
Source: top-p, Holtzman et al. 2020, section 3.1; rejection with a moving bound, FlashInfer (Ye et al. 2025),
"sorting-free sampling"; repetition penalty, Keskar et al. 2019, section 4.1.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, Int32, UInt32

from cupola.core.record import record

BLOCK = 256
"""Tokens of a block; a draw finds the block, then the token in it."""
FINE = 64
"""Tokens of a block in the search for the likeliest few."""
FEW = 64
"""Up to this top_k the cut is found among the likeliest tokens, beyond it by bisection."""


Given = Array | np.ndarray
"""Made on the host by numpy; inside a compiled step it is jax's."""


@record
class Penalties:
    """What earlier tokens do to the logits; each row lists a token once.

    Args:
        ids: tokens that stand in prompt or output; -1 pads.
        counts: how often each was generated.
        repetition: divides positive and multiplies negative logits of all of `ids`.
        presence: subtracted where the count is not 0.
        frequency: subtracted once for each count.
    """

    ids: Int32[Given, "R N"]
    counts: Int32[Given, "R N"]
    repetition: Float32[Given, " R"]
    presence: Float32[Given, " R"]
    frequency: Float32[Given, " R"]


@record
class Bias:
    """Numbers that are added to logits.

    Args:
        ids: tokens; -1 pads.
        values: what is added to each.
    """

    ids: Int32[Given, "R N"]
    values: Float32[Given, "R N"]


@record
class Rows:
    """How each row is drawn. A part that no row uses is None, and is then not compiled.

    Args:
        temperature: 0 takes the likeliest token, the lowest id of equals.
        top_k: 0 takes all.
        top_p: 1 takes all.
        min_p: 0 takes all.
        seed: high and low word of the request's seed.
        position: of the drawn token in its sequence, prompt included.
        penalties: of earlier tokens.
        bias: asked for by the client.
        mask: one bit for each token that may be drawn, the lowest bit first, at least one in each row.
    """

    temperature: Float32[Given, " R"]
    top_k: Int32[Given, " R"]
    top_p: Float32[Given, " R"]
    min_p: Float32[Given, " R"]
    seed: UInt32[Given, "R 2"]
    position: Int32[Given, " R"]
    penalties: Penalties | None = None
    bias: Bias | None = None
    mask: UInt32[Given, "R W"] | None = None


@record
class Drawn:
    """What was drawn, with log-probabilities under the model: of the logits as they came, in nats.

    Args:
        tokens: one a row.
        log_probs: of these tokens.
        top: the likeliest tokens, the likeliest first; None where none were asked for.
        top_log_probs: of `top`.
    """

    tokens: Int32[Array, " R"]
    log_probs: Float32[Array, " R"]
    top: Int32[Array, "R N"] | None = None
    top_log_probs: Float32[Array, "R N"] | None = None


def sample(logits: Float[Array, "R V"], rows: Rows, *, vocabulary: int | None = None, top: int = 0) -> Drawn:
    """Draws a token for each row.

    Args:
        logits: of the model, as it gives them.
        rows: how to draw.
        vocabulary: tokens of the tokenizer; logits beyond are padding of the model's table, never drawn and
            without a probability. None: there are none. Static.
        top: also return so many of the likeliest tokens of each row; static.

    Cost: two passes over the logits where every temperature is 0; else about four, and one for each
        round of top_p (some three at 0.95); a top_k above 64 adds thirty.
    Numerics: all in float32; the mass of a nucleus is right to the rounding of a sum of its terms.
    """
    raw = _blocks(logits[:, :vocabulary].astype(jnp.float32))
    adjusted = _adjusted(raw, rows)
    likeliest, peak = _argmax(adjusted)
    tokens = jax.lax.cond(
        jnp.any(rows.temperature > 0), lambda: _random(adjusted, likeliest, peak, rows), lambda: likeliest
    )
    # A row that is not a number, or in which nothing is allowed, still gives a token that exists.
    tokens = jnp.minimum(tokens, (vocabulary or logits.shape[1]) - 1)
    raw_peak = peak if adjusted is raw else jnp.max(raw, axis=(1, 2))
    norm = raw_peak + jnp.log(jnp.sum(jnp.exp(raw - raw_peak[:, None, None]), axis=(1, 2)))
    flat = raw.reshape(raw.shape[0], -1)
    log_probs = jnp.take_along_axis(flat, tokens[:, None], axis=1)[:, 0] - norm
    if not top:
        return Drawn(tokens, log_probs)
    values, ids = _likeliest(flat, min(top, vocabulary or logits.shape[1]))
    return Drawn(tokens, log_probs, ids, values - norm[:, None])


def _blocks(logits: Float32[Array, "R V"]) -> Float32[Array, "R N Z"]:
    """Splits each row into blocks; what fills the last one can never be drawn."""
    short = -logits.shape[1] % BLOCK
    if short:
        logits = jnp.pad(logits, ((0, 0), (0, short)), constant_values=-jnp.inf)
    return logits.reshape(logits.shape[0], -1, BLOCK)


def _adjusted(raw: Float32[Array, "R N Z"], rows: Rows) -> Float32[Array, "R N Z"]:
    if rows.penalties is None and rows.bias is None and rows.mask is None:
        return raw
    logits = raw.reshape(raw.shape[0], -1)
    row, beyond = jnp.arange(logits.shape[0])[:, None], logits.shape[1]
    if rows.bias is not None:
        ids = jnp.where(rows.bias.ids < 0, beyond, rows.bias.ids)
        logits = logits.at[row, ids].add(rows.bias.values, mode="drop")
    if rows.penalties is not None:
        penalties = rows.penalties
        ids = jnp.where(penalties.ids < 0, beyond, penalties.ids)
        before = jnp.take_along_axis(logits, ids, axis=1, mode="clip")
        factor = penalties.repetition[:, None]
        after = jnp.where(before > 0, before / factor, before * factor)
        after -= penalties.presence[:, None] * (penalties.counts > 0) + penalties.frequency[:, None] * penalties.counts
        logits = logits.at[row, ids].set(after, mode="drop")
    if rows.mask is not None:
        bits = (rows.mask[:, :, None] >> jnp.arange(32, dtype=jnp.uint32)[None, None]) & 1
        allowed = bits.reshape(logits.shape[0], -1) != 0
        short = beyond - allowed.shape[1]
        allowed = jnp.pad(allowed, ((0, 0), (0, short))) if short > 0 else allowed[:, :beyond]
        logits = jnp.where(allowed, logits, -jnp.inf)
    return logits.reshape(raw.shape)


def _argmax(logits: Float32[Array, "R N Z"]) -> tuple[Int32[Array, " R"], Float32[Array, " R"]]:
    """Returns the likeliest token of each row, the lowest id of equals, and its logit."""
    peaks = jnp.max(logits, axis=2)
    block = jnp.argmax(peaks, axis=1).astype(jnp.int32)
    inside = jnp.argmax(_block_at(logits, block), axis=1).astype(jnp.int32)
    return block * BLOCK + inside, jnp.max(peaks, axis=1)


def _random(
    logits: Float32[Array, "R N Z"], likeliest: Int32[Array, " R"], peak: Float32[Array, " R"], rows: Rows
) -> Int32[Array, " R"]:
    hot = rows.temperature > 0
    # With an infinite temperature's inverse a logit of -inf would become NaN; those of 0 are not drawn here.
    heat = jnp.where(hot, rows.temperature, 1)
    cut = jnp.where(hot, rows.top_k, 0)
    bound = jax.lax.cond(
        jnp.any(cut > 0), lambda: _kth(logits.reshape(logits.shape[0], -1), cut), lambda: jnp.full_like(peak, -jnp.inf)
    )
    # The likeliest token weighs 1, so that min_p is a bound on the weight.
    weights = jnp.exp((logits - peak[:, None, None]) / heat[:, None, None])
    weights = jnp.where(logits >= bound[:, None, None], weights, 0)
    sums = jnp.sum(weights, axis=2)
    limit = jnp.where(rows.top_p < 1, rows.top_p * jnp.sum(sums, axis=1), jnp.inf)
    weights = jnp.where(weights >= rows.min_p[:, None, None], weights, 0)
    keys = jax.vmap(jax.random.fold_in)(_keys(rows.seed), rows.position)
    first = _draw(weights, jnp.sum(weights, axis=2), jnp.zeros_like(peak), _uniform(keys, 0))

    def go_on(state):
        return jnp.any(state[1])

    def check_and_redraw(state):
        tokens, open_, round_ = state
        block = _block_at(weights, tokens // BLOCK)
        weight = jnp.take_along_axis(block, tokens[:, None] % BLOCK, axis=1)[:, 0]
        above = jnp.sum(jnp.where(weights > weight[:, None, None], weights, 0), axis=2)
        outside = open_ & (jnp.sum(above, axis=1) >= limit)
        again = _draw(weights, above, weight, _uniform(keys, round_))
        return jnp.where(outside, again, tokens), outside, round_ + 1

    open_ = hot & (rows.top_p < 1)
    tokens, _, _ = jax.lax.while_loop(go_on, check_and_redraw, (first, open_, jnp.int32(1)))
    return jnp.where(hot, tokens, likeliest)


def _keys(seed: UInt32[Given, "R 2"]) -> Array:
    return jax.random.wrap_key_data(jnp.asarray(seed), impl="threefry2x32")


def _uniform(keys: Array, round_: int | Int[Array, ""]) -> Float32[Array, "R 2"]:
    return jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, round_), (2,)))(keys)


def _draw(
    weights: Float32[Array, "R N Z"],
    sums: Float32[Array, "R N"],
    bound: Float32[Array, " R"],
    uniform: Float32[Array, "R 2"],
) -> Int32[Array, " R"]:
    """Draws a token in proportion to its weight among those above the bound; `sums` are theirs by block."""
    block = _pick(sums, uniform[:, 0])
    inside = _block_at(weights, block)
    return block * BLOCK + _pick(jnp.where(inside > bound[:, None], inside, 0), uniform[:, 1])


def _pick(weights: Float32[Array, "R N"], uniform: Float32[Array, " R"]) -> Int32[Array, " R"]:
    """Inverts the distribution function; a weight of 0 is never picked, however sums are rounded."""
    heaped = jnp.cumsum(weights, axis=1)
    index = jnp.arange(weights.shape[1], dtype=jnp.int32)[None]
    passed = (heaped > (uniform * heaped[:, -1])[:, None]) & (weights > 0)
    first = jnp.min(jnp.where(passed, index, weights.shape[1]), axis=1)
    last = jnp.max(jnp.where(weights > 0, index, 0), axis=1)
    return jnp.minimum(first, last)


def _block_at(values: Float32[Array, "R N Z"], block: Int32[Array, " R"]) -> Float32[Array, "R Z"]:
    return jnp.take_along_axis(values, block[:, None, None], axis=1)[:, 0]


def _kth(logits: Float32[Array, "R V"], k: Int32[Array, " R"]) -> Float32[Array, " R"]:
    """Returns the k-th largest logit of each row; -inf where k is 0."""
    few = min(FEW, logits.shape[1])

    def ranked() -> Float32[Array, " R"]:
        values, _ = _likeliest(logits, few)
        return jnp.take_along_axis(values, jnp.maximum(k - 1, 0)[:, None], axis=1)[:, 0]

    found = jax.lax.cond(jnp.any(k > few), lambda: _bisected(logits, k), ranked)
    return jnp.where(k == 0, -jnp.inf, found)


def _likeliest(logits: Float32[Array, "R V"], count: int) -> tuple[Float32[Array, "R N"], Int32[Array, "R N"]]:
    """Returns the largest logits, the largest first, and their ids: they stand in the blocks of largest peaks."""
    total = logits.shape[1]
    if total // FINE <= count:
        values, ids = jax.lax.top_k(logits, count)
        return values, ids.astype(jnp.int32)
    fine = logits.reshape(logits.shape[0], -1, FINE)
    _, blocks = jax.lax.top_k(jnp.max(fine, axis=2), count)
    blocks = jnp.sort(blocks, axis=1)  # by id, so that of equals the lowest comes first
    held = jnp.take_along_axis(fine, blocks[:, :, None], axis=1).reshape(logits.shape[0], -1)
    values, places = jax.lax.top_k(held, count)
    block = jnp.take_along_axis(blocks, places // FINE, axis=1)
    return values, (block * FINE + places % FINE).astype(jnp.int32)


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
