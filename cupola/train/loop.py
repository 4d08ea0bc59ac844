"""The loop: step after step until the budget is spent or someone asks to stop.

Not here: the step (`step.py`), what is trained (`task.py`), what is shown (hooks), what a finished run
leaves (`report.py`).
Invariant: state, data position, seconds and step are saved together; a run that is killed at any
moment and resumed gives, from its last checkpoint on, the numbers that it would have given.
"""

import dataclasses
from collections.abc import Hashable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from cupola.checkpoint.store import Checkpoints, Fallback
from cupola.core import host
from cupola.core.module import Tree
from cupola.data.loader import Shard
from cupola.observe.account import account
from cupola.observe.goodput import Cause, Ledger
from cupola.train.folder import RunFolder
from cupola.train.interrupt import Interrupt
from cupola.train.state import initial
from cupola.train.step import make_step
from cupola.train.task import Done, End, Hook, Outcome, Task


class Trainer:
    """One run from its first or saved state to its end.

    Args:
        task: what is trained, prepared in the folder.
        folder: where checkpoints go; already entered.
        hooks: see the run go by.
        ledger: counts the time.
    """

    def __init__(self, task: Task, folder: RunFolder, hooks: Sequence[Hook], ledger: Ledger):
        self.experiment = experiment = task.experiment
        self.folder, self.hooks, self.ledger = folder, hooks, ledger
        self.mesh = experiment.mesh.build()
        shard = Shard(index=jax.process_index(), count=jax.process_count())
        self.loader, self.evaluator = task.loader(shard), task.evaluator(self._placed, shard)
        self.checkpoints = Checkpoints(folder.checkpoints, retention=experiment.saving.retention)
        begins = self.checkpoints.latest() is None
        self.state = initial(experiment, self.mesh, *([task.begin] if begins else []))
        self.step, self.tokens, self._seconds_before = 0, 0, 0.0
        self._saved_step, self._saved_seconds = -1, 0.0
        self._pending: tuple[Done, dict[str, jax.Array]] | None = None
        self._compiled: dict[Hashable, tuple[Any, int | None]] = {}

    def close(self) -> None:
        """Stops the loader's thread and waits for the save under way."""
        self.loader.close()
        self.checkpoints.close()

    @property
    def seconds(self) -> float:
        """Seconds of training, over all resumes."""
        spent = self.ledger.seconds()
        return self._seconds_before + spent[Cause.STEP] + spent[Cause.DATA]

    def resume(self) -> int | None:
        """Goes to the latest whole checkpoint and returns its step; None where there is none yet.

        Raises:
            CheckpointError: no checkpoint is whole, or it is of another model.
            DataError: the data is not what the run began with.
        """
        if self.checkpoints.latest() is None:
            return None
        with self.ledger.time(Cause.CHECKPOINT):
            self.state, extra, _ = self.checkpoints.restore(self.state, fallback=Fallback.OLDER)
        self.loader.restore(extra["data"])
        self.step, self.tokens, self._seconds_before = int(self.state.step), extra["tokens"], extra["seconds"]
        self._saved_step, self._saved_seconds = self.step, self.seconds
        return self.step

    def run(self, interrupt: Interrupt) -> Outcome:
        """Trains until the budget is spent or `interrupt` asks, saves, and returns what is left.

        Raises:
            TrainingError: the learner stops at a gradient that is not finite.
            CheckpointError: a checkpoint could not be written; older ones are whole.
        """
        self.save()
        if not self._is_over(interrupt):
            self._train(interrupt)
        self.save()
        with self.ledger.time(Cause.CHECKPOINT):
            self.checkpoints.wait()
        return Outcome(
            end=End.INTERRUPT if interrupt.asked else End.BUDGET,
            step=self.step,
            seconds=self.seconds,
            tokens=self.tokens,
            params=self._params(),
            evaluator=self.evaluator,
            skipped=int(self.experiment.learner.skipped(self.state.learner)),
        )

    def _is_over(self, interrupt: Interrupt) -> bool:
        return interrupt.asked is not None or self.experiment.budget.is_spent(self.step, self.seconds)

    def _train(self, interrupt: Interrupt) -> None:
        due = self._evaluations()
        while not self._is_over(interrupt):
            with self.ledger.time(Cause.DATA):
                batch = next(self.loader)
            with self.ledger.time(Cause.STEP):
                placed = self._placed(batch)
                compiled, flops = self._compiled_for(placed)
                progress = self.experiment.budget.progress(self.step, self.seconds)
                self.state, metrics = compiled(self.state, placed, jnp.float32(progress))
                # While the device works on this step, the host looks at the one before.
                self._report()
                self.step += 1
                trained = self.experiment.counted(batch)
                self.tokens += trained
                self._pending = Done(self.step, progress, self.seconds, trained, {}, flops), metrics
            if len(left := self._evaluations()) < len(due):
                due = left
                self._evaluate()
            if self._save_is_due():
                self.save()

    def save(self) -> None:
        """Begins to write a checkpoint of this moment, in the background, unless it stands already."""
        self._report()
        if self.step == self._saved_step:
            return
        with self.ledger.time(Cause.CHECKPOINT):
            extra = {"data": self.loader.state(), "seconds": self.seconds, "tokens": self.tokens}
            self.checkpoints.save(self.step, self.state, extra=extra)
        self._saved_step, self._saved_seconds = self.step, self.seconds

    def _compiled_for(self, batch: Any) -> tuple[Any, int | None]:
        """The step compiled for a batch of this shape, at the first sight of it, and its FLOPs on one device."""
        leaves, form = jax.tree.flatten(batch)
        shape = form, tuple((leaf.shape, leaf.dtype) for leaf in leaves)
        if shape in self._compiled:
            return self._compiled[shape]
        # Hooks hear of things in order, and the last step was before.
        self._report()
        with self.ledger.time(Cause.COMPILE):
            # The state goes from one shape's step to another's, so it lies as it lies now.
            lies = jax.tree.map(lambda leaf: leaf.sharding, self.state)
            options = host.compiler_options()
            step = jax.jit(
                make_step(self.experiment), donate_argnums=0, out_shardings=(lies, None), compiler_options=options
            )
            compiled = step.lower(self.state, batch, jnp.float32(0)).compile()
        flops = self.experiment.flops(batch)
        flops = None if flops is None else flops // self.mesh.size
        known = account(
            compiled,
            parameter_bytes=_bytes(self.state.params),
            optimizer_bytes=_bytes(self.state.learner),
            flops=flops,
        )
        for hook in self.hooks:
            hook.before_first(known)
        self._compiled[shape] = compiled, flops
        return compiled, flops

    def _placed(self, batch: Any) -> Any:
        """A batch of all hosts on the devices, from this host's rows."""

        def place(array: Any, dims: str) -> jax.Array:
            shape = (len(array) * jax.process_count(), *array.shape[1:])
            spec = self.experiment.rules.spec(dims, shape[: len(dims.split())], self.mesh, where="batch")
            return jax.make_array_from_process_local_data(jax.sharding.NamedSharding(self.mesh, spec), array)

        return jax.tree.map(place, batch, self.experiment.dims(batch))

    def _report(self) -> None:
        """Tells the hooks of the last step dispatched, once its numbers are there."""
        if self._pending is None:
            return
        (done, metrics), self._pending = self._pending, None
        told = dataclasses.replace(done, metrics={name: float(value) for name, value in metrics.items()})
        self.experiment.learner.judge(told.metrics)
        for hook in self.hooks:
            hook.after_step(told)

    def _params(self) -> Tree:
        return self.experiment.learner.averaged(self.state.learner, self.state.params)

    def _evaluate(self) -> None:
        self._report()
        with self.ledger.time(Cause.EVALUATE):
            score = self.evaluator.sample(self._params())
        for hook in self.hooks:
            hook.after_evaluation(self.step, score)

    def _evaluations(self) -> list[float]:
        """The shares of the budget at which evaluations are still due; saved and resumed, they are the same."""
        times = self.experiment.evaluation.times
        now = self.experiment.budget.progress(self.step, self.seconds)
        return [at for i in range(times) if (at := (i + 1) / (times + 1)) > now]

    def _save_is_due(self) -> bool:
        saving = self.experiment.saving
        if saving.every_steps is not None and self.step % saving.every_steps == 0:
            return True
        return saving.every_seconds is not None and self.seconds - self._saved_seconds >= saving.every_seconds


def _bytes(tree: Tree) -> int:
    """Bytes of a tree on the first local device."""
    return sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(tree))
