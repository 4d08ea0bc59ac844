"""Which tokens may come next: Whisper's rules for times, and tokens that no text holds.

Not here: what tokens mean (`whisper_tokens.py`). Invariant: at least one token is always allowed.
Source: OpenAI's `whisper/decoding.py`, ApplyTimestampRules.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from cupola.models.speech.whisper_tokens import Codes, Times


def allowed_log_probs(
    logits: Float[Array, "N V"],
    texts: Int[Array, "N L"],
    length: Int[Array, ""],
    suppressed: Bool[Array, " V"],
    suppressed_first: Bool[Array, " V"],
    *,
    codes: Codes,
    times: Times,
    latest_first: int,
) -> Float[Array, "N V"]:
    """Returns the log-probability of each next token among those that are allowed; -inf of the others.

    Args:
        logits: of the next token of each text.
        texts: what was written so far, `length` tokens of each row, without what stood before it.
        length: how many those are.
        suppressed: tokens that are never allowed.
        suppressed_first: tokens that are not allowed first.
        codes: of the special tokens.
        times: whether texts have times.
        latest_first: the latest time at which a text may begin, in steps.
    """
    hidden = suppressed[None] | (suppressed_first[None] & (length == 0))
    logits = jnp.where(hidden, -jnp.inf, logits.astype(jnp.float32))
    if times is Times.NONE:
        is_time = jnp.arange(logits.shape[1])[None] >= codes.times
        return jax.nn.log_softmax(jnp.where(is_time, -jnp.inf, logits))
    logits = jnp.where(_out_of_turn(texts, length, logits.shape[1], codes, latest_first), -jnp.inf, logits)
    log_probs = jax.nn.log_softmax(logits)
    # Where all times together are likelier than any one word, a time comes next.
    in_time = jax.nn.logsumexp(log_probs[:, codes.times :], axis=1)
    likeliest = jnp.max(log_probs[:, : codes.times], axis=1)
    is_word = jnp.arange(logits.shape[1])[None] < codes.times
    logits = jnp.where((in_time > likeliest)[:, None] & is_word, -jnp.inf, logits)
    return jax.nn.log_softmax(logits)


def _out_of_turn(
    texts: Int[Array, "N L"], length: Int[Array, ""], vocabulary: int, codes: Codes, latest_first: int
) -> Bool[Array, "N V"]:
    """Returns which tokens may not come next, because of the times before them."""
    ids = jnp.arange(vocabulary)[None]
    is_time, is_word = ids >= codes.times, ids < codes.end
    last, before = (_at(texts, length - k) >= codes.times for k in (1, 2))
    # A text begins with a time, so that one time at its very beginning counts as the second of a pair.
    after_pair = last & (before | (length < 2))
    after_one = last & ~after_pair
    # Times come in pairs, the end of a part and the beginning of the next; only the end may follow one alone.
    hidden = (after_pair[:, None] & is_time) | (after_one[:, None] & is_word)
    # They never go back, and no part is empty.
    written = jnp.arange(texts.shape[1])[None] < length
    newest = jnp.max(jnp.where(written & (texts >= codes.times), texts, -1), axis=1)
    earliest = jnp.where(after_one, newest, newest + 1)
    hidden |= is_time & (ids < earliest[:, None])
    first = ~is_time | (ids > codes.times + latest_first)
    return jnp.where(length == 0, first, hidden)


def _at(texts: Int[Array, "N L"], index: Int[Array, ""]) -> Int[Array, " N"]:
    """Returns the token of each text at an index, -1 before its beginning."""
    found = jax.lax.dynamic_index_in_dim(texts, jnp.maximum(index, 0), axis=1, keepdims=False)
    return jnp.where(index < 0, -1, found)
