from functools import partial
from itertools import islice

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cupola.core.errors import ConfigError, ShapeError
from cupola.layers.repeat import Form
from cupola.models.completion import Sampling, complete, cut

GREEDY = Sampling(temperature=0.0)
KEY = jax.random.key(5)


@partial(jax.jit, static_argnums=0)
def _log_probs(model, p, tokens, targets):
    return model.log_probs(p, model(p, tokens).states, targets)[0]


def log_probs_of(model, p, text):
    return _log_probs(model, p, jnp.asarray([text[:-1]]), jnp.asarray([text[1:]]))


@partial(jax.jit, static_argnums=0)
def _logits(model, p, tokens):
    return model.logits(p, model(p, tokens).states)[0]


@pytest.mark.parametrize("form", Form)
@pytest.mark.parametrize("prompt", [[3], [1, 2, 3], [4, 9, 1, 1, 8, 2, 7, 7, 0]], ids=len)
def test_says_of_each_token_what_training_says(model, p, form, prompt):
    model = model.replace("stack.form", form)
    drawn = list(complete(model, p, prompt, limit_tokens=5, sampling=Sampling(temperature=1.5, top_p=1.0), key=KEY))
    text = [*prompt, *(d.token for d in drawn)]
    expected = log_probs_of(model, p, text)[len(prompt) - 1 :]
    assert np.abs(np.asarray([d.log_prob for d in drawn]) - expected).max() < 1e-5
    # The control: of another text training says something else.
    other = log_probs_of(model, p, [(prompt[0] + 1) % 11, *text[1:]])[len(prompt) - 1 :]
    assert np.abs(other - expected).max() > 1e-3


def test_the_coldest_draw_is_the_likeliest_token_whatever_the_key(model, p):
    one, other = (
        [d.token for d in complete(model, p, [1, 2], limit_tokens=6, sampling=GREEDY, key=jax.random.key(seed))]
        for seed in (0, 1)
    )
    assert one == other
    text = [1, 2]
    for token in one:
        # What stands behind is not seen.
        logits = _logits(model, p, jnp.asarray([text + [0] * (8 - len(text))]))[len(text) - 1]
        assert token == int(jnp.argmax(logits))
        text.append(token)


def test_the_key_decides_the_draw(model, p):
    def drawn(seed):
        sampling = Sampling(temperature=2.0, top_p=1.0)
        key = jax.random.key(seed)
        return [d.token for d in complete(model, p, [1, 2], limit_tokens=8, sampling=sampling, key=key)]

    assert drawn(0) == drawn(0)
    assert len({tuple(drawn(seed)) for seed in range(4)}) > 1


def test_a_longer_limit_begins_the_same_and_nothing_is_computed_unasked(model, p):
    def tokens(limit, sampling=Sampling()):
        return [d.token for d in complete(model, p, [1, 2], limit_tokens=limit, sampling=sampling, key=KEY)]

    assert tokens(4)[:2] == tokens(2)
    assert tokens(0) == []
    stream = complete(model, p, [1, 2], limit_tokens=14, sampling=Sampling(), key=KEY)
    assert [d.token for d in islice(stream, 2)] == tokens(2)


def test_the_last_place_can_be_filled(model, p):
    assert len(list(complete(model, p, [1] * 15, limit_tokens=1, sampling=GREEDY, key=KEY))) == 1
    assert len(list(complete(model, p, [1], limit_tokens=15, sampling=GREEDY, key=KEY))) == 15


@pytest.mark.parametrize(
    ("prompt", "limit", "message"),
    [
        ([], 3, "complete: the prompt has no token\nBegin with the tokenizer's end token."),
        (
            [1] * 10,
            7,
            "complete: 10 prompt tokens and 7 more exceed max_length=16\nAsk for at most 6 tokens.",
        ),
        (
            [1] * 16,
            1,
            "complete: 16 prompt tokens and 1 more exceed max_length=16\nUse a prompt below 16 tokens.",
        ),
    ],
)
def test_what_does_not_fit_is_refused(model, p, prompt, limit, message):
    with pytest.raises(ShapeError) as caught:
        next(complete(model, p, prompt, limit_tokens=limit, sampling=GREEDY, key=KEY))
    assert str(caught.value) == message


def kept(shares, **sampling):
    """Returns which tokens may be drawn of these probabilities."""
    logits = jnp.log(jnp.asarray(shares))
    left = cut(logits, Sampling(**{"top_p": 1.0} | sampling))
    stays = np.isfinite(left)
    np.testing.assert_array_equal(left[stays], logits[stays])
    return [i for i, stay in enumerate(stays) if stay]


@pytest.mark.parametrize(
    ("shares", "sampling", "expected"),
    [
        ([0.1, 0.4, 0.2, 0.3], {}, [0, 1, 2, 3]),
        ([0.1, 0.4, 0.2, 0.3], {"top_k": 1}, [1]),
        ([0.1, 0.4, 0.2, 0.3], {"top_k": 3}, [1, 2, 3]),
        ([0.1, 0.4, 0.2, 0.3], {"top_k": 4}, [0, 1, 2, 3]),
        ([0.1, 0.4, 0.2, 0.3], {"top_k": 99}, [0, 1, 2, 3]),
        ([0.1, 0.4, 0.2, 0.3], {"top_p": 0.3}, [1]),
        ([0.1, 0.4, 0.2, 0.3], {"top_p": 0.5}, [1, 3]),
        ([0.1, 0.4, 0.2, 0.3], {"top_p": 0.8}, [1, 2, 3]),
        ([0.1, 0.4, 0.2, 0.3], {"top_p": 0.95}, [0, 1, 2, 3]),
        ([0.1, 0.4, 0.2, 0.3], {"top_p": 1e-6}, [1]),
        ([0.5, 0.25, 0.25], {"top_p": 0.25}, [0]),
        ([0.5, 0.25, 0.25], {"top_p": 0.5}, [0]),
        ([1.0, 0.0, 0.0], {"top_p": 0.9}, [0]),
        # Of 0.4, 0.3, 0.2 the shares are 4/9, 3/9, 2/9: the first two make 7/9.
        ([0.1, 0.4, 0.2, 0.3], {"top_k": 3, "top_p": 0.77}, [1, 3]),
        ([0.1, 0.4, 0.2, 0.3], {"top_k": 3, "top_p": 0.79}, [1, 2, 3]),
        ([0.1, 0.4, 0.2, 0.3], {"top_k": 1, "top_p": 0.99}, [1]),
    ],
)
def test_cuts_exactly(shares, sampling, expected):
    assert kept(shares, **sampling) == expected


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [({"top_k": 1}, [0, 2]), ({"top_k": 2}, [0, 2]), ({"top_p": 0.1}, [0, 2]), ({"top_k": 3}, [0, 1, 2, 3])],
)
def test_tokens_that_tie_stay_or_go_together(sampling, expected):
    assert kept([0.375, 0.125, 0.375, 0.125], **sampling) == expected


def test_only_what_is_left_is_drawn(model, p):
    (first,) = complete(model, p, [1, 2], limit_tokens=1, sampling=GREEDY, key=KEY)
    sampling = Sampling(temperature=5.0, top_k=1, top_p=1.0)
    for seed in range(8):
        assert list(complete(model, p, [1, 2], limit_tokens=1, sampling=sampling, key=jax.random.key(seed))) == [first]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"temperature": -0.5}, "temperature=-0.5\nUse 0 for the likeliest token, or more."),
        ({"temperature": float("nan")}, "temperature=nan\nUse 0 for the likeliest token, or more."),
        ({"top_k": 0}, "top_k=0 leaves no token\nUse 1 or more, or None for all."),
        ({"top_p": 0.0}, "top_p=0.0 is no probability\nUse a number above 0, up to 1."),
        ({"top_p": 1.5}, "top_p=1.5 is no probability\nUse a number above 0, up to 1."),
    ],
)
def test_draws_that_cannot_be_are_refused(fields, message):
    with pytest.raises(ConfigError) as caught:
        Sampling(**fields)
    assert str(caught.value) == message
