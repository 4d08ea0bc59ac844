"""Frames that a model predicts of recordings: aligned with them, made once, and what a vocoder learns from."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cupola.core.context import Context
from cupola.core.dtype import FLOAT32
from cupola.core.errors import ConfigError, DataError, TrainingError
from cupola.data.audio.clip import Clip
from cupola.data.audio.corpus import SpeechCorpus
from cupola.data.audio.features import LogMel
from cupola.data.audio.files import write
from cupola.data.audio.mel import MelFilters
from cupola.data.audio.prepared import Preparation
from cupola.data.audio.recordings import Recordings
from cupola.data.audio.spectrum import Stft
from cupola.data.sources import Split
from cupola.models.speech.decoder import FrameDecoder
from cupola.models.speech.encoder import Encoder
from cupola.models.speech.spectral_loss import SpectralLoss
from cupola.models.speech.tacotron import PostNet, Tacotron2
from cupola.models.speech.vocos import Vocos
from cupola.optim.learner import Learner
from cupola.optim.optimizer import AdamW
from cupola.train.experiment import Steps
from cupola.train.folder import RunFolder
from cupola.train.speech.data import SpeechData
from cupola.train.speech.evaluate import SpeechEvaluation
from cupola.train.speech.predicted import predict, predictions
from cupola.train.speech.training import TextToSpeech
from cupola.train.speech.vocoder import VocosTraining
from cupola.train.speech.vocoder_data import SoundData
from cupola.train.speech.vocoder_score import VocoderEvaluation
from cupola.train.speech.voice import load_voice
from cupola.train.task import prepare

FRONT = LogMel(rate_hz=8000, stft=Stft(size=128, hop=32), mel=MelFilters(bins=16, low_hz=0.0, high_hz=4000.0))
PREPARATION = Preparation(front=FRONT)
WORDS = ("one", "two words", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Words that hum, of unequal lengths."""
    folder = tmp_path_factory.mktemp("said")
    (folder / "wavs").mkdir()
    for number, word in enumerate(WORDS):
        time = np.arange(1600 + 300 * len(word)) / 8000
        write(Clip(np.sin(900 * (1 + number) * time).astype(np.float32), 8000), folder / "wavs" / f"w-{number}.wav")
    (folder / "metadata.csv").write_text("".join(f"w-{i}|{word}\n" for i, word in enumerate(WORDS)))
    return folder


@pytest.fixture(scope="module")
def spoken(recordings, tmp_path_factory, whole_run):
    """The folder of a run that has taught a tiny model a little."""
    made = TextToSpeech(
        name="spoken",
        model=Tacotron2(
            bins=16,
            encoder=Encoder(width=8, layers=1),
            decoder=FrameDecoder(pre_net=8, hidden=8, attention=8, filters=2, taps=3),
            post_net=PostNet(width=8, layers=2),
        ),
        data=SpeechData(path=str(recordings), held_out=0.2, preparation=PREPARATION, batch=4, buckets=1),
        learner=Learner(optimizer=AdamW(rate=3e-3)),
        budget=Steps(steps=3),
        precision=FLOAT32,
        evaluation=SpeechEvaluation(times=0, spoken=1, spoken_at_end=1),
    )
    place = RunFolder.create(tmp_path_factory.mktemp("runs"), made)
    whole_run(made, place)
    return place


@pytest.fixture
def corpus(recordings, tmp_path):
    return SpeechCorpus.prepare(Recordings(path=str(recordings)).utterances(), PREPARATION, tmp_path / "prepared", str)


@pytest.mark.parametrize("frames_per_step", [1, 3])
def test_they_are_the_models_with_the_true_frames_at_hand(spoken, corpus, frames_per_step):
    voice, params = load_voice(spoken)
    if frames_per_step > 1:
        voice = voice.replace("model.decoder.frames_per_step", frames_per_step)
        params = {"model": voice.model.init(jax.random.key(0))}
    # With no dropout left, what it says of one does not depend on the others of its batch.
    voice = voice.replace("model.decoder.pre_net_dropout.rate", 0.0)
    made = predict(voice, params, corpus)
    for each, sound, frames in zip(corpus.utterances, corpus.sounds(), made, strict=True):
        assert frames.shape == sound.features.shape
        ids = jnp.asarray(voice.symbols.encode(each.text))[None]
        features = jnp.asarray(sound.features)[None]
        counts = [jnp.asarray([x.shape[1]]) for x in (ids, features)]
        alone = voice.model(
            params["model"], ids, counts[0], features, counts[1], context=Context(key=jax.random.key(0))
        )
        np.testing.assert_allclose(frames, alone.after[0], rtol=1e-4, atol=1e-4)
    # The control: they are no copies.
    assert all(abs(x - sound.features).max() > 0.1 for x, sound in zip(made, corpus.sounds(), strict=True))


def test_they_are_made_once(spoken, corpus, tmp_path):
    run, notes = str(shutil.copytree(spoken.path, tmp_path / "run")), []
    first = predictions(run, corpus, tmp_path / "kept", notes.append)
    assert notes == [f"predicted the frames of 10 recordings with {run}"]
    shutil.rmtree(run)
    for again, frames in zip(predictions(run, corpus, tmp_path / "kept", notes.append), first, strict=True):
        np.testing.assert_array_equal(again, frames)
    assert len(notes) == 1
    file = next(iter((tmp_path / "kept").iterdir()))
    np.save(file, np.zeros((3, 16), np.float32))
    with pytest.raises(DataError, match="3 frames are kept for w-"):
        predictions(run, corpus, tmp_path / "kept", notes.append)
    file.unlink()
    with pytest.raises(TrainingError, match="there is no run here"):
        predictions(run, corpus, tmp_path / "kept", notes.append)


def test_another_front_end_is_refused(spoken, corpus, tmp_path):
    other = SpeechCorpus(corpus.utterances, corpus.folder, PREPARATION.replace("front.mel.high_hz", 3900.0))
    with pytest.raises(
        ConfigError, match="data.predictions: the run .* makes other frames than data.preparation.front"
    ):
        predictions(str(spoken.path), other, tmp_path / "kept", str)


def test_a_vocoder_learns_from_them_beside_the_true_sound(spoken, recordings, folder):
    made = VocosTraining(
        name="tiny",
        model=Vocos(width=8, hidden=8, layers=1, taps=3),
        data=SoundData(
            path=str(recordings),
            held_out=0.2,
            preparation=PREPARATION,
            predictions=str(spoken.path),
            batch=2,
            segment_frames=16,
        ),
        learner=Learner(optimizer=AdamW(rate=1e-3)),
        objective=SpectralLoss(),
        budget=Steps(steps=1),
        evaluation=VocoderEvaluation(clips=1),
    )
    task = prepare(made, folder(made), str)
    plain = made.replace("data.predictions", None)
    own = prepare(plain, folder(plain, "own"), str)
    for side in (Split.TRAIN, Split.HELD_OUT):
        for predicted, true in zip(task.sounds(side), own.sounds(side), strict=True):
            np.testing.assert_array_equal(predicted.samples, true.samples)
            assert predicted.features.shape == true.features.shape
            assert (predicted.features != true.features).any()
    batch, beside = task.segments()[0], own.segments()[0]
    np.testing.assert_array_equal(batch.samples, beside.samples)
    assert (batch.features != beside.features).any()
