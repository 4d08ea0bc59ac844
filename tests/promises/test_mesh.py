"""Promise 2: the same loss on every mesh."""

import jax
import numpy as np
import pytest

from cupola.core.mesh import MeshShape
from cupola.observe.goodput import Ledger
from cupola.train.corpus import prepare
from cupola.train.folder import RunFolder
from cupola.train.interrupt import Interrupt
from cupola.train.loop import Hook, Trainer


class Losses(Hook):
    """Keeps the losses."""

    def __init__(self):
        self.seen = []

    def after_step(self, done):
        self.seen.append(done.metrics["loss"])


def losses(made, begin, name):
    folder, hook = RunFolder.open(begin(name, made)), Losses()
    with folder, Interrupt() as interrupt:
        trainer = Trainer(prepare(made, folder, print), folder, (hook,), Ledger())
        trainer.run(interrupt)
        trainer.close()
    return np.asarray(hook.seen), trainer


@pytest.fixture(scope="module")
def alone(begin, experiment):
    """The losses on one device."""
    return losses(experiment(budget__steps=6), begin, "alone")[0]


SLOW = pytest.mark.slow
"""The axes that another mesh of the quick suite has beside others."""


@pytest.mark.parametrize(
    "sizes",
    [
        pytest.param({"data": 4}, marks=SLOW),
        pytest.param({"fsdp": 4}, marks=SLOW),
        pytest.param({"tensor": 2}, marks=SLOW),
        {"sequence": 2},
        {"data": 2, "fsdp": 2, "tensor": 2},
    ],
    ids=str,
)
def test_the_same_loss_on_every_mesh(begin, experiment, alone, sizes):
    made = experiment(budget__steps=6)
    split, trainer = losses(made.replace("mesh", MeshShape(**sizes)), begin, "split")
    assert len(jax.tree.leaves(trainer.state.params)[0].sharding.device_set) == int(np.prod(list(sizes.values())))
    assert np.max(np.abs(alone - split)) < 1e-5


def test_another_seed_is_noticed(begin, experiment):
    first, _ = losses(experiment(budget__steps=2), begin, "first")
    second, _ = losses(experiment(budget__steps=2, seed=1), begin, "second")
    assert np.max(np.abs(first - second)) > 1e-5
