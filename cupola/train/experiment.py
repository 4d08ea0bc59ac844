"""An experiment as a value: model, data, learner, budget, and everything else that makes the numbers.

`Training` has the fields that any run has. What is trained is a subclass of it: it narrows the types
of `model`, `data`, `objective` and `evaluation`, and says what the loss of a batch is. So no field
stands anywhere without effect, and the text of an experiment names its kind in the first line.
`Experiment` is the subclass for decoders of text. What a kind does with its data and its folder is
the other half of it, the `Task` (`task.py`), for which no value can stand.

Not here: where results go (`folder.py`) and what is shown (`observe/`): they change no number.
Invariant: two equal experiments on the same machine give the same losses, bit for bit, when their
budget is in steps.
"""

import re
from typing import Any, ClassVar

import jax
import numpy as np

from cupola.checkpoint.retain import Retention
from cupola.config.value import Value
from cupola.core.context import Context
from cupola.core.dtype import Precision
from cupola.core.errors import ConfigError
from cupola.core.mesh import MeshShape
from cupola.core.module import Module, Tree
from cupola.core.partition import Rules
from cupola.data.loader import Batch
from cupola.data.mixture import Mixture
from cupola.kernels.cross_entropy import PLAIN, Objective
from cupola.models.decoder import Decoder
from cupola.optim.accumulate import Summed
from cupola.optim.learner import Learner
from cupola.optim.learners import Learners
from cupola.train.loss import batch_loss

NAME = re.compile(r"[^\W_][\w.-]*")
"""What a run, and so its folder, may be called."""


def _check_count(value: Value, name: str) -> None:
    """Checks that a field is 1 or more, or None where it may be."""
    if (count := getattr(value, name)) is not None and count < 1:
        raise ConfigError(f"{count} is too few", where=name, remedy="Use 1 or more.")


class Budget(Value):
    """How long a run is; schedules see the share of it that is done."""

    def progress(self, step: int, seconds: float) -> float:
        """Returns the share of the run that is done in the middle of a step, in [0, 1].

        Args:
            step: counted from 0.
            seconds: spent in training before it.
        """
        raise NotImplementedError

    def is_spent(self, step: int, seconds: float) -> bool:
        """Returns whether the run is over when `step` steps are done."""
        raise NotImplementedError


class Steps(Budget):
    """A run of so many steps; the same numbers on every run."""

    steps: int

    def progress(self, step: int, seconds: float) -> float:
        return (step + 0.5) / self.steps

    def is_spent(self, step: int, seconds: float) -> bool:
        return step >= self.steps

    def check(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"{self.steps} steps are no run", where="steps", remedy="Use 1 or more.")


class Minutes(Budget):
    """A run of so many minutes of training; the schedule follows the clock and ends with it."""

    minutes: float

    def progress(self, step: int, seconds: float) -> float:
        return min(1.0, seconds / (60 * self.minutes))

    def is_spent(self, step: int, seconds: float) -> bool:
        return seconds >= 60 * self.minutes

    def check(self) -> None:
        if not self.minutes > 0:
            raise ConfigError(f"{self.minutes} minutes are no run", where="minutes", remedy="Use a number above 0.")


class Saving(Value):
    """When checkpoints are written, beside the first and the last, and which stay.

    Args:
        every_seconds: of training; None counts no seconds.
        every_steps: None counts no steps.
        retention: which stay.
    """

    every_seconds: float | None = 60.0
    every_steps: int | None = None
    retention: Retention = Retention(last=2)

    def check(self) -> None:
        for name in ("every_seconds", "every_steps"):
            if (every := getattr(self, name)) is not None and every <= 0:
                raise ConfigError(f"{every} is no interval", where=name, remedy="Use a number above 0, or None.")


class Scoring(Value):
    """When what is held out is scored.

    Args:
        times: during the run, evenly spread; the end of the run comes on top and scores everything.
    """

    times: int = 5

    def check(self) -> None:
        if self.times < 0:
            raise ConfigError(f"{self.times} is too few", where="times", remedy="Use 0 to score only at the end.")


class Training(Value):
    """Everything that decides a run's numbers, whatever is trained; subclasses say what that is.

    Args:
        name: of the run's folder.
        model: what is trained.
        data: what it is trained on.
        learner: how gradients become parameters; several, where parts learn against each other.
        budget: how long.
        objective: what the loss is made of, where that can be chosen.
        precision: number formats of the model.
        micro_batches: parts into which a step's rows are cut, so that activations fit.
        mesh: devices and their axes.
        rules: which dimension is split over which axis.
        evaluation: when, and how, what is held out is scored.
        saving: when checkpoints are written.
        seed: of initial parameters, data order and dropout.
    """

    name: str
    model: Module
    data: Value
    learner: Learner | Learners
    budget: Budget
    objective: Value | None = None
    precision: Precision = Precision()
    micro_batches: int = 1
    mesh: MeshShape = MeshShape()
    rules: Rules = Rules()
    evaluation: Scoring = Scoring()
    saving: Saving = Saving()
    seed: int = 0

    unit: ClassVar[str] = "tokens"
    """What `counted` counts."""
    rows_at: ClassVar[str] = "data.batch"
    """The path of what says how many rows are in a step."""

    @property
    def rows(self) -> int:
        """Rows in a step, over all devices."""
        return self.get(self.rows_at)

    def loss(self, params: Tree, batch: Any, context: Context) -> Summed:
        """Returns (loss, (weight, metrics, state)) of a batch in training; called while a step is traced.

        The step minimizes the sum of the losses over the sum of the weights (tokens, frames or examples
        that count), both of the whole batch; it tells the metrics, "loss" among them, in the same way.
        Of the state, new values by path of parameters that no gradient moves (`core/state.py`), the next
        step finds the micro batches' mean.
        """
        raise NotImplementedError

    def dims(self, batch: Any) -> Tree:
        """Returns the letters of each array of a batch, by which it is split; those after the last are not."""
        return jax.tree.map(lambda _: "B", batch)

    def counted(self, batch: Any) -> int:
        """Returns how much a batch of this host has to learn from, in `unit`, padding not counted."""
        raise NotImplementedError

    def flops(self, batch: Any) -> int | None:
        """Returns the FLOPs of the matrix products of a step on a batch of all hosts; None: nobody knows."""
        return None

    def check_batches(self, mesh: jax.sharding.Mesh) -> None:
        """Checks, before anything is read, that the mesh can hold the batches.

        Raises:
            MeshError: a size does not divide over its axis.
        """
        self.rules.spec("B", (self.rows,), mesh, where=self.rows_at)

    def shares(self) -> dict[str, Any]:
        """Returns what a model may leave out: the number formats."""
        return {"precision": self.precision}

    def check(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ConfigError(
                f"{self.name!r} cannot name a folder",
                where="name",
                remedy="Use letters, digits, '-', '_' and '.', and begin with none of the last three.",
            )
        _check_count(self, "micro_batches")
        parts = self.mesh.data * self.mesh.fsdp * self.micro_batches
        if self.rows % parts:
            above = -(-self.rows // parts) * parts
            raise ConfigError(
                f"a batch of {self.rows} rows does not divide into micro_batches={self.micro_batches} "
                f"x mesh.data={self.mesh.data} x mesh.fsdp={self.mesh.fsdp}",
                where=self.rows_at,
                remedy=f"Use {self.rows_at}={above}, or sizes whose product divides {self.rows}.",
            )
        if self.seed < 0:
            raise ConfigError(f"seed={self.seed}", where="seed", remedy="Seeds count from 0.")


class Data(Value):
    """What a model learns from and is measured on, and in what portions.

    Args:
        mixture: the sources.
        held_out: share of the documents that it is measured on and never sees.
        tokenizer: path of a tokenizer.json; None trains one on the documents to learn from.
        batch: rows in a step, over all devices.
        length_tokens: tokens in a row.
    """

    mixture: Mixture
    held_out: float = 0.05
    tokenizer: str | None = None
    batch: int
    length_tokens: int

    def check(self) -> None:
        for name in ("batch", "length_tokens"):
            _check_count(self, name)
        if not 0 < self.held_out < 1:
            raise ConfigError(f"{self.held_out} is no share", where="held_out", remedy="Use a number such as 0.05.")


class Evaluation(Scoring):
    """When and how the held-out documents are scored.

    Args:
        times: during the run, evenly spread; the end of the run comes on top and scores everything.
        rows: rows scored during the run; None scores everything each time.
        batch: rows scored at once.
        length_tokens: longest context; None takes the training rows'.
        stride_tokens: how far each window of a long document goes beyond the last; None is half.
    """

    rows: int | None = 64
    batch: int = 16
    length_tokens: int | None = None
    stride_tokens: int | None = None

    def check(self) -> None:
        super().check()
        for name in ("rows", "batch", "length_tokens", "stride_tokens"):
            _check_count(self, name)


class Experiment(Training):
    """The training of a decoder of text.

    Args:
        model: what is trained.
        data: what it is trained on.
        objective: what the loss of a token is made of beside its log-probability; evaluation has that alone.
        evaluation: how held-out documents are scored.
    """

    model: Decoder
    data: Data
    objective: Objective = PLAIN
    evaluation: Evaluation = Evaluation()

    def loss(self, params: Tree, batch: Batch, context: Context) -> Summed:
        return batch_loss(self.model, params, batch=batch, context=context, objective=self.objective)

    def dims(self, batch: Batch) -> Tree:
        return jax.tree.map(lambda _: "B T", batch)

    def counted(self, batch: Batch) -> int:
        return int(np.sum(batch.weights > 0))

    def flops(self, batch: Batch) -> int:
        return 3 * self.model.flops(*batch.tokens.shape)

    def check_batches(self, mesh: jax.sharding.Mesh) -> None:
        longest = self.evaluation.length_tokens or self.data.length_tokens
        for name, rows, length in (
            ("data", self.rows, self.data.length_tokens),
            ("evaluation", self.evaluation.batch, longest),
        ):
            self.rules.spec("B T", (rows, length), mesh, where=f"{name}.batch x {name}.length_tokens")

    def check(self) -> None:
        super().check()
        longest = max(self.data.length_tokens, self.evaluation.length_tokens or 0)
        if longest > self.model.max_length:
            raise ConfigError(
                f"rows of {longest} tokens are longer than model.max_length={self.model.max_length}",
                where="data.length_tokens",
                remedy=f"Use data.length_tokens={self.model.max_length} or less, or model.max_length={longest}.",
            )
        self.model.own(self.objective)
