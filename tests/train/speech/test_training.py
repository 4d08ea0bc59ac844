"""A speaking model through the trainer: it learns to speak by itself, goes on where it stopped, and refuses what it must."""

import contextlib
import json

import jax
import numpy as np
import pytest

from cupola.checkpoint.store import Checkpoints
from cupola.config import text
from cupola.config.override import override
from cupola.core.errors import AudioError, CheckpointError, ConfigError, DataError, MeshError, TextError, TrainingError
from cupola.core.mesh import MeshShape
from cupola.data.audio.clip import Clip
from cupola.data.audio.distortion import mel_cepstral_distortion
from cupola.data.audio.files import read, write
from cupola.data.spoken.symbols import Arpabet
from cupola.models.speech.generate import generate, stream
from cupola.observe.goodput import Ledger
from cupola.train.folder import RunFolder
from cupola.train.interrupt import SIGNALS, Interrupt
from cupola.train.loop import Trainer
from cupola.train.speech.voice import load_voice, voice_of
from cupola.train.state import check_layout
from cupola.train.task import End, prepare


@pytest.fixture
def fit(folder):
    """Trains in a folder to the end of the budget, or until `interrupt` asks; gives (outcome, trainer)."""

    def run(made, *hooks, name="tiny", interrupt=None):
        place = folder(made, name)
        made = made.replace("name", name)
        with place, contextlib.closing(Trainer(prepare(made, place, str), place, hooks, Ledger())) as trainer:
            trainer.resume()
            return trainer.run(interrupt or Interrupt()), trainer

    return run


@pytest.fixture(scope="module")
def learned(speech, tmp_path_factory, whole_run):
    """A run that learned eight words by heart."""
    made = speech(budget__steps=700, saving__every_steps=None)
    place = RunFolder.create(tmp_path_factory.mktemp("learned"), made)
    return place, *whole_run(made, place)


@pytest.mark.slow
def test_it_learns_to_say_eight_words_by_itself(learned):
    """Free-running: the decoder sees its own frames alone. The control: of another word each is far from it."""
    place, summary, _ = learned
    task = prepare(place.experiment(), place, str)
    front, examples = task.experiment.data.front, task.experiment.data.examples(task.train)
    voice, params = load_voice(place)
    symbols = [each.symbols for each in examples]
    said = generate(voice.model, params["model"], symbols, key=jax.random.key(7), speaking=voice.speaking)
    true = [np.asarray(each.sound.features) for each in examples]
    assert len(said) == 8
    for own, frames, ids in zip(said, true, symbols, strict=True):
        assert own.stopped
        assert abs(len(own.features) - len(frames)) <= 1
        looked = own.weights.argmax(1)
        assert (np.diff(looked) >= 0).mean() > 0.95
        assert np.abs(looked / len(ids) - np.arange(len(looked)) / len(looked)).max() < 0.3
    near = [mel_cepstral_distortion(a, b.features, front) for a, b in zip(true, said, strict=True)]
    shuffled = [mel_cepstral_distortion(a, b.features, front) for a, b in zip(true, said[1:] + said[:1], strict=True)]
    assert np.mean(near) < 0.4 * np.mean(shuffled)
    assert max(near) < min(shuffled)
    (whole,) = generate(voice.model, params["model"], symbols[:1], key=jax.random.key(7), speaking=voice.speaking)
    calm = voice.speaking.replace("chunk_frames", 5)
    parts = list(stream(voice.model, params["model"], symbols[0], key=jax.random.key(7), speaking=calm))
    joined = np.concatenate([part.features for part in parts])
    np.testing.assert_allclose(joined, whole.features, atol=1e-4 * abs(whole.features).max())
    assert [part.stopped for part in parts] == [False] * (len(parts) - 1) + [True]
    assert summary["held_out_loss"] > 0


@pytest.mark.slow
def test_the_voice_of_a_run_speaks(learned):
    voice, params = load_voice(learned[0])
    said = voice.say(params, "Bad face, bad cage.")
    assert said.clip.rate_hz == 8_000
    assert said.clip.seconds > 0.3
    assert voice == voice_of(learned[0].experiment())
    assert text.parse(text.show(voice)) == voice


@pytest.mark.slow
def test_a_finished_run_leaves_figures_a_card_and_sound(learned):
    place, summary, printed = learned
    assert json.loads(place.summary.read_text()) == summary
    assert summary["speech"]["utterances"] == 8
    assert summary["held_out_speech"]["utterances"] == 2
    assert {"spoken_distortion_db", "spoken_stopped", "held_out_stop_accuracy", "spoken_monotonicity"} <= summary.keys()
    assert "train: 8 utterances, 0.0 min; held out: 2 utterances" in printed
    assert summary["held_out_after"] < summary["held_out_before"], "the post-net mends"
    card = place.card.read_text()
    assert f"{summary['held_out_before']:.4f}, {summary['held_out_after']:.4f}" in card
    assert "| word-7 | aged |" in card
    assert f"{summary['spoken_distortion_db']:.2f} dB" in card
    clips = {path.name: read(path) for path in (place.path / "samples").iterdir()}
    assert {"word-7-recording.wav", "word-8-recording.wav"} <= clips.keys()
    shown = b"".join(path.read_bytes() for path in place.tensorboard.iterdir())
    assert all(
        name in shown for name in (b"alignment/word-7", b"recording/word-7", b"frames_per_second", b"\x89PNG", b"WAVE")
    )


@pytest.mark.slow
def test_stopped_after_any_step_and_resumed_it_gives_the_same_numbers(fit, seen, folder, speech, recorded, tmp_path):
    """Though the recordings are gone by then: what is prepared stands in the run's folder."""
    moving = recorded(tmp_path / "moving")
    made = speech(data__path=str(moving), budget__steps=5, data__batch=4, data__buckets=2, data__multiple=8)
    whole, losses, ends = seen(), {}, []
    outcome, _ = fit(made, whole, name="whole")
    while not ends or ends[-1] is not End.BUDGET:
        interrupt = Interrupt()
        stop = seen({len(losses) + 2: lambda i=interrupt: setattr(i, "asked", SIGNALS[0])})
        resumed, _ = fit(made, stop, name="stopped", interrupt=interrupt)
        losses |= stop.losses
        ends.append(resumed.end)
        if (moving / "wavs").exists():
            (moving / "wavs").rename(tmp_path / "elsewhere")
    assert len(ends) > 1
    assert losses == whole.losses
    jax.tree.map(np.testing.assert_array_equal, resumed.params, outcome.params)
    assert Checkpoints(folder(made, "stopped").checkpoints).latest() == 5


def test_other_data_is_refused_on_going_on(fit, speech):
    fit(speech(budget__steps=1))
    # Though nothing else would tell: what is prepared is found in the run's folder.
    for change in ({"data__path": "elsewhere"}, {"data__held_out": 0.3}, {"data__symbols": Arpabet()}):
        with pytest.raises(DataError, match=r"data\.\w+: a run that goes on reads what it began with"):
            fit(speech(**change))
    with pytest.raises(DataError, match="bucketing: the saved position has bucketing=.8, 1, 32, 0."):
        fit(speech(budget__steps=2, data__batch=4))


@pytest.mark.slow
def test_the_same_loss_on_a_mesh(fit, seen, speech):
    alone, split = seen(), seen()
    calm = speech(budget__steps=3)
    fit(calm, alone, name="alone")
    _, trainer = fit(calm.replace("mesh", MeshShape(data=2, fsdp=2)), split, name="split")
    assert len(jax.tree.leaves(trainer.state.params)[0].sharding.device_set) == 4
    # Statistics of a batch and sums over frames in another order, three steps long, each after clipping.
    np.testing.assert_allclose(*([done.metrics["loss"] for done in hook.steps] for hook in (split, alone)), rtol=1e-3)
    np.testing.assert_allclose(
        *(list(hook.evaluations[0][1].forced.values()) for hook in (split, alone)), rtol=2e-3, atol=2e-3
    )
    assert abs(np.diff([done.metrics["loss"] for done in alone.steps])).max() > 1e-2  # the measure can fail


def test_a_checkpoint_of_other_sizes_is_refused(fit, speech, folder):
    fit(speech(budget__steps=1))
    wider = speech(model__decoder__hidden=24)
    place = folder(speech())
    place.write(place.config, text.show(wider.replace("name", "tiny")))
    with pytest.raises(CheckpointError, match="decoder"):
        load_voice(place)


def test_the_voice_of_another_run_is_refused(experiment, folder):
    with pytest.raises(TrainingError, match="this run trains a Decoder"):
        load_voice(folder(experiment()))


def test_symbols_decide_how_many_the_model_reads(speech):
    made = speech(data__symbols=Arpabet())
    assert made.model.vocabulary == Arpabet().vocabulary != speech().model.vocabulary
    assert text.parse(text.show(made)) == made
    with pytest.raises(ConfigError, match="vocabulary=7, but the container around it has vocabulary=40"):
        override(speech(), ["model.vocabulary=7"])
    with pytest.raises(ConfigError, match="model.bins: the model makes frames of 21 bins, and the front end of 20"):
        speech(model__bins=21)


def test_what_the_devices_cannot_hold_is_known_before_anything_is_read(speech):
    check_layout(speech(mesh=MeshShape(data=4), data__path="nowhere"))
    with pytest.raises(MeshError, match="evaluation.batch"):
        check_layout(speech(mesh=MeshShape(data=8)))


@pytest.fixture
def prepared(folder, speech, recorded, tmp_path):
    """Prepares the task of a folder of words that was changed."""

    def run(change, **fields):
        words = recorded(tmp_path / "changed")
        change(words)
        told = []
        made = speech(data__path=str(words), **fields)
        return prepare(made.replace("name", "p"), folder(made, "p"), told.append), told

    return run


def silence(words):
    write(Clip(np.zeros(8_000, np.float32), 8_000), words / "wavs" / "word-3.wav")


def replaced(old, new):
    def change(words):
        file = words / "metadata.csv"
        file.write_text(file.read_text().replace(old, new))

    return change


@pytest.mark.parametrize(
    ("change", "fields", "kind", "message"),
    [
        (lambda w: (w / "metadata.csv").unlink(), {}, DataError, "without transcripts: .*\nThe folder holds: wavs"),
        (lambda w: (w / "wavs").rename(w / "sounds"), {}, DataError, "10 of 10 transcripts have no recording"),
        (silence, {}, AudioError, "1 of 10 recordings cannot be used: word-3.wav: .* silence.*\nMend them, or take"),
        (
            replaced("cage", "cжge"),
            {},
            TextError,
            r"1 of 10 transcripts cannot be read, such as that of word-2: 'ж' \(CYRILLIC SMALL LETTER ZHE\)",
        ),
        (replaced("cage", "..."), {}, TextError, "such as that of word-2: there is nothing to say"),
        (str, {"data__held_out": 0.01}, DataError, "held_out=0.01 leaves none of 10 recordings to be measured on"),
        (str, {"data__most_seconds": 0.01}, DataError, "every one of 10 recordings is longer than 0.01 s"),
    ],
)
def test_what_cannot_be_learned_from_is_refused_with_what_to_do(prepared, change, fields, kind, message):
    with pytest.raises(kind, match=message):
        prepared(change, **fields)


def test_a_folder_that_is_not_named_or_not_there_is_said(folder, speech):
    unnamed, gone = speech(data__path=None), speech(data__path="no/such")
    with pytest.raises(DataError, match="data: no recordings are named\nType data=FOLDER"):
        prepare(unnamed, folder(unnamed), str)
    with pytest.raises(DataError, match="no/such: there is no such folder"):
        prepare(gone, folder(gone, "gone"), str)


def test_another_rate_is_resampled_and_said(prepared, speech):
    def faster(words):
        tone = read(words / "wavs" / "word-1.wav").at_rate(16_000)
        write(tone, words / "wavs" / "word-1.wav")

    task, told = prepared(faster)
    assert "1 recordings at 16,000 Hz were resampled to 8,000 Hz" in told
    assert {len(each.sound.features) for each in task.experiment.data.examples(task.train)} <= set(range(12, 25))


def test_long_recordings_are_left_out_and_said(prepared):
    task, told = prepared(str, data__most_seconds=0.16)
    assert told[0] == "left out 1 recordings of more than 0.16 s (data.most_seconds)"
    assert len(task.train.utterances) + len(task.held_out.utterances) == 9


def test_what_was_prepared_once_serves_other_runs(speech, folder, tmp_path):
    cached = speech(data__cache=str(tmp_path / "cache"))
    one = prepare(cached, folder(cached, "one"), str)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.npy")}
    two = prepare(cached, folder(cached, "two"), str)
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.npy")}
    assert one.train.fingerprint == two.train.fingerprint
