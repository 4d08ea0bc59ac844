"""Vocoders are trained by the trainer that trains all else: they learn, resume bit for bit, and are found again."""

import contextlib
import json
import shutil

import jax
import numpy as np
import pytest

from cupola.checkpoint.store import Checkpoints
from cupola.config import text
from cupola.core.dtype import FLOAT32
from cupola.core.errors import ConfigError, DataError, TrainingError
from cupola.core.mesh import MeshShape
from cupola.data.audio.clip import Clip
from cupola.data.audio.features import Compression, LogMel
from cupola.data.audio.files import read, write
from cupola.data.audio.mel import MelFilters
from cupola.data.audio.prepared import Preparation
from cupola.data.audio.spectrum import Stft
from cupola.data.sources import Split
from cupola.models.speech.adversarial import AdversarialLoss, VocosGAN
from cupola.models.speech.discriminators import Discriminators
from cupola.models.speech.logistics import Logistics
from cupola.models.speech.spectral_loss import SpectralLoss
from cupola.models.speech.vocos import Vocos
from cupola.models.speech.wavenet import WaveNet
from cupola.observe.goodput import Ledger
from cupola.optim.average import EMA
from cupola.optim.learner import Learner
from cupola.optim.learners import Learners, Part
from cupola.optim.optimizer import AdamW
from cupola.train.experiment import Saving, Steps
from cupola.train.interrupt import SIGNALS, Interrupt
from cupola.train.loop import Trainer
from cupola.train.speech.vocoder import VocosGANTraining, VocosTraining, WaveNetTraining, load_vocoder
from cupola.train.speech.vocoder_data import SoundData
from cupola.train.speech.vocoder_score import VocoderEvaluation, WaveNetEvaluation
from cupola.train.task import End, prepare

RATE = 8000
FRONT = LogMel(
    rate_hz=RATE,
    stft=Stft(size=128, hop=32),
    mel=MelFilters(bins=12, low_hz=0.0, high_hz=4000.0),
    compression=Compression(floor=1e-3),
)
NAMES = [f"tone-{i}" for i in range(10)]
HELD_OUT = 0.2
GENERATOR = Vocos(width=12, hidden=24, layers=1, taps=3)
RATES = AdamW(rate=5e-3, decay=0.0)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Ten hums of 0.3 s, without a word of what they say."""
    folder = tmp_path_factory.mktemp("hums")
    time = np.arange(2400) / RATE
    for number, name in enumerate(NAMES):
        turns = 2 * np.pi * (150 * time + np.sin(20 * time + number))
        sound = sum(np.sin(k * turns) / k for k in range(1, 20)) * (0.3 + 0.1 * np.sin(30 * time + 2 * number))
        write(Clip(sound.astype(np.float32), RATE), folder / f"{name}.wav")
    return folder


@pytest.fixture
def make(recordings):
    """Makes the training of a tiny vocoder of a kind; changes are given as path=value pairs."""

    def build(kind=VocosTraining, **changes):
        given = {
            "name": "tiny",
            "data": SoundData(
                path=str(recordings),
                held_out=HELD_OUT,
                preparation=Preparation(front=FRONT, trim_below_db=None),
                batch=4,
                segment_frames=16,
            ),
            "budget": Steps(steps=6),
            "precision": FLOAT32,
            "evaluation": VocoderEvaluation(times=1, clips=1, clips_at_end=2),
            "saving": Saving(every_steps=3, every_seconds=None),
        }
        if kind is VocosTraining:
            given |= {
                "model": GENERATOR,
                "learner": Learner(optimizer=RATES),
                "objective": SpectralLoss(mel=1.0, magnitudes=1.0, stfts=(Stft(size=64, hop=16),)),
            }
        elif kind is VocosGANTraining:
            judges = Discriminators(periods=(2, 3), widths=(4, 4), stfts=(Stft(size=64, hop=16),), width=4)
            sides = (
                Part(of="generator", learner=Learner(optimizer=RATES, average=EMA(decay=0.9))),
                Part(of="discriminators", learner=Learner(optimizer=RATES)),
            )
            given |= {
                "model": VocosGAN(generator=GENERATOR, discriminators=judges),
                "learner": Learners(parts=sides),
                "objective": AdversarialLoss(spectral=SpectralLoss(mel=5.0)),
            }
        else:
            model = WaveNet(
                strides=(4, 8), layers=4, cycles=2, residual=8, skip=8, mixture=Logistics(components=2, bits=8)
            )
            given |= {
                "model": model,
                "learner": Learner(optimizer=RATES),
                "evaluation": WaveNetEvaluation(times=1, clips=1, clips_at_end=2, heard=1, heard_seconds=0.14),
            }
        made = kind(**given)
        for path, value in changes.items():
            made = made.replace(path.replace("__", "."), value)
        return made

    return build


KINDS = [VocosTraining, VocosGANTraining, WaveNetTraining]


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


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_a_whole_run_learns_and_leaves_a_vocoder(make, folder, whole_run):
    place = folder(make())
    made = place.experiment().replace("budget.steps", 150)
    summary, printed = whole_run(made, place)
    assert "train: 7 recordings, 0.0 min; held out: 3 recordings, 0.0 min" in printed
    first = json.loads(place.metrics.read_text().splitlines()[0])
    assert summary["held_out_mel"] < 0.6 * first["mel"]
    assert json.loads(place.summary.read_text())["held_out_spectra"] == summary["held_out_spectra"]
    assert summary["vocoder_parameters"] == summary["parameters"] == made.model.count()
    assert f"{summary['held_out_mel']:.3f}" in place.card.read_text()
    vocoder, params = load_vocoder(place)
    assert vocoder == made.vocoder()
    name = sorted(path.stem for path in (place.path / "samples").glob("*-recording.wav"))[0]
    recording = read(place.path / "samples" / f"{name}.wav")
    again = vocoder.of(FRONT.of(recording), params=params)
    kept = read(place.path / "samples" / f"{name.removesuffix('-recording')}.wav")
    # Files hold 16 bits, and so do the frames' recordings.
    assert abs(again.samples - kept.samples).max() < 0.01
    shown = b"".join(path.read_bytes() for path in place.tensorboard.iterdir())
    assert all(name in shown for name in (b"vocoder/tone-", b"recording/tone-", b"WAVE", b"frames_per_second"))


@pytest.mark.parametrize("kind", [VocosTraining, *(pytest.param(k, marks=pytest.mark.slow) for k in KINDS[1:])])
def test_stopped_and_resumed_it_gives_the_same_numbers(make, fit, seen, kind):
    made, whole = make(kind, budget__steps=3), seen()
    outcome, _ = fit(made, whole, name="whole")
    interrupt, first, rest = Interrupt(), seen(), seen()
    first.at[1] = lambda: setattr(interrupt, "asked", SIGNALS[0])
    stopped, _ = fit(made, first, name="stopped", interrupt=interrupt)
    assert stopped.end is End.INTERRUPT
    resumed, _ = fit(made, rest, name="stopped")
    assert first.losses | rest.losses == whole.losses
    scores = [(step, score.metrics) for hook in (first, rest) for step, score in hook.evaluations]
    assert scores == [(step, score.metrics) for step, score in whole.evaluations]
    same(resumed.params, outcome.params)


def test_both_sides_of_the_game_are_moved(make, fit, seen):
    hook = seen()
    _, trainer = fit(make(VocosGANTraining), hook)
    assert {"generator", "discriminators", "fool", "matching", "mel", "generator.rate"} <= hook.steps[0].metrics.keys()
    drawn = make(VocosGANTraining).model.init(jax.random.key(0))
    for side in ("generator", "discriminators"):
        changed = jax.tree.map(lambda x, y: np.any(x != y), trainer.state.params[side], drawn[side])
        assert any(jax.tree.leaves(changed))
    assert hook.steps[-1].metrics["skipped"] == 0


@pytest.mark.slow
def test_a_wavenet_learns(make, fit, seen):
    hook = seen()
    outcome, trainer = fit(make(WaveNetTraining, budget__steps=60), hook)
    last, middle = trainer.evaluator.all(outcome.params), hook.evaluations[0][1]
    drawn = trainer.evaluator.all(trainer.experiment.model.init(jax.random.key(0)))
    assert last.bits < 0.7 * drawn.bits
    assert last.metrics.keys() == middle.metrics.keys() == {"held_out_bits", "held_out_mel", "held_out_spectra"}
    assert len(last.heard) == 1
    assert len(last.heard[0].made.samples) == FRONT.samples(35)
    assert "bits a sample" in last.text()


def test_a_run_starts_with_what_another_has_learned(make, fit, folder):
    outcome, _ = fit(make(), name="first")
    start = str(folder(None, "first").path)
    _, trainer = fit(make(VocosGANTraining, start=start, budget__steps=1, saving__retention__last=9), name="second")
    with Checkpoints(folder(None, "second").checkpoints) as kept:
        state, _, _ = kept.restore(trainer.state, 0)
    same(state.params["generator"], outcome.params)
    same(state.learner["generator"].average.mean, outcome.params)
    # It goes on without the other.
    shutil.rmtree(start)
    assert fit(make(VocosGANTraining, start=start, budget__steps=2), name="second")[0].step == 2


def test_another_vocoder_is_nothing_to_start_from(make, fit, folder):
    fit(make(budget__steps=1), name="first")
    start = str(folder(None, "first").path)
    with pytest.raises(ConfigError, match=r"start: the run .* another vocoder:\n~ model.width: 12 -> 16\nStart from"):
        fit(make(model__width=16, start=start), name="second")
    with pytest.raises(ConfigError, match="of another vocoder"):
        fit(make(WaveNetTraining, start=start), name="third")
    with pytest.raises(TrainingError, match="there is no run here"):
        fit(make(start="nowhere"), name="fourth")


def test_the_recordings_may_be_gone_once_the_run_has_begun(make, fit, tmp_path, recordings):
    path = str(shutil.copytree(recordings, tmp_path / "copy"))
    outcome, _ = fit(make(data__path=path, budget__steps=2))
    shutil.rmtree(path)
    assert fit(make(data__path=path, budget__steps=3))[0].step == outcome.step + 1
    with pytest.raises(DataError, match=r"data.held_out: a run that goes on reads what it began with\nLeave it"):
        fit(make(data__path=path, data__held_out=0.3))
    with pytest.raises(DataError, match=r"segments: the saved position has segments=\[4, 16, 0\]"):
        fit(make(data__path=path, data__batch=8, budget__steps=4))


@pytest.mark.parametrize("kind", [VocosTraining, *(pytest.param(k, marks=pytest.mark.slow) for k in KINDS[1:])])
def test_the_same_on_a_mesh(make, fit, seen, kind):
    alone, split = seen(), seen()
    fit(make(kind, budget__steps=2), alone, name="alone")
    fit(make(kind, budget__steps=2, mesh=MeshShape(data=2, fsdp=2)), split, name="split")
    # Sums in another order, through two steps of AdamW, whose first is by signs.
    np.testing.assert_allclose([*split.losses.values()], [*alone.losses.values()], rtol=1e-3)
    one, other = (hook.evaluations[0][1].metrics for hook in (alone, split))
    assert one == pytest.approx(other, rel=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_the_text_of_it_rebuilds_it(make, kind):
    made = make(kind)
    assert text.parse(text.show(made)) == made
    assert made.vocoder().front == FRONT


def test_a_front_end_is_told_to_the_model(make):
    other = FRONT.replace("mel.bins", 10).replace("stft", Stft(size=128, hop=40, window=100))
    made = make(data__preparation__front=other)
    assert made.model.bins == 10
    assert made.model.stft == Stft(size=100, hop=40)
    with pytest.raises(ConfigError, match=r"model.strides: \(4, 8\) make 32 .* hop is 40\n.* such as \(5, 8\)"):
        make(WaveNetTraining, data__preparation__front=other)


def test_held_out_recordings_are_never_learned_from(make, folder):
    place = folder(make())
    task = prepare(make(), place, str)
    sides = {side: {each.name for each in task.corpora[side].utterances} for side in (Split.TRAIN, Split.HELD_OUT)}
    assert sides[Split.TRAIN] | sides[Split.HELD_OUT] == set(NAMES)
    assert not sides[Split.TRAIN] & sides[Split.HELD_OUT]
