"""Drawing the next token of many rows at once, each by its own settings and its own random numbers.

Not here: what the settings mean to a client (`request.Sampling`), grammars (`grammar.py`), the packing of
settings into arrays (`rows.py`), the draw itself (`kernels/sample`).
Order: logit_bias, penalties, mask of the grammar; then temperature, top_k, top_p, min_p. A cut keeps every
token that is as likely as the last one it must keep, so that ties never depend on an order.
Invariant: what a row draws is a function of its logits, its settings, its seed and its position alone,
bit for bit: neither the batch, the row's place, a cache hit nor speculation changes it.
Source: repetition penalty, Keskar et al. 2019, section 4.1.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int32, UInt32

from cupola.core.record import record
from cupola.kernels.sample import draw, likeliest, log_sum

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

    Cost: that of `kernels/sample`; penalties, a bias or a mask copy the logits.
    Numerics: all in float32; the mass of a nucleus is right to the rounding of a sum of its terms.
    """
    size = vocabulary or logits.shape[1]
    adjusted = _adjusted(logits, rows, size)
    how = (rows.temperature, rows.top_k, rows.top_p, rows.min_p, rows.seed, rows.position)
    tokens = draw(adjusted, *map(jnp.asarray, how), vocabulary=size)
    norm = log_sum(logits, vocabulary=size)
    log_probs = jnp.take_along_axis(logits, tokens[:, None], axis=1)[:, 0].astype(jnp.float32) - norm
    if not top:
        return Drawn(tokens, log_probs)
    values, ids = likeliest(logits[:, :size].astype(jnp.float32), min(top, size))
    return Drawn(tokens, log_probs, ids, values - norm[:, None])


def _adjusted(logits: Float[Array, "R V"], rows: Rows, vocabulary: int) -> Float[Array, "R V"]:
    if rows.penalties is None and rows.bias is None and rows.mask is None:
        return logits
    logits = logits[:, :vocabulary].astype(jnp.float32)
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
    return logits
