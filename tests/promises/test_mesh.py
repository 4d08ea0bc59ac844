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


@pytest.mark.parametrize(
    "sizes", [{"data": 4}, {"fsdp": 4}, {"tensor": 2}, {"sequence": 2}, {"data": 2, "fsdp": 2, "tensor": 2}], ids=str
)
def test_the_same_loss_on_every_mesh(begin, experiment, sizes):
    made = experiment(budget__steps=6)
    alone, _ = losses(made, begin, "alone")
    split, trainer = losses(made.replace("mesh", MeshShape(**sizes)), begin, "split")
    assert len(jax.tree.leaves(trainer.state.params)[0].sharding.device_set) == int(np.prod(list(sizes.values())))
    assert np.max(np.abs(alone - split)) < 1e-5


def test_another_seed_is_noticed(begin, experiment):
    first, _ = losses(experiment(budget__steps=2), begin, "first")
    second, _ = losses(experiment(budget__steps=2, seed=1), begin, "second")
    assert np.max(np.abs(first - second)) > 1e-5
