import jax
import numpy as np
import pytest

from cupola.checkpoint.store import Checkpoints
from cupola.core.errors import DataError, TrainingError
from cupola.core.partition import shardings
from cupola.data.loader import Loader
from cupola.optim.average import EMA
from cupola.optim.learner import NonFinite
from cupola.train.experiment import Evaluation, Minutes, Saving
from cupola.train.interrupt import SIGNALS, Interrupt
from cupola.train.loop import End


def saved(folder):
    return Checkpoints(folder.checkpoints).steps()


@pytest.fixture
def poisoned(monkeypatch):
    """From the fifth step on, a target's weight is not a number."""
    real = Loader.__next__

    def poison(loader):
        batch = real(loader)
        if loader.state()["step"] > 4:
            batch.weights[:] = np.nan
        return batch

    monkeypatch.setattr(Loader, "__next__", poison)


def test_hooks_see_every_step_once_in_order(experiment, train, seen):
    hook = seen()
    outcome, trainer = train(experiment(), hook)
    assert [done.step for done in hook.steps] == list(range(1, 13))
    assert [done.progress for done in hook.steps] == pytest.approx([(i + 0.5) / 12 for i in range(12)])
    assert sorted(done.seconds for done in hook.steps) == [done.seconds for done in hook.steps]
    assert {"loss", "gradient_norm", "skipped", "rate"} <= hook.steps[0].metrics.keys()
    assert all(0 < done.tokens <= 4 * 32 for done in hook.steps)
    assert outcome.tokens == sum(done.tokens for done in hook.steps)
    assert (outcome.end, outcome.step, outcome.skipped) == (End.BUDGET, 12, 0)
    assert outcome.seconds == trainer.seconds > 0
    (account,) = hook.accounts
    assert account.flops == 3 * trainer.experiment.model.flops(4, 32)
    assert account.parameter_bytes == 4 * trainer.experiment.model.count()


def test_it_learns(experiment, train, seen):
    hook = seen()
    train(experiment(budget__steps=40, saving=Saving(every_seconds=None)), hook)
    losses = [done.metrics["loss"] for done in hook.steps]
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.5


def test_evaluations_are_spread_over_the_budget(experiment, train, seen):
    hook = seen()
    train(experiment(evaluation=Evaluation(times=3, rows=4, batch=4)), hook)
    assert [step for step, _ in hook.evaluations] == [3, 6, 9]
    assert all(score.bits_per_byte > 0 for _, score in hook.evaluations)


@pytest.mark.parametrize(
    ("saving", "steps"),
    [
        (Saving(every_steps=5, every_seconds=None), [0, 5, 10, 12]),
        (Saving(every_steps=None, every_seconds=None), [0, 12]),
        (Saving(every_steps=None, every_seconds=1e-9), list(range(13))),
    ],
    ids=["steps", "never", "seconds"],
)
def test_saves_are_where_they_were_asked_for(experiment, train, folder, saving, steps):
    train(experiment(saving=saving.replace("retention.last", 99)))
    assert saved(folder(None)) == steps


@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_stopped_after_any_step_and_resumed_it_gives_the_same_numbers(experiment, train_in_pieces, every):
    made = experiment(evaluation=Evaluation(times=3, rows=4, batch=4), saving=Saving(every_seconds=None))
    _, interrupts = train_in_pieces(made, every)
    assert interrupts > 4 / every


def test_a_finished_run_is_neither_compiled_nor_trained_again(experiment, train, seen):
    first, _ = train(experiment(budget__steps=2))
    hook = seen()
    again, _ = train(experiment(budget__steps=2), hook)
    assert (hook.accounts, hook.steps) == ([], [])
    assert (again.step, again.tokens, again.seconds) == (2, first.tokens, first.seconds)


def test_an_interrupt_before_the_first_step_saves_and_compiles_nothing(experiment, train, seen, folder):
    hook, interrupt = seen(), Interrupt()
    interrupt.asked = SIGNALS[1]
    outcome, _ = train(experiment(), hook, interrupt=interrupt)
    assert (outcome.end, outcome.step, hook.accounts) == (End.INTERRUPT, 0, [])
    assert saved(folder(None)) == [0]


def test_minutes_end_about_on_time(experiment, train, seen):
    hook = seen()
    outcome, _ = train(experiment(budget=Minutes(minutes=0.5 / 60)), hook)
    assert 0.5 <= outcome.seconds < 1.5
    assert hook.steps[-1].progress <= 1
    assert [step for step, _ in hook.evaluations] != []


def test_a_gradient_that_is_not_finite_is_skipped_and_counted(experiment, train, seen, poisoned):
    hook = seen()
    outcome, _ = train(experiment(budget__steps=7), hook)
    assert outcome.skipped == 3
    assert [done.metrics["skipped"] for done in hook.steps] == [0, 0, 0, 0, 1, 2, 3]


def test_or_it_stops_the_run_before_it_is_saved(experiment, train, seen, poisoned, folder, monkeypatch):
    made, hook = experiment(learner__nonfinite=NonFinite.STOP, saving=Saving(every_steps=1)), seen()
    with pytest.raises(TrainingError, match="the norm of the gradient is nan"):
        train(made, hook)
    assert [done.step for done in hook.steps] == [1, 2, 3, 4]
    assert saved(folder(made))[-1] == 4
    monkeypatch.undo()
    assert train(made)[0].step == 12  # and from there it goes on


def test_the_average_is_what_is_scored_and_given(experiment, train):
    outcome, trainer = train(experiment(budget__steps=3, learner__average=EMA()))
    mean = trainer.state.learner.average.mean
    jax.tree.map(np.testing.assert_array_equal, outcome.params, mean)


def test_resuming_lays_the_state_out_as_the_mesh_wants(experiment, train):
    _, trainer = train(experiment(budget__steps=3, mesh__fsdp=2))
    _, again = train(experiment(budget__steps=3, mesh__fsdp=4))
    wanted = shardings(again.experiment.model.specs(), again.mesh, again.experiment.rules)
    assert jax.tree.map(lambda leaf: leaf.sharding, again.state.params) == wanted
    jax.tree.map(np.testing.assert_array_equal, trainer.state.params, again.state.params)


@pytest.mark.parametrize(("path", "value"), [("data.batch", 8), ("data.length_tokens", 16), ("seed", 1)])
def test_a_run_does_not_go_on_in_another_order(experiment, train, path, value):
    train(experiment(budget__steps=2))
    with pytest.raises(DataError, match=r"the saved position has .*\n.*start a new run"):
        train(experiment(budget__steps=4).replace(path, value))


def test_a_corpus_smaller_than_a_row_is_refused(experiment, train):
    with pytest.raises(DataError, match="fewer than one row of 50000") as refused:
        train(experiment(model__max_length=50_000, data__length_tokens=50_000))
    assert refused.value.remedy
