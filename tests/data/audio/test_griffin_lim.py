"""Griffin-Lim: magnitudes that make the bins, phases that agree, sound of the right length and pitch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cupola.core.errors import AudioError, ConfigError
from cupola.data.audio.clip import Clip
from cupola.data.audio.features import WHISPER, LogMel
from cupola.data.audio.griffin_lim import GriffinLim
from cupola.data.audio.mel import MelFilters
from cupola.data.audio.spectrum import Stft

FRONT = LogMel(rate_hz=8_000, stft=Stft(size=256, hop=64), mel=MelFilters(bins=40, low_hz=0.0, high_hz=4000.0))


def voice(seconds=0.6, rate_hz=8_000):
    times = np.arange(round(rate_hz * seconds)) / rate_hz
    glide = 2 * np.pi * (150 * times + 60 * times**2)
    return Clip((sum(np.sin(k * glide) / k for k in range(1, 12)) * 0.2).astype(np.float32), rate_hz)


def disagreement(vocoder, made, features):
    """How far the magnitudes of a sound are from those of features, relative to these."""
    wanted = vocoder.magnitudes(vocoder.front.compression.inverse(jnp.asarray(features)))
    found = jnp.abs(vocoder.front.stft(jnp.asarray(made.samples)))[: len(wanted)]
    return float(jnp.linalg.norm(found - wanted) / jnp.linalg.norm(wanted))


@pytest.mark.parametrize("front", [FRONT, WHISPER], ids=["magnitude", "power"])
def test_magnitudes_make_the_bins_they_came_from(front):
    features = front.of(voice(rate_hz=front.rate_hz))
    vocoder = GriffinLim(front=front)
    mel = front.compression.inverse(jnp.asarray(features))
    found = vocoder.magnitudes(mel)
    assert found.min() >= 0
    bins = found**front.spectrum.value @ jnp.asarray(front.filters().T, jnp.float32)
    assert float(jnp.linalg.norm(bins - mel) / jnp.linalg.norm(mel)) < 1e-3
    # Cutting the pseudo-inverse at 0, the start of it, is far from that.
    started = jnp.maximum(mel @ jnp.asarray(np.linalg.pinv(front.filters()).T, jnp.float32), 0)
    assert float(jnp.linalg.norm(started @ jnp.asarray(front.filters().T, jnp.float32) - mel)) > 10 * float(
        jnp.linalg.norm(bins - mel)
    )


def test_more_steps_agree_better_and_momentum_is_faster():
    features = FRONT.of(voice())
    told = {}
    for steps, momentum in [(0, 0.99), (30, 0.0), (30, 0.99)]:
        vocoder = GriffinLim(front=FRONT, steps=steps, momentum=momentum)
        told[steps, momentum] = disagreement(vocoder, vocoder.of(features), features)
    assert told[30, 0.99] < told[30, 0.0] < 0.5 * told[0, 0.99]


@pytest.mark.parametrize("front", [FRONT, WHISPER], ids=["magnitude", "power"])
def test_the_sound_has_the_length_and_the_features(front):
    clip = voice(rate_hz=front.rate_hz)
    features = front.of(clip)
    made = GriffinLim(front=front, steps=30).of(features)
    assert made.rate_hz == front.rate_hz
    assert front.frames(len(made.samples)) == len(features)
    assert abs(len(made.samples) - len(clip.samples)) < front.stft.hop
    again = front.of(made)
    spread = np.abs(features - features.mean()).mean()
    assert np.abs(again - features).mean() < 0.2 * spread


def test_the_same_key_gives_the_same_sound():
    features = FRONT.of(voice(0.2))
    vocoder = GriffinLim(front=FRONT, steps=3)
    np.testing.assert_array_equal(vocoder.of(features).samples, vocoder.of(features).samples)
    assert (vocoder.of(features, seed=1).samples != vocoder.of(features).samples).any()


def test_a_batch_is_its_rows():
    features = jnp.asarray(np.stack([FRONT.of(voice(0.2))] * 2))
    made = GriffinLim(front=FRONT, steps=0)(features, jax.random.key(0))
    assert made.shape == (2, FRONT.samples(features.shape[1]))


@pytest.mark.parametrize("features", [np.zeros((5, 39), np.float32), np.zeros((0, 40), np.float32)], ids=str)
def test_features_of_another_front_end_are_refused(features):
    with pytest.raises(AudioError, match="features of shape"):
        GriffinLim(front=FRONT).of(features)


def test_features_that_are_not_finite_are_refused():
    with pytest.raises(AudioError, match="not finite"):
        GriffinLim(front=FRONT).of(np.full((5, 40), np.nan, np.float32))


def test_options_that_cannot_be_are_refused():
    with pytest.raises(ConfigError):
        GriffinLim(front=FRONT, momentum=1.5)
