import numpy as np
import pytest

from cupola.config.override import override
from cupola.core.errors import ConfigError, DataError
from cupola.data.audio.clip import Clip
from cupola.data.audio.features import TACOTRON2_16K
from cupola.data.audio.files import write
from cupola.data.audio.prepared import Preparation
from cupola.recipes.vocoders import vocos_spectral
from cupola.train.speech.vocoder_data import SoundData

SOUND = Clip(np.sin(np.arange(4000.0)).astype(np.float32), 16_000)
DATA = SoundData(preparation=Preparation(front=TACOTRON2_16K), batch=4)


def at(folder, **fields):
    return SoundData(**{"preparation": DATA.preparation, "batch": 4, "path": str(folder)} | fields)


@pytest.mark.parametrize("inner", ["", "wavs"])
def test_sound_files_alone_are_enough(tmp_path, inner):
    (tmp_path / inner).mkdir(exist_ok=True)
    for name in ("b.flac", "a.wav"):
        write(SOUND, tmp_path / inner / name)
    (tmp_path / inner / "notes.txt").write_text("nothing")
    assert [(each.name, each.text) for each in at(tmp_path).recordings()] == [("a", ""), ("b", "")]


def test_transcripts_are_read_where_there_are_some_and_needed_for_predictions(tmp_path):
    (tmp_path / "wavs").mkdir()
    write(SOUND, tmp_path / "wavs" / "a.wav")
    with pytest.raises(DataError, match="recordings without transcripts"):
        at(tmp_path, predictions="runs/tacotron2").recordings()
    (tmp_path / "metadata.csv").write_text("a|An a.\n")
    for predictions in (None, "runs/tacotron2"):
        (found,) = at(tmp_path, predictions=predictions).recordings()
        assert found.text == "An a."


def test_a_folder_is_named_in_short():
    assert override(vocos_spectral(), ["data=some/folder"]).data.path == "some/folder"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: DATA.recordings(), "data: no recordings are named\nType data=FOLDER"),
        (lambda folder: at(folder / "none").recordings(), "there is no such folder"),
        (lambda folder: at(folder).recordings(), "holds no sound files\nPut files there that end in .wav"),
    ],
)
def test_folders_without_recordings_are_refused(tmp_path, make, message):
    with pytest.raises(DataError, match=message):
        make(tmp_path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch": 0}, "batch: 0 is too few"),
        ({"held_out": 0.0}, "held_out: 0.0 is no share"),
        ({"segment_frames": 3}, "segment_frames: 3 frames are too short for their own spectra\nUse 4 or more"),
    ],
)
def test_sizes_that_cannot_be_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        at("x", **fields)
