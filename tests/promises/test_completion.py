"""Promise 3: the same log-probabilities in training, prefill and decoding."""

import jax.numpy as jnp
import numpy as np
import pytest

from cupola.models.completion import Sampling, complete

PROMPT = [3, 1, 4, 1, 5, 9, 2, 6, 5]


@pytest.fixture
def model(experiment):
    return experiment().model


@pytest.fixture
def params(model, key):
    return model.init(key)


def trained_log_probs(model, params, tokens):
    """Of each token but the first, by the forward pass that training uses."""
    states = model(params, jnp.asarray([tokens[:-1]])).states
    return np.asarray(model.log_probs(params, states, jnp.asarray([tokens[1:]])))[0]


def completed(model, params, key, **options):
    drawn = list(complete(model, params, PROMPT, limit_tokens=24, sampling=Sampling(**options), key=key))
    return PROMPT + [d.token for d in drawn], [d.log_prob for d in drawn]


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"temperature": 1.0, "top_k": 50, "top_p": 0.9}])
def test_log_probs_of_completion_equal_those_of_training(model, params, key, options):
    tokens, log_probs = completed(model, params, key, **options)
    trained = trained_log_probs(model, params, tokens)[len(PROMPT) - 1 :]
    assert np.max(np.abs(trained - np.asarray(log_probs))) < 1e-5


def test_a_view_of_wrong_positions_is_noticed(model, params, key):
    """Control: a model whose rotary base differs between the two passes disagrees."""
    tokens, log_probs = completed(model, params, key, temperature=1.0)
    other = model.replace("stack.block.attention.rope.base", 100.0)
    trained = trained_log_probs(other, params, tokens)[len(PROMPT) - 1 :]
    assert np.max(np.abs(trained - np.asarray(log_probs))) > 1e-4
