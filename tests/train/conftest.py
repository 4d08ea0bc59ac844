"""What the tests of a run share: a machine that need not be measured, folders, short trainings."""

import contextlib
import io
import shutil

import jax
import numpy as np
import pytest
from rich.console import Console

from cupola.checkpoint.store import Checkpoints
from cupola.observe.goodput import Ledger
from cupola.observe.machine import Machine
from cupola.train import run as running
from cupola.train.folder import RunFolder
from cupola.train.interrupt import SIGNALS, Interrupt
from cupola.train.loop import Hook, Trainer
from cupola.train.task import End, prepare


@pytest.fixture(scope="session")
def machine():
    return Machine(
        platform="Linux x86_64",
        processor="a processor",
        cores=2,
        memory_bytes=2**33,
        devices=(("cpu", 8),),
        device_memory_bytes=None,
        matmul_flops_per_second={"float32": 1e11, "bfloat16": 2e11},
        memory_bytes_per_second=1e10,
        versions={"python": "3"},
    )


class Seen(Hook):
    """Keeps what it is told, in order; `at` maps a step to what is called after it."""

    def __init__(self, at=None):
        self.accounts, self.steps, self.evaluations, self.at = [], [], [], at or {}

    def before_first(self, known):
        self.accounts.append(known)

    def after_step(self, done):
        self.steps.append(done)
        if done.step in self.at:
            self.at[done.step]()

    def after_evaluation(self, step, score):
        self.evaluations.append((step, score))

    @property
    def losses(self):
        return {done.step: done.metrics["loss"] for done in self.steps}


@pytest.fixture
def seen():
    return Seen


@pytest.fixture
def folder(tmp_path):
    """Makes the folder of a new run, or of the run that this folder holds already."""

    def make(made, name="tiny"):
        path = tmp_path / name
        return RunFolder.open(path) if path.exists() else RunFolder.create(tmp_path, made.replace("name", name))

    return make


@pytest.fixture
def train(folder):
    """Trains in a folder to the end of the budget, or until `interrupt` asks; gives (outcome, trainer)."""

    def run(made, *hooks, name="tiny", interrupt=None):
        place = folder(made, name)
        made = made.replace("name", name)
        with place, contextlib.closing(Trainer(prepare(made, place, print), place, hooks, Ledger())) as trainer:
            trainer.resume()
            return trainer.run(interrupt or Interrupt()), trainer

    return run


@pytest.fixture
def train_in_pieces(train, seen, folder):
    """Trains an experiment whole, and again in runs of `every` steps; all numbers have to be the same.

    Gives (outcome, how often it was interrupted).
    """

    def run(made, every):
        whole = seen()
        outcome, _ = train(made, whole, name="whole")
        losses, evaluations, interrupts = {}, [], 0
        while True:
            interrupt = Interrupt()
            stop = seen({len(losses) + every: lambda i=interrupt: setattr(i, "asked", SIGNALS[0])})
            resumed, _ = train(made, stop, name="stopped", interrupt=interrupt)
            losses |= stop.losses
            evaluations += [(step, score.metrics) for step, score in stop.evaluations]
            if resumed.end is End.BUDGET:
                break
            interrupts += 1
            assert Checkpoints(folder(made, "stopped").checkpoints).latest() == resumed.step == max(losses)
        assert losses == whole.losses
        assert evaluations == [(step, score.metrics) for step, score in whole.evaluations]
        assert resumed.tokens == outcome.tokens
        jax.tree.map(np.testing.assert_array_equal, resumed.params, outcome.params)
        return outcome, interrupts

    return run


@pytest.fixture(scope="session")
def whole_run(machine):
    """Runs an experiment in its folder as the command line does; gives (summary, what was printed)."""

    def call(made, place):
        printed = Console(file=io.StringIO(), width=100)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(running.machine, "measure", lambda: machine)
            return running.run(made, place, printed), printed.file.getvalue()

    return call


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the finished run, to go on with or to damage."""
    return RunFolder(shutil.copytree(finished[0].path, tmp_path / "copied"))


@pytest.fixture(scope="session")
def finished(tmp_path_factory, experiment, whole_run):
    """A run that is finished, its summary, and what was printed; to be read only."""
    made = experiment(budget__steps=6)
    place = RunFolder.create(tmp_path_factory.mktemp("runs"), made)
    return place, *whole_run(made, place)
