"""A task that is no decoder of text: lines through points, in batches of two shapes, with a running statistic.

It is trained by the trainer and the run that train decoders, and everything that they promise holds.
"""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cupola.checkpoint.store import Checkpoints
from cupola.config import text
from cupola.config.value import Value
from cupola.core.context import Aside, Context, Mode
from cupola.core.dtype import FLOAT32
from cupola.core.errors import ConfigError, DataError, MeshError, TrainingError
from cupola.core.mesh import MeshShape
from cupola.core.module import Module
from cupola.core.param import Constant, Param, Role
from cupola.core.record import record
from cupola.data.loader import Prefetched
from cupola.observe.goodput import Cause
from cupola.optim.average import EMA
from cupola.optim.learner import Learner
from cupola.optim.learners import Learners, Part
from cupola.optim.optimizer import AdamW
from cupola.train.experiment import Saving, Scoring, Steps, Training
from cupola.train.load import load, load_params
from cupola.train.loop import Trainer
from cupola.train.state import abstract, check_layout, initial
from cupola.train.step import make_step
from cupola.train.task import Hook, Task, prepare

LENGTHS = (4, 8)
MEAN, SLOPE = np.asarray([3.0, -1.0], np.float32), np.asarray([0.5, 2.0], np.float32)
KEPT = 0.75
"""Share of the running mean that stays at each step."""


@record
class Points:
    """Rows of points, padded with 0."""

    x: object
    y: object
    lengths: object


class Centred(Module):
    """A line through points about their mean: of the batch in training, the running one else."""

    width: int = 2

    def params(self):
        nothing = Constant(value=0.0)
        return {
            "slope": Param((self.width,), "D", init=nothing, role=Role.SCALAR),
            "mean": Param((self.width,), "D", init=nothing, role=Role.STATE),
        }

    def __call__(self, p, x, real, context):
        if context.mode is not Mode.TRAIN:
            return (x - p["mean"][None, None]) @ p["slope"], Aside()
        mean = jnp.sum(x * real[..., None], (0, 1)) / jnp.sum(real)
        return (x - mean[None, None]) @ p["slope"], Aside(state={"mean": KEPT * p["mean"] + (1 - KEPT) * mean})


class Pair(Module):
    """The sum of two lines."""

    left: Centred = Centred()
    right: Centred = Centred()

    def __call__(self, p, x, real, context):
        (left, said), (right, also) = (getattr(self, name)(p[name], x, real, context) for name in p)
        return left + right, said.under("left") | also.under("right")


class Lines(Value):
    """Where the points come from."""

    batch: int = 8
    seed: int = 0


class Regression(Training):
    """Least squares."""

    model: Centred | Pair
    data: Lines
    unit = "points"

    def loss(self, params, batch, context):
        real = jnp.arange(batch.x.shape[1])[None] < batch.lengths[:, None]
        found, said = self.model(params, batch.x, real, context)
        total = jnp.sum(jnp.where(real, (found - batch.y) ** 2, 0))
        return total, (jnp.sum(real).astype(jnp.float32), {"loss": total}, said.state)

    def counted(self, batch):
        return int(batch.lengths.sum())


class Bare(Training):
    """A kind of training that nobody has brought a task for."""


@dataclasses.dataclass(frozen=True)
class Drawn:
    """Batches by index."""

    data: Lines

    def __getitem__(self, index):
        draw = np.random.default_rng((self.data.seed, index))
        length = LENGTHS[draw.integers(2)]
        lengths = draw.integers(1, length + 1, self.data.batch).astype(np.int32)
        real = np.arange(length)[None] < lengths[:, None]
        x = (MEAN + draw.normal(size=(self.data.batch, length, 2))).astype(np.float32)
        return Points(x=x * real[..., None], y=((x - MEAN) @ SLOPE * real).astype(np.float32), lengths=lengths)


@dataclasses.dataclass(frozen=True)
class Missed:
    """A score: the mean squared error, and what is shown of it."""

    error: float
    picture: np.ndarray

    @property
    def metrics(self):
        return {"held_out_error": self.error}

    def text(self):
        return f"{self.error:.4f} squared"


class Judge:
    """Scores on batches that no run comes to."""

    def __init__(self, made, place):
        self._made, self._place = made, place
        self._loss = jax.jit(made.loss)

    def _over(self, params, indices):
        batches = [self._place(Drawn(self._made.data)[10**9 + i]) for i in indices]
        found = [self._loss(params, batch, Context(mode=Mode.EVALUATE)) for batch in batches]
        error = sum(float(total) for total, _ in found) / sum(float(weight) for _, (weight, *_) in found)
        return Missed(error, np.full((2, 3, 3), min(int(100 * error), 255), np.uint8))

    def all(self, params):
        return self._over(params, range(4))

    def sample(self, params):
        return self._over(params, range(2))


class Shown(Hook):
    """Shows samples of every score."""

    def __init__(self, sink):
        self._sink = sink

    def after_evaluation(self, step, score):
        self._sink.image("missed", score.picture, step)
        self._sink.audio("hum", np.zeros(5, np.float32), 8000, step)


@dataclasses.dataclass(frozen=True)
class Fitting(Task):
    """The task of a regression."""

    experiment: Regression

    def loader(self, shard):
        return Prefetched(Drawn(self.experiment.data), identity={"lines": dataclasses.astuple(self.experiment.data)})

    def evaluator(self, place, shard):
        return Judge(self.experiment, place)

    def hooks(self, sink):
        return (Shown(sink),)


@prepare.register(Regression)
def _prepare(experiment, folder, note):
    note("points: drawn as they are needed")
    return Fitting(experiment)


def regression(**changes):
    """Makes a regression that learns in two seconds; changes are given as path=value pairs."""
    made = Regression(
        name="lines",
        model=Centred(),
        data=Lines(),
        learner=Learner(optimizer=AdamW(rate=0.1), clip_norm=None),
        budget=Steps(steps=12),
        precision=FLOAT32,
        evaluation=Scoring(times=2),
        saving=Saving(every_steps=5, every_seconds=None),
    )
    for path, value in changes.items():
        made = made.replace(path.replace("__", "."), value)
    return made


def losses_of(hook):
    return [done.metrics["loss"] for done in hook.steps]


def test_it_learns_and_its_statistics_follow(train, seen):
    hook = seen()
    outcome, trainer = train(regression(budget__steps=60), hook)
    assert np.mean(losses_of(hook)[-10:]) < np.mean(losses_of(hook)[:10]) / 5
    slope, mean = outcome.params["slope"], outcome.params["mean"]
    assert np.abs(slope - SLOPE).max() < np.abs(SLOPE).max() / 4
    assert np.abs(mean - MEAN).max() < 0.5  # of points that spread by 1, over the last four batches or so
    first, last = hook.evaluations[0][1], trainer.evaluator.sample(outcome.params)
    assert last.error < first.error / 5
    assert [step for step, _ in hook.evaluations] == [20, 40]


def test_each_shape_is_compiled_once_and_its_time_is_no_training(train, seen):
    hook, made = seen(), regression(budget__steps=20)
    outcome, trainer = train(made, hook)
    shapes = {Drawn(made.data)[i].x.shape[1] for i in range(20)}
    assert shapes == set(LENGTHS)
    assert len(hook.accounts) == 2
    spent = trainer.ledger.seconds()
    assert spent[Cause.COMPILE] > 0
    assert outcome.seconds == pytest.approx(spent[Cause.STEP] + spent[Cause.DATA])
    assert outcome.tokens == sum(int(Drawn(made.data)[i].lengths.sum()) for i in range(20))
    assert {done.flops for done in hook.steps} == {None}


def test_the_state_is_donated_to_the_step_of_every_shape(train, seen, monkeypatch):
    states, report = [], Trainer._report

    def watched(trainer):
        states.append(trainer.state)
        report(trainer)

    monkeypatch.setattr(Trainer, "_report", watched)
    train(regression(budget__steps=6))
    kept = [state for state in states if state is not states[-1]]
    leaves = [state.params["slope"] for state in kept] + [state.learner.optimizer for state in kept]
    assert len(kept) > 5
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(leaves))


@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_stopped_after_any_step_and_resumed_it_gives_the_same_numbers(train_in_pieces, every):
    outcome, interrupts = train_in_pieces(regression(learner__average=EMA(decay=0.9)), every)
    assert interrupts >= 12 // (every + 1)
    assert np.any(outcome.params["mean"] != 0)


def test_a_position_in_other_data_is_refused(train):
    train(regression(budget__steps=2))
    with pytest.raises(DataError, match=r"lines: the saved position has lines=\[8, 0\], but here it is \[8, 1\]"):
        train(regression(budget__steps=4, data__seed=1))


def test_saves_are_where_they_were_asked_for(train, folder):
    train(regression(saving__retention__last=9))
    assert Checkpoints(folder(regression(), "tiny").checkpoints).steps() == [0, 5, 10, 12]


def stepped(made, batch, mean=(1.0, 1.0)):
    """The state after one step from a running mean, and what the learner said."""
    first = initial(made, made.mesh.build())
    params = first.params | {"mean": jnp.asarray(mean, jnp.float32)}
    first = dataclasses.replace(first, params=params)
    return jax.jit(make_step(made))(first, jax.tree.map(jnp.asarray, batch), jnp.float32(0.5))


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_of_micro_batches_the_mean_of_their_statistics_is_kept(parts):
    batch = Drawn(Lines())[0]
    new, _ = stepped(regression(micro_batches=parts), batch)
    means = []
    for part in range(parts):
        x, lengths = batch.x[part::parts].astype(np.float64), batch.lengths[part::parts]
        means.append(KEPT * 1.0 + (1 - KEPT) * x.sum((0, 1)) / lengths.sum())
    # float32 throughout: a sum of some dozens of numbers of size 3.
    np.testing.assert_allclose(new.params["mean"], np.mean(means, 0), rtol=64 * np.finfo(np.float32).eps)
    assert np.abs(means[0] - np.mean(means, 0)).max() > 1e-3 or parts == 1  # the control: no part says it alone


def test_the_running_average_takes_statistics_as_they_are(train):
    outcome, trainer = train(regression(learner__average=EMA(decay=0.9)))
    np.testing.assert_array_equal(outcome.params["mean"], trainer.state.params["mean"])
    assert np.any(outcome.params["slope"] != trainer.state.params["slope"])


def test_parts_of_a_model_are_moved_by_learners_of_their_own(train, seen):
    slow, fast = (Learner(optimizer=AdamW(rate=rate), average=EMA(decay=0.9)) for rate in (1e-3, 1e-1))
    learners = Learners(parts=(Part(of="left", learner=slow), Part(of="right", learner=fast)))
    hook, made = seen(), regression(model=Pair(), learner=learners)
    assert text.parse(text.show(made)) == made
    outcome, trainer = train(made, hook)
    slopes = {name: np.abs(outcome.params[name]["slope"]).max() for name in ("left", "right")}
    assert slopes["right"] > 10 * slopes["left"] > 0
    assert {"loss", "skipped", "left.gradient_norm", "right.rate"} <= hook.steps[0].metrics.keys()
    assert outcome.skipped == 0
    for name in ("left", "right"):
        np.testing.assert_array_equal(outcome.params[name]["mean"], trainer.state.params[name]["mean"])
        assert np.any(outcome.params[name]["mean"] != 0)


def test_a_step_that_is_skipped_leaves_the_statistics():
    batch = Drawn(Lines())[0]
    batch.y[0, 0] = np.nan
    new, metrics = stepped(regression(), batch)
    assert metrics["skipped"] == 1
    np.testing.assert_array_equal(new.params["mean"], [1.0, 1.0])


def test_the_same_on_a_mesh_for_every_shape(train, seen):
    alone, split = seen(), seen()
    outcome, _ = train(regression(), alone, name="alone")
    spread, trainer = train(regression(mesh=MeshShape(data=2, fsdp=2)), split, name="split")
    assert len(split.accounts) == 2
    assert len(trainer.state.params["slope"].sharding.device_set) == 4
    # Sums of 64 numbers in another order, twelve steps long.
    allowed = 12 * 64 * np.finfo(np.float32).eps
    np.testing.assert_allclose(losses_of(split), losses_of(alone), rtol=allowed)
    np.testing.assert_allclose(spread.params["mean"], outcome.params["mean"], rtol=allowed)
    assert np.abs(np.diff(losses_of(alone))).max() > allowed * np.max(losses_of(alone))  # the measure can fail


def test_what_the_devices_cannot_hold_is_known_before_anything_is_made():
    check_layout(regression(mesh=MeshShape(data=4)))
    with pytest.raises(ConfigError, match=r"data.batch: a batch of 6 rows does not divide .*\nUse data.batch=8"):
        regression(mesh=MeshShape(data=4), data__batch=6)
    with pytest.raises(MeshError, match="needs 16 devices"):
        check_layout(regression(data__batch=16, mesh=MeshShape(data=16)))


def test_the_text_of_it_names_its_kind_and_rebuilds_it(folder):
    made = regression()
    assert text.show(made).startswith(f". = {__name__}:Regression\n")
    assert folder(made).experiment() == made.replace("name", "tiny")
    assert jax.tree.structure(abstract(made)) == jax.tree.structure(initial(made, made.mesh.build()))


def test_a_whole_run_leaves_its_summary_and_what_the_task_shows(folder, whole_run):
    place = folder(regression())
    summary, printed = whole_run(place.experiment(), place)
    assert json.loads(place.summary.read_text()) == summary
    assert summary["held_out_error"] == pytest.approx(float(summary["score"].split()[0]), abs=1e-4)
    assert summary["points"] == pytest.approx(summary["points_per_second"] * summary["seconds"])
    assert (summary["steps"], summary["parameters"]) == (12, 2)
    assert "points: drawn as they are needed" in printed
    assert "held out (sample)" in printed
    shown = b"".join(path.read_bytes() for path in place.tensorboard.iterdir())
    assert all(
        name in shown for name in (b"points_per_second", b"held_out_error", b"missed", b"hum", b"\x89PNG", b"WAVE")
    )
    assert not place.card.exists()
    longer = place.experiment().replace("budget.steps", 14)
    assert whole_run(longer, place)[0]["steps"] == 14
    params, step = load_params(place, longer)
    assert step == 14
    assert params["slope"].shape == (2,)


def test_what_only_a_decoder_can_do_is_refused(folder):
    place = folder(regression())
    with pytest.raises(TrainingError, match=r"trains a Centred \(Regression\).*\n.*cupola.train.experiment:Experiment"):
        load(place)


def test_a_training_that_nobody_prepares_is_refused(folder):
    made, place = regression(), folder(regression())
    bare = Bare(name="bare", model=Centred(), data=Lines(), learner=made.learner, budget=made.budget)
    with pytest.raises(TrainingError, match=r"how to prepare a Bare\nRegister"):
        prepare(bare, place, str)
