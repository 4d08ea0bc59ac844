"""Draws: every implementation gives the token of the definition, given the same random numbers."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from judge import SLACK

from cupola.core.errors import Unsupported
from cupola.kernels.sample import draw, log_sum, reference
from cupola.kernels.sample.api import DRAW

ROWS = 64
VOCABULARIES = (1, 3, 255, 257, 1500)
"""A sort takes the compiler seconds for each shape: the tests below keep to these where any shape would do."""


def arguments(vocabulary, rows=ROWS, *, temperature=0.8, top_k=0, top_p=1.0, min_p=0.0, beyond=0):
    logits = np.random.default_rng(vocabulary).normal(size=(rows, vocabulary + beyond)) * 2
    seeds = np.random.default_rng(1).integers(0, 2**32, (rows, 2), dtype=np.uint32)
    settings = [
        jnp.full(rows, x, dtype) for x, dtype in ((temperature, "f4"), (top_k, "i4"), (top_p, "f4"), (min_p, "f4"))
    ]
    return jnp.asarray(logits, jnp.float32), *settings, jnp.asarray(seeds), jnp.arange(rows, dtype=jnp.int32)


CALLABLE = [i.name for i in DRAW.implementations if not i.refuses(*arguments(3), 3)]
OTHERS = [name for name in CALLABLE if name != "reference"]


@cache
def drawing(implementation, vocabulary=None):
    return jax.jit(lambda *given: draw(*given, vocabulary=vocabulary, implementation=implementation))


OPTIONS = {
    "greedy": {"temperature": 0.0},
    "plain": {},
    "warm": {"temperature": 3.0},
    "k of 1": {"top_k": 1},
    "k of 7": {"top_k": 7},
    "k of 200": {"top_k": 200},
    "k of the vocabulary": {"top_k": 257},
    "k beyond the vocabulary": {"top_k": 10**6},
    "p of 0": {"top_p": 0.0},
    "p of 0.3": {"top_p": 0.3},
    "p of 0.9": {"top_p": 0.9},
    "min p": {"min_p": 0.05},
    "min p of 1": {"min_p": 1.0},
    "all": {"temperature": 1.3, "top_k": 40, "top_p": 0.8, "min_p": 0.02},
    "k and p": {"top_k": 700, "top_p": 0.95},
}


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("implementation", OTHERS)
def test_the_token_is_the_definitions(implementation, options):
    """Random numbers within rounding of a border would be few in millions: none of these is."""
    for vocabulary in VOCABULARIES:
        given = arguments(vocabulary, **OPTIONS[options])
        assert drawing(implementation)(*given).tolist() == drawing("reference")(*given).tolist()


@pytest.mark.parametrize("implementation", CALLABLE)
@pytest.mark.parametrize("options", ["k of 7", "p of 0.3", "min p", "all"])
def test_what_is_drawn_is_all_of_the_kept_set_and_nothing_else(implementation, options):
    logits, *settings, seed, position = arguments(30, 3000, **OPTIONS[options])
    logits = jnp.broadcast_to(logits[:1], logits.shape)
    tokens = drawing(implementation)(logits, *settings, seed, position)
    weights, nucleus = reference.kept(logits[:1], *(x[:1] for x in settings))
    kept = np.flatnonzero((weights[0] > 0) & nucleus[0])
    chances = np.asarray(weights[0])[kept] / np.asarray(weights[0])[kept].sum()
    likely = kept[(1 - chances) ** len(tokens) < 1e-9]
    assert set(tokens.tolist()) <= set(kept.tolist())
    assert set(likely.tolist()) <= set(tokens.tolist())


@pytest.mark.parametrize("implementation", CALLABLE)
def test_a_cut_keeps_equals_and_greedy_takes_the_first(implementation):
    row = np.full(1500, -3, np.float32)
    row[[30, 290, 1499]] = 2
    for options in ({"top_k": 1}, {"top_k": 2}, {"top_p": 0.01}, {"top_p": 0.0}, {"min_p": 1.0}):
        _, *how = arguments(1500, **options)
        assert set(drawing(implementation)(jnp.tile(row, (ROWS, 1)), *how).tolist()) == {30, 290, 1499}
    _, *how = arguments(1500, temperature=0.0)
    assert drawing(implementation)(jnp.tile(row, (ROWS, 1)), *how).tolist() == [30] * ROWS


@pytest.mark.parametrize("implementation", CALLABLE)
def test_rows_that_are_broken_give_a_token_and_harm_no_other(implementation):
    for options in ({}, {"temperature": 0.0}, {"top_k": 9, "top_p": 0.9}, {"top_k": 250}, {"min_p": 0.5}):
        logits, *how = arguments(257, **options)
        broken = logits.at[0].set(jnp.nan).at[1].set(-jnp.inf).at[2, 7].set(jnp.inf).at[3, 5].set(jnp.nan)
        tokens, clean = drawing(implementation)(broken, *how), drawing(implementation)(logits, *how)
        assert ((tokens >= 0) & (tokens < 257)).all()
        assert tokens[4:].tolist() == clean[4:].tolist()
        masked = jnp.where(jnp.arange(257) == 8, logits, -jnp.inf)
        assert drawing(implementation)(masked, *how).tolist() == [8] * ROWS
    sums = log_sum(broken, implementation=implementation)
    assert np.isnan(sums[0])
    assert np.isnan(sums[3])
    assert np.isfinite(sums[4:]).all()


@pytest.mark.parametrize("implementation", CALLABLE)
def test_logits_beyond_the_vocabulary_are_padding(implementation):
    logits, *how = arguments(257, top_p=0.9, beyond=21)
    wild = logits.at[:, 257:].set(jnp.asarray([jnp.nan, 1e9, jnp.inf] * 7))
    expected = drawing(implementation)(logits[:, :257], *how)
    assert drawing(implementation, 257)(wild, *how).tolist() == expected.tolist()
    sums = log_sum(logits[:, :257], implementation=implementation)
    assert log_sum(wild, vocabulary=257, implementation=implementation).tolist() == sums.tolist()


@pytest.mark.parametrize("implementation", [name for name in CALLABLE if name.startswith("cpu")])
def test_a_row_has_the_same_bits_whoever_is_beside_it(implementation):
    given = arguments(999, 9, top_p=0.9, top_k=50)
    tokens, sums = drawing(implementation)(*given), log_sum(given[0], implementation=implementation)
    for row in (0, 5, 8):
        one = [x[row : row + 1] for x in given]
        assert drawing(implementation)(*one)[0] == tokens[row]
        assert log_sum(one[0], implementation=implementation)[0] == sums[row]
    none = [x[:0] for x in given]
    assert drawing(implementation)(*none).shape == (0,)


@pytest.mark.parametrize("implementation", CALLABLE)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_sums_are_as_exact_as_the_plain_ones(implementation, dtype):
    for vocabulary in VOCABULARIES:
        logits = arguments(vocabulary)[0].astype(dtype)
        wide = np.asarray(logits, np.float64)
        true = np.log(np.exp(wide - wide.max(1, keepdims=True)).sum(1)) + wide.max(1)
        plain = np.abs(np.asarray(log_sum(logits, implementation="reference")) - true).max()
        got = np.abs(np.asarray(log_sum(logits, implementation=implementation)) - true)
        assert (got <= 2 * plain + SLACK * np.spacing(np.float32(np.abs(true).max()))).all()


@pytest.mark.parametrize("implementation", CALLABLE)
def test_half_precision_counts_as_it_is_and_vmap_is_one_after_another(implementation):
    logits, *how = arguments(257, top_k=30)
    half = logits.astype(jnp.bfloat16)
    tokens = drawing(implementation)(half, *how)
    assert tokens.tolist() == drawing(implementation)(half.astype(jnp.float32), *how).tolist()
    pairs = [x.reshape(2, ROWS // 2, *x.shape[1:]) for x in (half, *how)]
    assert jax.vmap(drawing(implementation))(*pairs).reshape(-1).tolist() == tokens.tolist()


def test_dtypes_that_native_code_does_not_take_are_refused():
    if not any(name.startswith("cpu") for name in CALLABLE):
        pytest.skip("no native library")
    logits, *how = arguments(30)
    with pytest.raises(Unsupported, match="logits are float16, and it takes float32 and bfloat16"):
        draw(logits.astype(jnp.float16), *how, implementation="cpu")
    with pytest.raises(Unsupported, match="logits are float16"):
        log_sum(logits.astype(jnp.float16), implementation="cpu")
