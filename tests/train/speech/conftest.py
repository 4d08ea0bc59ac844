"""Speech that is quickly learned: each letter is a tone of three frames, and so is the end."""

import numpy as np
import pytest

from cupola.core.dtype import FLOAT32
from cupola.data.audio.clip import Clip
from cupola.data.audio.features import Compression, LogMel
from cupola.data.audio.files import write
from cupola.data.audio.mel import MelFilters
from cupola.data.audio.prepared import Preparation
from cupola.data.audio.spectrum import Stft
from cupola.layers.dropout import Dropout
from cupola.models.speech.decoder import FrameDecoder
from cupola.models.speech.encoder import Encoder
from cupola.models.speech.generate import Speaking
from cupola.models.speech.loss import Objective
from cupola.models.speech.tacotron import PostNet, Tacotron2
from cupola.optim.learner import Learner
from cupola.optim.optimizer import Adam
from cupola.optim.schedule import WSD
from cupola.train.experiment import Saving, Steps
from cupola.train.speech.data import SpeechData
from cupola.train.speech.evaluate import SpeechEvaluation
from cupola.train.speech.training import TextToSpeech

RATE, HOP, EACH = 8_000, 80, 3
TEXTS = ("bad", "face", "cage", "head", "fade", "cab", "beach", "aged", "bead", "chef")
HELD_OUT = 0.2
"""Of these names, those of words 7 and 8 fall below it."""


def tone(letter: str) -> np.ndarray:
    hertz = 3200 if letter == "." else 250 * 1.35 ** (ord(letter) - ord("a"))
    return 0.4 * np.sin(2 * np.pi * hertz * np.arange(EACH * HOP) / RATE)


def record(folder, texts=TEXTS, rate=RATE):
    """Writes a folder in the form of LJSpeech."""
    (folder / "wavs").mkdir(parents=True)
    for number, text in enumerate(texts):
        sound = np.concatenate([tone(letter) for letter in f"{text}."]).astype(np.float32)
        write(Clip(sound, RATE).at_rate(rate), folder / "wavs" / f"word-{number}.wav")
    lines = "".join(f"word-{number}|{text}\n" for number, text in enumerate(texts))
    (folder / "metadata.csv").write_text(lines)
    return folder


@pytest.fixture(scope="session")
def recorded():
    pytest.importorskip("soundfile")
    return record


@pytest.fixture(scope="session")
def recordings(recorded, tmp_path_factory):
    """The folder of ten words; to be read only."""
    return recorded(tmp_path_factory.mktemp("speech") / "words")


@pytest.fixture(scope="session")
def speech(recordings):
    """Makes the training of a tiny model; changes are given as path=value pairs."""
    front = LogMel(
        rate_hz=RATE,
        stft=Stft(size=256, hop=HOP, window=160),
        mel=MelFilters(bins=20, low_hz=100.0, high_hz=3900.0),
        compression=Compression(floor=1e-3),
    )

    def make(**changes):
        made = TextToSpeech(
            name="tiny",
            model=Tacotron2(
                bins=20,
                encoder=Encoder(width=32, layers=2, dropout=Dropout(rate=0.1)),
                decoder=FrameDecoder(
                    pre_net=16, hidden=48, attention=16, filters=8, taps=7, pre_net_dropout=Dropout(rate=0.2)
                ),
                post_net=PostNet(width=16, layers=3, dropout=Dropout(rate=0.1)),
            ),
            data=SpeechData(
                path=str(recordings),
                held_out=HELD_OUT,
                preparation=Preparation(front=front, trim_below_db=None, peak=None),
                batch=8,
                buckets=1,
                multiple=32,
            ),
            objective=Objective(guided=1.0, last=5.0),
            learner=Learner(optimizer=Adam(rate=4e-3, b2=0.99, decay=1e-6, schedule=WSD(decay=0.5))),
            budget=Steps(steps=4),
            precision=FLOAT32,
            evaluation=SpeechEvaluation(times=1, batch=4, spoken=1, spoken_at_end=2),
            saving=Saving(every_steps=2, every_seconds=None),
            speaking=Speaking(most_frames=40, chunk_frames=40),
        )
        for path, value in changes.items():
            made = made.replace(path.replace("__", "."), value)
        return made

    return make
