import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from cupola.serve.errors import InvalidRequest
from cupola.serve.request import Sampling
from cupola.serve.rows import History, Place, Settings, rows_of
from cupola.serve.sample import Bias, Drawn, Rows, sample

DRAWS = 4000
SMALL, LARGE = 300, 6000
"""Neither fills its last block; the large one is searched for its likeliest tokens block by block."""

draw = jax.jit(sample, static_argnames=("top", "vocabulary"))


def rows(count: int, sampling: Sampling = Sampling(), *, seed: int = 5, **parts) -> Rows:
    settings = Settings(sampling, seed=seed, vocabulary=LARGE)
    return dataclasses.replace(rows_of([Place(settings, i) for i in range(count)], rows=count), **parts)


def logits(size: int, spread: float = 1.5) -> np.ndarray:
    return (np.random.default_rng(size).normal(size=size) * spread).astype(np.float32)


def repeated(row: np.ndarray, count: int) -> jnp.ndarray:
    return jnp.asarray(np.broadcast_to(row, (count, len(row))))


def bits(allowed: np.ndarray) -> np.ndarray:
    """The mask of the allowed tokens, as llguidance writes it."""
    padded = np.zeros(-(-len(allowed) // 32) * 32, bool)
    padded[: len(allowed)] = allowed
    return np.packbits(padded, bitorder="little").view(np.uint32)


def distribution(row: np.ndarray, sampling: Sampling) -> np.ndarray:
    """The definition, in float64, by sorting."""
    kept = np.exp((row.astype(np.float64) - row.max()) / sampling.temperature)
    if sampling.top_k is not None and sampling.top_k < len(row):
        kept = np.where(kept >= np.sort(kept)[-sampling.top_k], kept, 0)
    ranked = np.sort(kept)[::-1]
    least = ranked[np.searchsorted(np.cumsum(ranked) / ranked.sum(), sampling.top_p)] if sampling.top_p < 1 else 0
    kept = np.where((kept >= least) & (kept >= sampling.min_p), kept, 0)
    return kept / kept.sum()


def likeness(tokens: np.ndarray, expected: np.ndarray) -> float:
    """The probability of draws at least so unlike the expected distribution (chi-square)."""
    counts = np.bincount(tokens, minlength=len(expected)).astype(float)
    assert not counts[expected == 0].any(), "drawn, but of probability 0"
    order = np.argsort(expected)
    # Bins of at least ten expected draws.
    bins = np.floor(np.cumsum(expected[order]) * len(tokens) / 10)
    bins = np.minimum(bins, np.floor(len(tokens) / 10) - 1).astype(int)
    observed, wanted = np.bincount(bins, counts[order]), np.bincount(bins, expected[order] * len(tokens))
    held = wanted > 0
    return stats.chisquare(observed[held], wanted[held]).pvalue if held.sum() > 1 else 1.0


OPTIONS = [
    Sampling(),
    Sampling(temperature=0.6),
    Sampling(temperature=3.0),
    Sampling(top_k=7),
    Sampling(top_k=100),
    Sampling(top_k=1000),
    Sampling(top_p=0.9),
    Sampling(top_p=0.3),
    Sampling(min_p=0.05),
    Sampling(temperature=0.8, top_k=40, top_p=0.8, min_p=0.02),
    Sampling(temperature=1.3, top_k=120, top_p=0.95),
]


@pytest.mark.parametrize("size", [SMALL, LARGE])
@pytest.mark.parametrize("sampling", OPTIONS, ids=str)
def test_draws_have_the_exact_distribution(sampling, size):
    row = logits(size)
    drawn = draw(repeated(row, DRAWS), rows(DRAWS, sampling))
    assert likeness(np.asarray(drawn.tokens), distribution(row, sampling)) > 1e-3


def test_another_distribution_is_noticed():
    row = logits(SMALL)
    tokens = np.asarray(draw(repeated(row, DRAWS), rows(DRAWS)).tokens)
    assert likeness(tokens, distribution(row, Sampling(temperature=1.15))) < 1e-6
    with pytest.raises(AssertionError, match="probability 0"):
        likeness(tokens, distribution(row, Sampling(top_p=0.95)))


def test_seeds_are_as_independent_as_positions():
    row = logits(SMALL)
    places = [Place(Settings(Sampling(), seed=seed, vocabulary=SMALL), 7) for seed in range(DRAWS)]
    tokens = np.asarray(draw(repeated(row, DRAWS), rows_of(places, rows=DRAWS)).tokens)
    assert likeness(tokens, distribution(row, Sampling())) > 1e-3


def test_a_mask_renormalizes_as_rejection_of_single_tokens_does():
    row, allowed = logits(SMALL), np.arange(SMALL) % 3 == 1
    tokens = np.asarray(draw(repeated(row, DRAWS), rows(DRAWS)).tokens)
    rejected = tokens[allowed[tokens]]
    masked = np.asarray(draw(repeated(row, DRAWS), rows(DRAWS, mask=np.tile(bits(allowed), (DRAWS, 1)))).tokens)
    expected = np.where(allowed, distribution(row, Sampling()), 0)
    assert likeness(rejected, expected / expected.sum()) > 1e-3
    assert likeness(masked, expected / expected.sum()) > 1e-3


def test_a_top_k_beyond_what_the_mask_allows_takes_all_of_it():
    row, allowed = logits(LARGE), np.arange(LARGE) < 10
    mask = np.tile(bits(allowed), (DRAWS, 1))
    tokens = np.asarray(draw(repeated(row, DRAWS), rows(DRAWS, Sampling(top_k=700), mask=mask)).tokens)
    expected = np.where(allowed, distribution(row, Sampling()), 0)
    assert likeness(tokens, expected / expected.sum()) > 1e-3


def test_a_cut_keeps_equals():
    row = np.full(SMALL, -3, np.float32)
    row[[3, 50, 290]] = 2
    for sampling in (Sampling(top_k=1), Sampling(top_p=0.01), Sampling(min_p=1.0)):
        assert set(np.asarray(draw(repeated(row, 200), rows(200, sampling)).tokens).tolist()) == {3, 50, 290}


def test_temperature_0_takes_the_lowest_id_of_equals():
    row = np.zeros(LARGE, np.float32)
    row[[4000, 4001, 5900]] = 2
    assert draw(repeated(row, 3), rows(3, Sampling(temperature=0.0))).tokens.tolist() == [4000] * 3
    # Also beside a row that is drawn, and when all that is likelier is masked.
    mixed = dataclasses.replace(rows(2), temperature=np.asarray([1, 0], np.float32))
    assert draw(repeated(row, 2), mixed).tokens[1] == 4000
    allowed = np.arange(LARGE) > 4000
    assert draw(repeated(row, 1), rows(1, Sampling(temperature=0.0), mask=bits(allowed)[None])).tokens[0] == 4001


def test_a_tiny_temperature_is_nearly_greedy():
    row = logits(SMALL)
    assert set(draw(repeated(row, 50), rows(50, Sampling(temperature=1e-30))).tokens.tolist()) == {int(row.argmax())}


@pytest.mark.parametrize("size", [3, SMALL, LARGE])
def test_log_probs_are_of_the_raw_logits(size):
    raw = np.stack([logits(size), logits(size)[::-1]])
    bias = Bias(ids=np.zeros((2, 64), np.int32), values=np.full((2, 64), 9, np.float32))
    drawn = draw(jnp.asarray(raw), rows(2, Sampling(temperature=0.0), bias=bias), top=20)
    expected = np.asarray(jax.nn.log_softmax(raw.astype(np.float64)))
    assert drawn.tokens.tolist() == [0, 0]
    np.testing.assert_allclose(drawn.log_probs, expected[:, 0], atol=2e-6)
    ranked = np.argsort(-raw, axis=1, kind="stable")[:, :20]
    assert drawn.top.tolist() == ranked.tolist()
    np.testing.assert_allclose(drawn.top_log_probs, np.take_along_axis(expected, ranked, 1), atol=2e-6)


def test_padding_of_the_models_table_is_no_token():
    row = logits(SMALL)
    padded = np.concatenate([row, np.full(64, 50, np.float32)])
    plain, drawn = (draw(repeated(r, 50), rows(50), vocabulary=SMALL, top=5) for r in (row, padded))
    assert jax.tree.map(np.array_equal, drawn, plain) == Drawn(True, True, True, True)
    assert draw(repeated(padded, 1), rows(1)).tokens[0] >= SMALL


def test_a_broken_row_ends_and_harms_no_other():
    batch = np.stack([np.full(LARGE, np.nan), logits(LARGE), np.full(LARGE, -np.inf)]).astype(np.float32)
    sampling = Sampling(top_k=90, top_p=0.9)
    drawn = draw(jnp.asarray(batch), rows(3, sampling))
    assert drawn.tokens[1] == draw(jnp.asarray(batch[[1, 1, 1]]), rows(3, sampling)).tokens[1]
    assert all(0 <= token < LARGE for token in drawn.tokens.tolist())
    assert np.isnan(drawn.log_probs[0])


def test_half_precision_logits_count_as_they_are():
    row = jnp.asarray(logits(SMALL), jnp.bfloat16)[None]
    halves, whole = draw(row, rows(1)), draw(row.astype(jnp.float32), rows(1))
    assert (halves.tokens[0], halves.log_probs[0]) == (whole.tokens[0], whole.log_probs[0])


def test_a_row_is_independent_of_the_others_bit_for_bit():
    """The same request in any row, among other rows, with parts that only others use."""
    sampling, row = Sampling(temperature=0.9, top_p=0.9), logits(LARGE)
    settings = Settings(sampling, seed=2**40 + 3, vocabulary=LARGE)
    others = [
        Settings(s, seed=i, vocabulary=LARGE)
        for i, s in enumerate([Sampling(top_k=90), Sampling(temperature=0.0), Sampling(logit_bias=((4, 9.0),))])
    ]
    for position in range(40):
        place = Place(settings, position)
        alone: Drawn = draw(jnp.asarray(row)[None], rows_of([place], rows=1))
        for at in (0, 2):
            places = [Place(s, 3) for s in others]
            places.insert(at, place)
            batch = np.random.default_rng(position).normal(size=(5, LARGE)).astype(np.float32)
            batch[at] = row
            crowded = draw(jnp.asarray(batch), rows_of(places, rows=5))
            assert crowded.tokens[at] == alone.tokens[0]
            assert crowded.log_probs[at] == alone.log_probs[0]


def test_seed_position_and_nothing_else_decide():
    row = repeated(logits(LARGE, 0.1), 64)
    first = draw(row, rows(64)).tokens.tolist()
    assert draw(row, rows(64)).tokens.tolist() == first
    assert draw(row, rows(64, seed=6)).tokens.tolist() != first
    assert draw(row, rows(64, seed=5 + 2**32)).tokens.tolist() != first
    assert draw(row, rows(64, seed=5 + 2**64)).tokens.tolist() == first
    assert len(set(first)) > 50  # another position, another number


def test_bias_and_penalties_change_the_logits_as_documented():
    sampling = Sampling(
        temperature=0.0, repetition_penalty=1.5, presence_penalty=0.5, frequency_penalty=0.25, logit_bias=((7, 4.0),)
    )
    prompt, output = [1, 2, 2, 299], [2, 5, 5, 7]
    settings = Settings(sampling, seed=0, vocabulary=SMALL)
    history = settings.history(prompt)
    for token in output:
        history.append(token)
    made = rows_of([Place(settings, 8, history)], rows=2)
    row = logits(SMALL)
    expected = row.copy()
    expected[7] += 4
    for token in {*prompt, *output}:
        expected[token] = expected[token] / 1.5 if expected[token] > 0 else expected[token] * 1.5
        expected[token] -= 0.25 * output.count(token) + 0.5 * (token in output)
    # Each token in turn is let through beside one of a known logit: which one wins tells the sum.
    for token in (1, 2, 5, 7, 299, 100):
        for margin, winner in ((-1e-3, token), (1e-3, 0)):
            probe = row.copy()
            probe[0] = expected[token] + margin
            allowed = np.isin(np.arange(SMALL), [0, token])
            masked = dataclasses.replace(made, mask=np.stack([bits(allowed), bits(allowed)]))
            assert draw(repeated(probe, 2), masked).tokens[0] == winner


def test_drafts_see_the_tokens_before_them_and_leave_no_trace():
    settings = Settings(Sampling(frequency_penalty=1.0), seed=9, vocabulary=SMALL)
    history = settings.history([4])
    history.append(8)
    plain = Place(Settings(Sampling(), seed=1, vocabulary=SMALL), 3)
    made = rows_of([plain, Place(settings, 20, history, draft=[8, 6, 6])], rows=8)
    assert made.position.tolist() == [3, 20, 21, 22, 23, 0, 0, 0]
    counts = [
        dict(zip(i[i >= 0].tolist(), c.tolist(), strict=False))
        for i, c in zip(made.penalties.ids, made.penalties.counts, strict=True)
    ]
    assert counts == [{}, {8: 1}, {8: 2}, {8: 2, 6: 1}, {8: 2, 6: 2}, {}, {}, {}]
    assert rows_of([Place(settings, 20, history)], rows=1).penalties.counts.sum() == 1
    assert made.temperature.tolist() == [1] * 5 + [0] * 3


def test_parts_that_nobody_uses_are_left_out():
    made = rows(3)
    assert made.penalties is made.bias is made.mask is None


def test_a_history_grows_and_its_lists_have_few_lengths():
    history, prompt = History(range(100)), set(range(100))
    tokens = np.random.default_rng(0).integers(0, 2000, 3000).tolist()
    for token in tokens:
        history.append(token)
    assert len(history) == len(prompt | set(tokens))
    ids, counts = np.full(4096, -1, np.int32), np.zeros(4096, np.int32)
    history.write(ids, counts)
    assert dict(zip(ids.tolist(), counts.tolist(), strict=True)) == {
        t: tokens.count(t) for t in prompt | set(tokens)
    } | {-1: 0}
    for token in reversed(tokens):
        history.pop(token)
    assert len(history) == 100
    settings = Settings(Sampling(repetition_penalty=1.1), seed=0, vocabulary=LARGE)
    widths = {
        rows_of([Place(settings, 0, settings.history(range(n)))], rows=1).penalties.ids.shape[1] for n in range(1, 300)
    }
    assert widths == {64, 256, 1024}


def test_a_bias_for_no_token_is_refused():
    with pytest.raises(InvalidRequest, match=r"no token 300.*\n.*0 to 299") as caught:
        Settings(Sampling(logit_bias=((300, 1.0),)), seed=0, vocabulary=SMALL)
    assert caught.value.where == "logit_bias"
