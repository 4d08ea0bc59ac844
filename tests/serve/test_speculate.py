import time

import jax
import numpy as np
import pytest

from cupola.core.errors import ConfigError
from cupola.serve.request import Sampling
from cupola.serve.rows import Place, Settings, rows_of
from cupola.serve.sample import sample
from cupola.serve.speculate import NgramProposer, Speculation, SpeculationKind, accept

draw = jax.jit(sample)
NGRAM = Speculation(kind=SpeculationKind.NGRAM, count=4, min_n=2, max_n=4)


def proposed(tokens: list[int], count: int = 4, speculation: Speculation = NGRAM) -> list[int]:
    return NgramProposer(speculation).propose(tokens, count)


def scanned(tokens: list[int], count: int, speculation: Speculation) -> list[int]:
    """The definition: the longest suffix that stood before, where it stood last."""
    for n in range(speculation.max_n, speculation.min_n - 1, -1):
        for start in range(len(tokens) - n - 1, -1, -1):
            if tokens[start : start + n] == tokens[-n:]:
                extended = list(tokens)
                while len(extended) < len(tokens) + count:
                    extended.append(extended[len(extended) - (len(tokens) - start - n)])
                return extended[len(tokens) :]
    return []


def test_what_followed_the_last_tokens_is_proposed():
    assert proposed([1, 2, 3, 4, 5, 9, 1, 2]) == [3, 4, 5, 9]
    assert proposed([1, 2, 3, 4, 5, 9, 1, 2], count=2) == [3, 4]
    assert proposed([1, 2, 3, 4]) == proposed([]) == proposed([7]) == []
    assert proposed([5, 1, 5]) == []  # one token is less than min_n


def test_the_longest_match_wins_and_then_the_latest():
    assert proposed([7, 1, 2, 8, 4, 1, 2, 9, 7, 1, 2])[:1] == [8]
    assert proposed([1, 2, 8, 4, 1, 2, 9, 6, 1, 2])[:1] == [9]


def test_a_repetition_goes_on():
    assert proposed([1, 2, 1, 2, 1, 2]) == [1, 2, 1, 2]
    assert proposed([3, 3, 3]) == [3, 3, 3, 3]


@pytest.mark.parametrize("seed", range(5))
def test_the_table_finds_what_a_scan_finds(seed):
    tokens = np.random.default_rng(seed).integers(0, 3, 120).tolist()
    proposer = NgramProposer(NGRAM)
    for end in range(len(tokens) + 1):
        assert proposer.propose(tokens[:end], 4) == scanned(tokens[:end], 4, NGRAM)


def test_a_step_takes_no_longer_in_a_long_sequence():
    tokens = np.random.default_rng(0).integers(0, 50, 100_000).tolist()
    proposer = NgramProposer(NGRAM)
    proposer.propose(tokens, 4)
    began = time.perf_counter()
    for token in range(200):
        tokens.append(token % 50)
        proposer.propose(tokens, 4)
    assert time.perf_counter() - began < 0.1  # a scan of 100,000 tokens takes milliseconds each time


def test_few_are_proposed_while_few_come():
    proposer, tokens = NgramProposer(NGRAM), [1, 2] * 10
    lengths = []
    for came in (0, 1, 2, 4):
        proposer.learn(4, came)
        lengths.append(len(proposer.propose(tokens, 9)))
    assert lengths == [1, 2, 3, 4]
    proposer.learn(4, 0)
    proposer.learn(0, 0)  # a step without a draft says nothing
    assert len(proposer.propose(tokens, 9)) == 1
    proposer.learn(1, 1)
    assert len(proposer.propose(tokens, 9)) == 2


@pytest.mark.parametrize(
    ("draft", "drawn", "kept"),
    [([], [5], [5]), ([5, 6], [5, 6, 7], [5, 6, 7]), ([5, 6], [5, 8, 7], [5, 8]), ([5, 6], [4, 6, 7], [4])],
)
def test_draws_are_kept_up_to_the_first_that_differs(draft, drawn, kept):
    assert accept(draft, drawn) == kept


def logits_after(tokens: list[int]) -> np.ndarray:
    """A model of twelve tokens that looks at the last two and tends to repeat itself."""
    return (3 * np.random.default_rng([31, *tokens[-2:]]).normal(size=12)).astype(np.float32)


def generated(sampling: Sampling, proposer: NgramProposer | None, length: int = 120) -> tuple[list[int], int]:
    settings = Settings(sampling, seed=77, vocabulary=12)
    tokens, history, steps = [1, 2], settings.history([1, 2]), 0
    while len(tokens) < length:
        draft = proposer.propose(tokens, 4) if proposer else []
        batch = np.stack([logits_after(tokens + draft[:i]) for i in range(5)])
        drawn = draw(batch, rows_of([Place(settings, len(tokens), history, draft)], rows=5)).tokens.tolist()
        kept = accept(draft, drawn[: len(draft) + 1])
        for token in kept:
            if history is not None:
                history.append(token)
        if proposer:
            proposer.learn(len(draft), len(kept) - 1)
        tokens, steps = tokens + kept, steps + 1
    return tokens[:length], steps


@pytest.mark.parametrize(
    "sampling",
    [Sampling(temperature=0.0), Sampling(temperature=0.7, top_p=0.9), Sampling(presence_penalty=1.0)],
    ids=str,
)
def test_speculation_changes_no_token(sampling):
    plain, steps = generated(sampling, None)
    fast, fewer = generated(sampling, NgramProposer(NGRAM))
    assert fast == plain
    assert fewer < steps
    assert generated(sampling.replace("temperature", 1.5), None)[0] != plain  # another distribution is noticed


@pytest.mark.parametrize(
    ("changes", "message"), [({"count": 0}, "count=0"), ({"min_n": 5}, "min_n=5"), ({"min_n": 0}, "min_n=0")]
)
def test_impossible_speculation_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        Speculation(**changes)
