"""The rules against a plain form of them, one text at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cupola.models.speech.whisper_rules import allowed_log_probs
from cupola.models.speech.whisper_tokens import Codes, Times

# Words 0 to 4, the end 5, other special ones 6 and 7, times 8 to 13.
VOCABULARY, CODES = 14, Codes(end=5, times=8, no_speech=7)
SUPPRESSED = np.isin(np.arange(VOCABULARY), [6, 7, 2])
FIRST = np.isin(np.arange(VOCABULARY), [0, 5])
HIDDEN = jnp.asarray(SUPPRESSED), jnp.asarray(FIRST)
LATEST = 2


def plain(logits, text, times):
    """As the original states the rules."""
    logits = np.where(SUPPRESSED, -np.inf, np.asarray(logits, np.float64))
    if not text:
        logits[FIRST] = -np.inf
    if times is Times.NONE:
        logits[CODES.times :] = -np.inf
    else:
        last = len(text) >= 1 and text[-1] >= CODES.times
        before = len(text) < 2 or text[-2] >= CODES.times
        if last:
            logits[slice(CODES.times, None) if before else slice(0, CODES.end)] = -np.inf
        said = [token for token in text if token >= CODES.times]
        if said:
            logits[CODES.times : said[-1] if last and not before else said[-1] + 1] = -np.inf
        if not text:
            logits[: CODES.times] = -np.inf
            logits[CODES.times + LATEST + 1 :] = -np.inf
        shares = np.exp(logits - logits.max())
        if shares[CODES.times :].sum() > shares[: CODES.times].max():
            logits[: CODES.times] = -np.inf
    return logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()


TEXTS = [
    [],
    [8],
    [9, 1],
    [8, 1, 10],
    [8, 1, 10, 10],
    [8, 1, 10, 11],
    [8, 3, 13],
    [8, 1, 10, 10, 4, 4],
    [1],
    [1, 1, 3],
]


@pytest.mark.parametrize("times", Times)
@pytest.mark.parametrize("seed", range(3))
def test_are_the_plain_ones(times, seed):
    @jax.jit
    def run(logits, texts, length):
        told = {"codes": CODES, "times": times, "latest_first": LATEST}
        return allowed_log_probs(logits, texts, length, *HIDDEN, **told)

    for text in TEXTS:
        logits = 2 * jax.random.normal(jax.random.key(seed), (1, VOCABULARY))
        # What stands behind the text's end is not looked at.
        held = jnp.asarray([[*text, *[12] * (8 - len(text))]])
        ours = np.asarray(run(logits, held, jnp.asarray(len(text))))[0]
        expected = plain(np.asarray(logits)[0], text, times)
        assert (np.isfinite(ours) == np.isfinite(expected)).all(), text
        allowed = np.isfinite(ours)
        assert allowed.any()
        np.testing.assert_allclose(ours[allowed], expected[allowed], atol=16 * np.finfo(np.float32).eps * VOCABULARY)


def test_times_come_where_they_are_likelier_than_any_word():
    logits = jnp.zeros((1, VOCABULARY)).at[0, 3].set(1.0)  # six times of 1 each against a word of e
    told = {"codes": CODES, "times": Times.SEGMENTS, "latest_first": LATEST}
    texts, length = jnp.asarray([[8, 1, 0, 0]]), jnp.asarray(2)
    ours = allowed_log_probs(logits, texts, length, *HIDDEN, **told)
    assert not np.isfinite(ours[0, : CODES.times]).any()
    # The control: one clear word is said.
    ours = allowed_log_probs(logits.at[0, 3].set(3.0), texts, length, *HIDDEN, **told)
    assert np.isfinite(ours[0, 3])
