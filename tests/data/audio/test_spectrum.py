"""The transform and its inverse: as a plain float64 one says, exact together, with gradients that are numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cupola.core.errors import AudioError, ConfigError
from cupola.data.audio.spectrum import OverlapAdd, Padding, Stft, phase, random_phase

EVERY = [
    Stft(size=64, hop=16),
    Stft(size=64, hop=12, window=48),
    Stft(size=64, hop=16, padding=Padding.BETWEEN),
    Stft(size=50, hop=20),
    Stft(size=32, hop=31),
]


def noise(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def plain(stft, samples, dtype):
    """Each frame times each wave, in the precision of `dtype`."""
    padded = np.pad(samples.astype(dtype), stft.margin, mode="reflect")
    starts = range(0, len(padded) - stft.size + 1, stft.hop)
    framed = np.stack([padded[start : start + stft.size] for start in starts]) * stft.weights().astype(dtype)
    turns = -2 * np.pi * np.outer(np.arange(stft.size), np.arange(stft.bins)) / stft.size
    return framed @ np.cos(turns).astype(dtype) + 1j * (framed @ np.sin(turns).astype(dtype))


@pytest.mark.parametrize("stft", EVERY, ids=str)
@pytest.mark.parametrize("length", [64, 100, 257])
def test_equal_to_frame_by_frame(stft, length):
    samples = noise(length)
    made = np.asarray(stft(jnp.asarray(samples)))
    true = plain(stft, samples, np.float64)
    allowed = 2 * np.abs(plain(stft, samples, np.float32) - true).max()
    assert made.shape == true.shape == (stft.frames(length), stft.bins)
    assert np.abs(made - true).max() <= allowed


@pytest.mark.parametrize("stft", EVERY[:4], ids=str)
def test_the_inverse_gives_the_signal_back(stft):
    samples = noise(2, 400)
    made = stft.inverse(stft(jnp.asarray(samples)), 400)
    reached = stft.samples(stft.frames(400))
    # A sample is the sum of few products, divided by the square of windows that is at least so large.
    squares = np.square(stft.weights())
    least = min(squares[i :: stft.hop].sum() for i in range(stft.hop))
    allowed = 8 * np.finfo(np.float32).eps * np.abs(samples).max() * stft.size / least
    assert np.abs(made - samples)[:, :reached].max() <= allowed
    assert not made[:, reached + stft.margin :].any()


def test_the_inverse_of_what_is_no_transform_is_the_nearest_signal():
    stft = Stft(size=32, hop=8)
    key = jax.random.key(0)
    given = jnp.abs(jax.random.normal(key, (9, stft.bins))) * random_phase(key, (9, stft.bins))

    def distance(samples):
        error = stft.within(samples) - given
        # A real signal's other half of the spectrum counts as well.
        weights = jnp.asarray([[1.0] + [2.0] * (stft.bins - 2) + [1.0]])
        return jnp.sum(weights * jnp.square(jnp.abs(error)))

    nearest = stft.inverse_within(given)
    scale = float(jnp.abs(jax.grad(distance)(nearest + 0.1)).max())
    assert float(jnp.abs(jax.grad(distance)(nearest)).max()) < 1e-4 * scale


def test_what_it_is_batched_with_does_not_matter():
    stft = EVERY[1]
    samples = jnp.asarray(noise(3, 2, 200))
    together = stft(samples)
    alone = jnp.stack([jnp.stack([stft(row) for row in rows]) for rows in samples])
    np.testing.assert_array_equal(together, alone)


def test_numbers_of_frames_and_samples_agree():
    for stft in EVERY:
        for frames in range(2, 9):
            assert stft.frames(stft.samples(frames)) == frames
            assert stft.frames(stft.samples(frames) - 1) == frames - 1
    assert EVERY[2].frames(160) == 160 // 16
    assert EVERY[0].frames(160) == 160 // 16 + 1


def test_the_gradient_of_silence_is_zero():
    stft = EVERY[0]
    np.testing.assert_array_equal(jax.grad(lambda x: jnp.abs(stft(x)).sum())(jnp.zeros(128)), np.zeros(128))


def test_phase():
    given = jnp.asarray([3 + 4j, 0, -2j])
    np.testing.assert_allclose(phase(given), [0.6 + 0.8j, 1, -1j], rtol=1e-6)


@pytest.mark.parametrize(
    "fields",
    [{"size": 64, "hop": 64}, {"size": 64, "hop": 0}, {"size": 63, "hop": 16}, {"size": 64, "hop": 16, "window": 65}],
    ids=str,
)
def test_sizes_that_cannot_be_are_refused(fields):
    with pytest.raises(ConfigError):
        Stft(**fields)


def test_an_odd_margin_is_refused():
    with pytest.raises(ConfigError, match="odd"):
        Stft(size=64, hop=15, padding=Padding.BETWEEN)


def test_too_few_samples_to_mirror_are_refused():
    with pytest.raises(AudioError, match="at least 33"):
        EVERY[0](jnp.zeros(32))


@pytest.mark.parametrize("stft", EVERY, ids=str)
@pytest.mark.parametrize("portions", [(11,), (1,) * 11, (4, 0, 6, 1)], ids=str)
def test_frames_that_come_in_portions_add_up_to_the_inverse(stft, portions):
    spectrum = random_phase(jax.random.key(0), (11, stft.bins))
    frames = np.asarray(stft.windowed(spectrum))
    whole = stft.inverse(spectrum)
    overlap, made, at = OverlapAdd(stft), [], 0
    for portion in portions:
        made.append(overlap.add(frames[at : at + portion]))
        at += portion
        # Nothing is held back that no later frame reaches.
        assert sum(map(len, made)) == max(0, min(at * stft.hop - stft.margin, stft.samples(at)))
    made.append(overlap.finish(stft.samples(11)))
    np.testing.assert_allclose(np.concatenate(made), whole, atol=8 * np.finfo(np.float32).eps * abs(whole).max())
    assert len(np.concatenate(made)) == stft.samples(11)


def test_what_no_frame_reaches_is_silent():
    overlap = OverlapAdd(EVERY[0])
    overlap.add(np.ones((3, EVERY[0].size), np.float32))
    rest = overlap.finish(1000)
    assert len(rest) + max(0, 3 * EVERY[0].hop - EVERY[0].margin) == 1000
    assert not rest[-100:].any()
