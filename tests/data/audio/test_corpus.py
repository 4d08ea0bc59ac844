import json

import numpy as np
import pytest

from cupola.core.errors import AudioError, DataError
from cupola.data.audio.clip import Clip
from cupola.data.audio.corpus import SpeechCorpus, Spoken
from cupola.data.audio.features import LogMel
from cupola.data.audio.files import write
from cupola.data.audio.mel import MelFilters
from cupola.data.audio.prepared import Preparation
from cupola.data.audio.recordings import Utterance
from cupola.data.audio.spectrum import Stft

pytest.importorskip("soundfile")
FRONT = LogMel(rate_hz=8_000, stft=Stft(size=256, hop=64), mel=MelFilters(bins=20, low_hz=0.0, high_hz=4000.0))
PREPARATION = Preparation(front=FRONT)


@pytest.fixture
def utterances(tmp_path):
    """Three tones, the second of another rate."""
    made = []
    for number, rate in enumerate((8_000, 4_000, 8_000)):
        tone = 0.3 * np.sin(2 * np.pi * 300 * (number + 1) * np.arange(rate) / rate)
        path = tmp_path / f"{number}.wav"
        write(Clip(tone.astype(np.float32), rate), path)
        made.append(Utterance(str(number), path, f"tone {number}"))
    return made


def silence(path):
    write(Clip(np.zeros(8_000, np.float32), 8_000), path)


def test_what_was_prepared_is_found_by_its_list_without_the_recordings(utterances, tmp_path):
    told = []
    made = SpeechCorpus.prepare(utterances, PREPARATION, tmp_path / "kept", told.append)
    assert told == ["1 recordings at 4,000 Hz were resampled to 8,000 Hz, and hold nothing above 2 kHz"]
    before = [np.array(sound.features) for sound in made.sounds()]
    for each in utterances:
        each.path.unlink()
    again = SpeechCorpus.parse(made.text(), PREPARATION, tmp_path / "kept", where=tmp_path)
    assert again == made
    assert again.fingerprint == made.fingerprint
    for one, other in zip(before, again.sounds(), strict=True):
        np.testing.assert_array_equal(one, other.features)
    assert made.where([True, False, True]).fingerprint != made.fingerprint


def test_every_recording_that_cannot_be_used_is_named(utterances, tmp_path):
    silence(utterances[0].path)
    utterances[2].path.write_bytes(b"no sound")
    message = r"2 of 3 recordings cannot be used: 0.wav: 1.0 s of silence.*; 2.wav: no sound.*\nMend them, or take"
    with pytest.raises(AudioError, match=message):
        SpeechCorpus.prepare(utterances, PREPARATION, tmp_path / "kept", str)


def test_what_is_gone_is_noticed(utterances, tmp_path):
    made = SpeechCorpus.prepare(utterances, PREPARATION, tmp_path / "kept", str)
    (tmp_path / "kept" / made.utterances[1].kept / "features.npy").unlink()
    with pytest.raises(DataError, match="1 of 3 prepared recordings are gone or damaged, such as 1"):
        made.sounds()


def test_a_line_that_is_none_is_named(tmp_path):
    lines = json.dumps({"name": "a", "text": "b", "kept": "c"}) + "\n{}\n"
    with pytest.raises(DataError, match="list.jsonl:2: is no line of a list"):
        SpeechCorpus.parse(lines, PREPARATION, tmp_path, where=tmp_path / "list.jsonl")
    only = SpeechCorpus.parse(lines.splitlines()[0], PREPARATION, tmp_path, where=tmp_path)
    assert only.utterances == (Spoken("a", "b", "c"),)
