"""Clips: rate, level and length change as asked, and what holds no sound is refused."""

import numpy as np
import pytest

from cupola.core.errors import AudioError, ConfigError
from cupola.data.audio.clip import Clip


def tone(hz=440.0, *, rate_hz=16_000, seconds=1.0, peak=0.5):
    times = np.arange(round(rate_hz * seconds)) / rate_hz
    return Clip((peak * np.sin(2 * np.pi * hz * times)).astype(np.float32), rate_hz)


def with_silence(clip, before, after):
    around = round(before * clip.rate_hz), round(after * clip.rate_hz)
    return Clip(np.pad(clip.samples, around), clip.rate_hz)


SILENCE = Clip(np.zeros(8000, np.float32), 8000)


@pytest.mark.parametrize(
    ("samples", "said"), [([], "no samples"), ([0, np.nan], "sample 1 is nan"), ([np.inf], "sample 0 is inf")]
)
def test_what_is_no_sound_is_refused(samples, said):
    with pytest.raises(AudioError, match=said):
        Clip(np.asarray(samples, np.float32), 8000)


def test_a_rate_must_be_one():
    with pytest.raises(ConfigError):
        Clip(np.zeros(1, np.float32), 0)
    with pytest.raises(ConfigError):
        tone().at_rate(-1)


@pytest.mark.parametrize("rate_hz", [8_000, 22_050, 24_000])
def test_resampling_is_the_same_tone_at_another_rate(rate_hz):
    made, wanted = tone().at_rate(rate_hz), tone(rate_hz=rate_hz)
    assert made.rate_hz == rate_hz
    assert len(made.samples) == len(wanted.samples)
    inside = slice(rate_hz // 10, -rate_hz // 10)  # a filter rings where the tone is cut
    assert np.abs(made.samples - wanted.samples)[inside].max() < 2**-15


def test_resampling_takes_away_what_the_rate_cannot_hold():
    assert np.abs(tone(7_000.0).at_rate(8_000).samples[400:-400]).max() < 2**-15


def test_peak():
    assert tone().at_peak(0.9).peak == pytest.approx(0.9, rel=1e-6)


# A sine of full scale at 997 Hz has -3.01 LUFS, says BS.1770; 1 kHz at 48 kHz is where its filters are given.
@pytest.mark.parametrize("rate_hz", [44_100, 48_000])
def test_loudness_of_the_standards_own_tone(rate_hz):
    assert tone(997.0, rate_hz=rate_hz, seconds=3, peak=1.0).loudness_lufs() == pytest.approx(-3.01, abs=0.01)


def test_silence_around_and_a_whisper_do_not_count_as_loudness():
    loud = tone(997.0, seconds=4)
    quiet = Clip(np.concatenate([loud.samples, 1e-3 * loud.samples]), loud.rate_hz)
    # 37 blocks are full, and six at the ends hold 3 blocks' worth between them.
    at_ends_db = 10 * np.log10(40 / 43)
    assert with_silence(loud, 3, 3).loudness_lufs() == pytest.approx(loud.loudness_lufs() + at_ends_db, abs=0.01)
    assert quiet.loudness_lufs() == pytest.approx(loud.loudness_lufs(), abs=0.3)


def test_loudness_is_reached_unless_the_peak_would_be_passed():
    made = tone(seconds=2).at_loudness(-30.0)
    assert made.loudness_lufs() == pytest.approx(-30, abs=0.01)
    assert tone(seconds=2).at_loudness(3.0).peak == pytest.approx(1, rel=1e-6)
    assert tone(seconds=0.1).at_loudness(-30.0).loudness_lufs() == pytest.approx(-30, abs=0.01)


def test_trimming_takes_the_silence_at_the_ends_and_keeps_the_pause_inside():
    word = with_silence(tone(seconds=0.5), 0, 0.4)
    spoken = with_silence(Clip(np.tile(word.samples, 2), word.rate_hz), 1.0, 0.7)
    trimmed = spoken.trimmed(keep_seconds=0.05)
    assert trimmed.seconds == pytest.approx(0.5 + 0.4 + 0.5 + 2 * 0.05, abs=0.05)
    assert np.isin(np.abs(tone().samples).max(), np.abs(trimmed.samples))
    assert trimmed.trimmed(keep_seconds=0.05).seconds == pytest.approx(trimmed.seconds, abs=0.02)


def test_noise_far_below_is_silence():
    noise = np.random.default_rng(0).standard_normal(16_000).astype(np.float32) * 1e-4
    noisy = Clip(with_silence(tone(seconds=0.4), 0.3, 0.3).samples + noise, 16_000)
    assert noisy.trimmed(keep_seconds=0.0).seconds == pytest.approx(0.4, abs=0.05)
    assert noisy.trimmed(below_db=120.0).seconds == noisy.seconds


@pytest.mark.parametrize("change", ["at_peak", "at_loudness", "trimmed", "loudness_lufs"])
def test_silence_is_refused(change):
    assert SILENCE.is_silent
    with pytest.raises(AudioError, match="1.0 s of silence"):
        getattr(SILENCE, change)()
