"""What any vocoder promises; Griffin-Lim stands for those that need all frames before they begin."""

import numpy as np
import pytest

from cupola.core.errors import AudioError
from cupola.data.audio.features import LogMel
from cupola.data.audio.griffin_lim import GriffinLim
from cupola.data.audio.mel import MelFilters
from cupola.data.audio.spectrum import Stft
from cupola.data.audio.vocoder import Vocoder

FRONT = LogMel(rate_hz=8_000, stft=Stft(size=256, hop=64), mel=MelFilters(bins=20, low_hz=0.0, high_hz=4000.0))
VOCODER = GriffinLim(front=FRONT, steps=2, inverse_steps=2)
FEATURES = np.random.default_rng(0).normal(-3, 1, (12, 20)).astype(np.float32)


def test_what_is_streamed_is_what_is_made_at_once():
    made = VOCODER.of(FEATURES, params=VOCODER.specs())
    (streamed,) = VOCODER.stream(iter([FEATURES[:5], FEATURES[5:]]), params=VOCODER.specs())
    np.testing.assert_array_equal(streamed, made.samples)
    assert len(made.samples) == FRONT.samples(12)
    assert not list(VOCODER.stream(iter([]), params={}))


def test_the_seed_decides():
    def streamed(seed):
        return next(VOCODER.stream([FEATURES], params={}, seed=seed))

    np.testing.assert_array_equal(streamed(1), streamed(1))
    assert (streamed(1) != streamed(2)).any()


def test_it_has_no_parameters_and_is_a_vocoder():
    assert VOCODER.specs() == {}
    assert isinstance(VOCODER, Vocoder)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (FEATURES[:, :19], r"features of shape \(12, 19\)"),
        (FEATURES[:0], r"features of shape \(0, 20\)"),
        (np.where(FEATURES > -3, FEATURES, np.nan), "features that are not finite\nWhat made them has diverged"),
    ],
)
def test_features_of_another_form_are_refused(features, message):
    with pytest.raises(AudioError, match=message):
        VOCODER.of(features)
    with pytest.raises(AudioError, match=message.split("\n")[0]):
        list(VOCODER.stream([features], params={}))
