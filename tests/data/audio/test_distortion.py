import itertools
import math

import numpy as np
import pytest

from cupola.core.errors import AudioError, ConfigError
from cupola.data.audio.distortion import aligned, mel_cepstra, mel_cepstral_distortion
from cupola.data.audio.features import WHISPER, LogMel
from cupola.data.audio.mel import MelFilters
from cupola.data.audio.spectrum import Stft

FRONT = LogMel(rate_hz=8_000, stft=Stft(size=256, hop=64), mel=MelFilters(bins=20, low_hz=0.0, high_hz=4000.0))


def drawn(frames, seed=0, bins=20):
    return np.random.default_rng(seed).normal(size=(frames, bins)).astype(np.float32)


def dearest(far):
    """The least sum over every way there is, by trying all: recursion over the last step."""
    rows, columns = far.shape
    best = {}
    for i, j in itertools.product(range(rows), range(columns)):
        before = [best[step] for step in ((i - 1, j - 1), (i - 1, j), (i, j - 1)) if step in best]
        best[i, j] = far[i, j] + min(before, default=0.0)
    return best[rows - 1, columns - 1]


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 5), (5, 1), (7, 4), (4, 7), (6, 6)])
def test_the_way_is_the_least_and_goes_on_by_steps(rows, columns):
    one, other = drawn(rows, 1, 3), drawn(columns, 2, 3)
    first, second = aligned(one, other)
    assert (first[0], second[0], first[-1], second[-1]) == (0, 0, rows - 1, columns - 1)
    moves = set(zip(np.diff(first), np.diff(second), strict=True))
    assert moves <= {(1, 1), (1, 0), (0, 1)}
    far = np.linalg.norm(one[:, None] - other[None], axis=-1)
    assert far[first, second].sum() == pytest.approx(dearest(far), rel=1e-6)


def test_an_utterance_is_at_nothing_from_itself_whatever_its_tempo_and_level():
    one = drawn(30)
    assert mel_cepstral_distortion(one, one, FRONT) == pytest.approx(0, abs=1e-4)
    slower = np.repeat(one, [1 + i % 3 for i in range(30)], axis=0)
    assert mel_cepstral_distortion(one, slower, FRONT) == pytest.approx(0, abs=1e-4)
    assert mel_cepstral_distortion(one, one + 1.5, FRONT) == pytest.approx(0, abs=1e-4)
    # The control: another utterance, and the same backwards.
    assert mel_cepstral_distortion(one, drawn(30, 1), FRONT) > 1
    assert mel_cepstral_distortion(one, one[::-1], FRONT) > 1


def test_order_does_not_matter():
    one, other = drawn(20), drawn(27, 1)
    there, back = (mel_cepstral_distortion(*pair, FRONT) for pair in ((one, other), (other, one)))
    assert there == pytest.approx(back, rel=1e-6)


def test_it_is_the_distance_in_db_of_what_the_coefficients_say():
    """A ripple over the bins of so many dB is so many dB, as the root of the mean of squares."""
    ripple_db = 3.0
    wave = np.cos(np.pi * 4 * (np.arange(20) + 0.5) / 20)
    far = ripple_db * math.sqrt(2) * wave * math.log(10) / 20  # of amplitudes, in nats
    one = drawn(10)
    assert mel_cepstral_distortion(one, one + far.astype(np.float32), FRONT) == pytest.approx(ripple_db, rel=1e-3)
    finer = np.cos(np.pi * 15 * (np.arange(20) + 0.5) / 20).astype(np.float32)
    assert mel_cepstral_distortion(one, one + finer, FRONT) == pytest.approx(0, abs=1e-3)  # beyond 13


def test_coefficients_rebuild_the_logarithms():
    one = drawn(5)
    every = mel_cepstra(one, FRONT, coefficients=19)
    angles = np.pi * np.outer(np.arange(1, 20), np.arange(20) + 0.5) / 20
    rebuilt = every @ np.cos(angles) + one.mean(1, keepdims=True)
    np.testing.assert_allclose(rebuilt, one, atol=1e-5)


def test_of_power_in_decimal_logarithms_the_same_is_measured():
    """Whisper's front end keeps log10 of power over 4: a ripple of 3 dB is 3 dB there too."""
    wave = np.cos(np.pi * 4 * (np.arange(80) + 0.5) / 80)
    one = drawn(6, bins=80) / 8
    far = (3.0 * math.sqrt(2) * wave / 10 / 4).astype(np.float32)
    assert mel_cepstral_distortion(one, one + far, WHISPER) == pytest.approx(3.0, rel=1e-2)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (drawn(3)[:, :5], r"features of shape \(3, 5\)\nGive \[T, 20\]"),
        (drawn(0), r"features of shape \(0, 20\)"),
        (np.full((3, 20), np.nan, np.float32), "not finite\nWhat made them has diverged"),
    ],
)
def test_what_is_no_utterance_is_refused(features, message):
    with pytest.raises(AudioError, match=message):
        mel_cepstra(features, FRONT)
    with pytest.raises(ConfigError, match="20 coefficients of 20 bins\nUse 1 to 19"):
        mel_cepstra(drawn(3), FRONT, coefficients=20)
