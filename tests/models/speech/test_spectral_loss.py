"""Distances of spectra: nothing from itself, deaf to phases, and they lead a sound to another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cupola.core.errors import ConfigError
from cupola.data.audio.features import LogMel
from cupola.data.audio.mel import MelFilters
from cupola.data.audio.spectrum import Stft
from cupola.models.speech.spectral_loss import SpectralLoss, magnitude_distance, mel_distance

FRONT = LogMel(rate_hz=8000, stft=Stft(size=128, hop=32), mel=MelFilters(bins=16, low_hz=0.0, high_hz=4000.0))
BOTH = SpectralLoss(mel=1.0, magnitudes=2.0, stfts=(Stft(size=64, hop=16), Stft(size=128, hop=32)))
TIME = jnp.arange(512.0) / 8000
NOISE = 0.1 * jax.random.normal(jax.random.key(0), (2, 512))


def tone(hz, phase=0.0, level=0.5):
    return level * jnp.sin(2 * jnp.pi * hz * TIME + phase)[None]


def test_a_sound_is_at_no_distance_from_itself():
    loss, parts = BOTH(NOISE, NOISE, FRONT)
    np.testing.assert_array_equal(loss, [0, 0])
    assert set(parts) == {"mel", "magnitudes"}
    # Near it the gradient is finite too.
    assert jnp.isfinite(jax.grad(lambda x: BOTH(x, NOISE, FRONT)[0].sum())(NOISE)).all()
    assert jnp.isfinite(jax.grad(lambda x: BOTH(x, NOISE, FRONT)[0].sum())(0 * NOISE)).all()


def test_the_formulas():
    stft = Stft(size=64, hop=16)
    made, true = np.asarray(NOISE), np.asarray(tone(440.0) + NOISE)
    ours, theirs = (np.maximum(np.abs(np.asarray(stft(jnp.asarray(x)), np.complex128)), 1e-5) for x in (made, true))
    expected = [
        np.linalg.norm(b - a) / np.linalg.norm(b) + np.abs(np.log(b) - np.log(a)).mean()
        for a, b in zip(ours, theirs, strict=True)
    ]
    np.testing.assert_allclose(magnitude_distance(jnp.asarray(made), jnp.asarray(true), stft), expected, rtol=1e-4)
    mel = np.abs(np.asarray(FRONT(jnp.asarray(made))) - np.asarray(FRONT(jnp.asarray(true)))).mean((1, 2))
    np.testing.assert_allclose(mel_distance(jnp.asarray(made), jnp.asarray(true), FRONT), mel, rtol=1e-5)
    loss, parts = BOTH(jnp.asarray(made), jnp.asarray(true), FRONT)
    np.testing.assert_allclose(loss, parts["mel"] + 2 * parts["magnitudes"], rtol=1e-5)


def test_phases_do_not_count_and_pitch_does():
    loss = lambda made: float(BOTH(made, tone(1000.0), FRONT)[0][0])  # noqa: E731
    assert loss(tone(1000.0, phase=1.3)) < 0.2 * loss(tone(1100.0))
    assert loss(tone(1000.0, level=0.45)) < 0.2 * loss(tone(1000.0, level=0.1))


def test_a_row_is_measured_by_itself():
    other = jnp.concatenate([tone(500.0), tone(700.0)])
    together, _ = BOTH(other, NOISE, FRONT)
    alone, _ = BOTH(other[1:], NOISE[1:], FRONT)
    np.testing.assert_allclose(together[1:], alone, rtol=1e-5)


def test_it_leads_noise_to_a_tone():
    true = tone(1000.0)
    loss = jax.jit(lambda x: BOTH(x, true, FRONT)[0].sum())
    pull, x = jax.jit(jax.grad(loss)), NOISE[:1]
    start = float(loss(x))
    for i in range(400):
        x = x - 0.01 * (1 - i / 400) * jnp.sign(pull(x))
    assert loss(x) < 0.5 * start


def test_what_does_not_count_is_not_computed():
    _, parts = SpectralLoss()(NOISE, tone(440.0) + 0 * NOISE, FRONT)
    assert set(parts) == {"mel"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mel": 0.0}, "mel: mel=0.0, magnitudes=0.0\nWeights are 0 or more, and one is above 0"),
        ({"magnitudes": -1.0}, "magnitudes=-1.0"),
        ({"magnitudes": 1.0, "stfts": ()}, "stfts: magnitudes=1.0 of no resolutions\nName some"),
    ],
)
def test_what_cannot_be_is_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        SpectralLoss(**fields)
