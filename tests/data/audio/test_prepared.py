"""Prepared recordings: made once, mapped again, made anew when the file or the preparation changes."""

import os

import numpy as np
import pytest

from cupola.core.errors import AudioError
from cupola.data.audio.clip import Clip
from cupola.data.audio.features import LogMel
from cupola.data.audio.files import write
from cupola.data.audio.mel import MelFilters
from cupola.data.audio.prepared import Preparation
from cupola.data.audio.spectrum import Stft

pytest.importorskip("soundfile")
FRONT = LogMel(rate_hz=8_000, stft=Stft(size=256, hop=64), mel=MelFilters(bins=20, low_hz=0.0, high_hz=4000.0))
PREPARATION = Preparation(front=FRONT)


@pytest.fixture
def recording(tmp_path):
    times = np.arange(8_000) / 16_000
    samples = np.pad(0.1 * np.sin(2 * np.pi * 300 * times), 8_000).astype(np.float32)
    write(Clip(samples, 16_000), tmp_path / "a.wav")
    return tmp_path / "a.wav"


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_resampled_trimmed_and_levelled(recording):
    made = PREPARATION.prepare(recording)
    clip = made.clip(8_000)
    assert 0.5 < clip.seconds < 0.7
    assert clip.peak == pytest.approx(0.95, abs=1e-4)
    np.testing.assert_array_equal(made.features, FRONT.of(clip))
    as_it_is = Preparation(front=FRONT, trim_below_db=None, peak=None).prepare(recording)
    assert len(as_it_is.samples) == 12_000
    assert as_it_is.clip(8_000).peak == pytest.approx(0.1, abs=1e-2)


def test_kept_and_mapped_again(recording, tmp_path):
    cache = tmp_path / "cache"
    first = PREPARATION.kept(recording, cache)
    stamps = {path: path.stat().st_mtime_ns for path in files(cache)}
    again = PREPARATION.kept(recording, cache)
    assert isinstance(again.features, np.memmap)
    assert len(stamps) == 2
    assert {path: path.stat().st_mtime_ns for path in files(cache)} == stamps
    direct = PREPARATION.prepare(recording)
    for name in ("samples", "features"):
        np.testing.assert_array_equal(getattr(first, name), getattr(direct, name))
        np.testing.assert_array_equal(getattr(again, name), getattr(direct, name))


def test_made_anew_for_another_preparation_or_file(recording, tmp_path):
    cache = tmp_path / "cache"
    before = PREPARATION.kept(recording, cache)
    other = PREPARATION.replace("front.mel.bins", 10).kept(recording, cache)
    assert other.features.shape[1] == 10
    told = recording.stat()
    write(
        Clip(np.full(8_000, 0.3, np.float32) * np.sign(np.sin(np.arange(8_000) / 5)).astype(np.float32), 8_000),
        recording,
    )
    os.utime(recording, ns=(told.st_atime_ns, told.st_mtime_ns + 1))
    assert len(PREPARATION.kept(recording, cache).samples) != len(before.samples)


def test_what_was_broken_off_is_made_anew(recording, tmp_path):
    cache = tmp_path / "cache"
    PREPARATION.kept(recording, cache)
    features = next(path for path in files(cache) if path.name == "features.npy")
    features.unlink()
    assert len(PREPARATION.kept(recording, cache).features)


def test_silence_and_what_is_missing_are_refused_by_name(tmp_path):
    write(Clip(np.zeros(8_000, np.float32), 8_000), tmp_path / "none.wav")
    with pytest.raises(AudioError, match="1.0 s of silence") as caught:
        PREPARATION.prepare(tmp_path / "none.wav")
    assert caught.value.where == str(tmp_path / "none.wav")
    with pytest.raises(AudioError, match="cannot be read"):
        PREPARATION.kept(tmp_path / "nothing.wav", tmp_path / "cache")
