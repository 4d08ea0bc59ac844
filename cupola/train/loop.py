"""The loop: step after step until the budget is spent or someone asks to stop.

Not here: the step (`step.py`), what is shown (hooks), what a finished run leaves (`report.py`).
Invariant: state, data position, seconds and step are saved together; a run that is killed at any
moment and resumed gives, from its last checkpoint on, the numbers that it would have given.
"""

import dataclasses
import enum
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cupola.checkpoint.store import Checkpoints, Fallback
from cupola.core import host
from cupola.core.module import Tree
from cupola.data.loader import Batch, Loader, Shard
from cupola.data.sources import Split
from cupola.observe.account import Account, account
from cupola.observe.goodput import Cause, Ledger
from cupola.train.corpus import Prepared, split
from cupola.train.evaluate import Evaluator, Score
from cupola.train.folder import RunFolder
from cupola.train.interrupt import Interrupt
from cupola.train.state import initial
from cupola.train.step import make_step


@dataclasses.dataclass(frozen=True)
class Done:
    """What is known after a step.

    Args:
        step: how many are done.
        progress: share of the budget that is spent.
        seconds: of training so far, evaluation and compilation not counted.
        tokens: trained on in this step, padding not counted.
        metrics: of the step.
    """

    step: int
    progress: float
    seconds: float
    tokens: int
    metrics: dict[str, float]


class Hook:
    """Sees a run go by; may raise to end it. Override what matters."""

    def before_first(self, known: Account) -> None:
        """Called once, when the step is compiled and nothing has run."""

    def after_step(self, done: Done) -> None:
        """Called after each step."""

    def after_evaluation(self, step: int, score: Score) -> None:
        """Called when held-out documents were scored after `step` steps."""


class End(enum.Enum):
    """Why a loop ended."""

    BUDGET = "budget spent"
    INTERRUPT = "interrupted"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a loop leaves.

    Args:
        end: why it ended.
        step: how many steps are done.
        seconds: of training, over all resumes.
        tokens: trained on, over all resumes, padding not counted.
        params: to evaluate and keep: the running average where the learner keeps one.
        evaluator: that scores them.
        skipped: steps skipped for gradients that were not finite.
    """

    end: End
    step: int
    seconds: float
    tokens: int
    params: Tree
    evaluator: Evaluator
    skipped: int


class Trainer:
    """One run from its first or saved state to its end.

    Args:
        prepared: experiment, tokenizer and corpora.
        folder: where checkpoints go; already entered.
        hooks: see the run go by.
        ledger: counts the time.
    """

    def __init__(self, prepared: Prepared, folder: RunFolder, hooks: Sequence[Hook], ledger: Ledger):
        self.experiment = experiment = prepared.experiment
        self.folder, self.hooks, self.ledger = folder, hooks, ledger
        self.mesh = experiment.mesh.build()
        data = experiment.data
        rows = split(data, Split.TRAIN).pack(prepared.train, length_tokens=data.length_tokens, seed=experiment.seed)
        shard = Shard(index=jax.process_index(), count=jax.process_count())
        self.loader = Loader(rows, batch=data.batch, shard=shard)
        self.evaluator = Evaluator(
            experiment.model, prepared.held_out, experiment.evaluation, data.length_tokens, self._placed, shard
        )
        self.checkpoints = Checkpoints(folder.checkpoints, retention=experiment.saving.retention)
        self.state = initial(experiment, self.mesh)
        self.step, self.tokens, self._seconds_before = 0, 0, 0.0
        self._saved_step, self._saved_seconds = -1, 0.0
        self._pending: tuple[Done, dict[str, jax.Array]] | None = None

    def close(self) -> None:
        """Stops the loader's threads and waits for the save under way."""
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
            skipped=int(self.state.learner.skipped),
        )

    def _is_over(self, interrupt: Interrupt) -> bool:
        return interrupt.asked is not None or self.experiment.budget.is_spent(self.step, self.seconds)

    def _train(self, interrupt: Interrupt) -> None:
        compiled = self._compile()
        due = self._evaluations()
        while not self._is_over(interrupt):
            with self.ledger.time(Cause.DATA):
                batch = next(self.loader)
            with self.ledger.time(Cause.STEP):
                progress = self.experiment.budget.progress(self.step, self.seconds)
                self.state, metrics = compiled(self.state, self._placed(batch), jnp.float32(progress))
                # While the device works on this step, the host looks at the one before.
                self._report()
                self.step += 1
                trained = int(np.sum(batch.weights > 0))
                self.tokens += trained
                self._pending = Done(self.step, progress, self.seconds, trained, {}), metrics
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

    def _compile(self) -> Any:
        with self.ledger.time(Cause.COMPILE):
            step = jax.jit(make_step(self.experiment), donate_argnums=0, compiler_options=host.compiler_options())
            batch = self._placed(self._empty_batch())
            compiled = step.lower(self.state, batch, jnp.float32(0)).compile()
        model, data = self.experiment.model, self.experiment.data
        known = account(
            compiled,
            parameter_bytes=_bytes(self.state.params),
            optimizer_bytes=_bytes(self.state.learner),
            flops=3 * model.flops(data.batch, data.length_tokens) // self.mesh.size,
        )
        for hook in self.hooks:
            hook.before_first(known)
        return compiled

    def _empty_batch(self) -> Batch:
        shape = (self.experiment.data.batch // jax.process_count(), self.experiment.data.length_tokens)
        whole, real = np.zeros(shape, np.int32), np.zeros(shape, np.float32)
        return Batch(tokens=whole, targets=whole, weights=real, segments=whole, positions=whole)

    def _placed(self, batch: Batch) -> Batch:
        rows, length = batch.tokens.shape
        shape = (rows * jax.process_count(), length)
        spec = self.experiment.rules.spec("B T", shape, self.mesh, where="batch")
        place = jax.sharding.NamedSharding(self.mesh, spec)
        return jax.tree.map(functools.partial(jax.make_array_from_process_local_data, place), batch)

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
