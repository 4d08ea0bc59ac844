import jax
import numpy as np
import pytest

from cupola.core.errors import ConfigError, ShapeError
from cupola.models.speech.generate import Speaking, generate, stream

KEY, EACH = jax.random.key(4), 3
SHORT = Speaking(most_frames=21, chunk_frames=21)


def stopping(p, logit):
    """The same parameters, with the stop's bias moved."""
    stop = p["decoder"]["stop"]
    return p | {"decoder": p["decoder"] | {"stop": stop | {"bias": stop["bias"] + logit}}}


@pytest.fixture(scope="module")
def unsure(model):
    return model.replace("decoder.pre_net_dropout.rate", 0.5)


@pytest.fixture(scope="module")
def endless(p):
    return stopping(p, -50.0)


@pytest.fixture(scope="module")
def several(unsure):
    """A model that makes four frames a step, and its parameters, which never stop."""
    model = unsure.replace("decoder.frames_per_step", 4)
    return model, stopping(jax.jit(model.init)(jax.random.key(0)), -50.0)


def same(one, other):
    np.testing.assert_allclose(one.features, other.features, rtol=1e-4, atol=1e-4 * abs(other.features).max())
    np.testing.assert_allclose(one.weights, other.weights, atol=1e-4)
    assert one.stopped == other.stopped


def test_the_frames_do_not_depend_on_the_chunks(unsure, endless, utterances):
    whole = generate(unsure, endless, utterances[:3], key=KEY, speaking=SHORT)
    for one, other in zip(
        whole,
        generate(unsure, endless, utterances[:3], key=KEY, speaking=SHORT.replace("chunk_frames", 8)),
        strict=True,
    ):
        same(one, other)


@pytest.mark.parametrize("chunk_frames", [4, 21])
def test_what_is_streamed_is_what_is_made_at_once(unsure, endless, utterances, chunk_frames):
    (whole,) = generate(unsure, endless, utterances[:1], key=KEY, speaking=SHORT)
    speaking = SHORT.replace("chunk_frames", chunk_frames)
    parts = list(stream(unsure, endless, utterances[0], key=KEY, speaking=speaking))
    joined = np.concatenate([part.features for part in parts])
    np.testing.assert_allclose(joined, whole.features, rtol=1e-4, atol=1e-4 * abs(whole.features).max())
    np.testing.assert_allclose(np.concatenate([part.weights for part in parts]), whole.weights, atol=1e-4)
    assert all(len(part.features) <= chunk_frames for part in parts)
    assert not any(part.stopped for part in parts[:-1])
    assert parts[-1].stopped == whole.stopped


@pytest.mark.parametrize("chunk_frames", [1, 6, 8])
def test_steps_of_several_frames_are_the_same_in_any_chunks(several, utterances, chunk_frames):
    model, p = several
    whole = generate(model, p, utterances[:2], key=KEY, speaking=SHORT)
    speaking = SHORT.replace("chunk_frames", chunk_frames)
    for one, other in zip(whole, generate(model, p, utterances[:2], key=KEY, speaking=speaking), strict=True):
        assert (len(one.features), one.stopped) == (21, False)
        same(one, other)
    parts = list(stream(model, p, utterances[0], key=KEY, speaking=speaking))
    joined = np.concatenate([part.features for part in parts])
    np.testing.assert_allclose(joined, whole[0].features, rtol=1e-4, atol=1e-4 * abs(whole[0].features).max())
    assert (whole[0].weights[4] == whole[0].weights[7]).all()
    assert (whole[0].weights[7] != whole[0].weights[8]).any()


def test_it_stops_at_a_frame_within_a_step(several, utterances):
    model, p = several
    stop = p["decoder"]["stop"]
    # The third frame of each step is the last, whatever is said.
    p = p | {"decoder": p["decoder"] | {"stop": stop | {"bias": stop["bias"].at[2].add(100.0)}}}
    (whole,) = generate(model, p, utterances[:1], key=KEY, speaking=SHORT)
    (part,) = stream(model, p, utterances[0], key=KEY, speaking=SHORT.replace("chunk_frames", 5))
    assert (len(whole.features), whole.stopped) == (len(part.features), part.stopped) == (3, True)


def test_a_row_that_does_not_stop_is_cut_and_says_so(unsure, p, endless, utterances):
    for said in generate(unsure, endless, utterances[:3], key=KEY, speaking=SHORT):
        assert (len(said.features), said.stopped) == (21, False)
    for said in generate(unsure, stopping(p, 50.0), utterances[:3], key=KEY, speaking=SHORT):
        assert (len(said.features), said.stopped) == (1, True)


def test_streamed_it_is_cut_and_stops_alike(unsure, p, endless, utterances):
    *_, last = stream(unsure, endless, utterances[0], key=KEY, speaking=SHORT.replace("chunk_frames", 4))
    assert not last.stopped
    (only,) = stream(unsure, stopping(p, 50.0), utterances[0], key=KEY, speaking=SHORT.replace("chunk_frames", 4))
    assert (len(only.features), only.stopped) == (1, True)


def test_a_row_says_the_same_beside_others(model, endless, utterances):
    together = generate(model, endless, utterances[:3], key=KEY, speaking=SHORT)
    (alone,) = generate(model, endless, utterances[1:2], key=KEY, speaking=SHORT)
    same(together[1], alone)


def test_the_seed_decides(unsure, endless, utterances):
    one, again, other = (
        generate(unsure, endless, utterances[:1], key=jax.random.key(seed), speaking=SHORT)[0] for seed in (1, 1, 2)
    )
    assert (one.features == again.features).all()
    assert one.features.shape != other.features.shape or abs(one.features - other.features).max() > 1e-3


def test_what_cannot_be_said_is_refused(model, p):
    nothing = np.zeros(0, np.int32)
    for rows in ([], [nothing]):
        with pytest.raises(ShapeError, match="symbols: there is nothing to say\nGive at least one symbol"):
            generate(model, p, rows, key=KEY)
    with pytest.raises(ShapeError, match="id 10 is none of 10 symbols\nEncode the text with the symbols"):
        next(stream(model, p, np.asarray([3, 10], np.int32), key=KEY))
    with pytest.raises(ConfigError, match="speaking: most_frames=0, .*\nUse such as 1000, 0.5 and 32"):
        Speaking(most_frames=0)
