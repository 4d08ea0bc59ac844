"""What a run needs of what it trains, beside the value that names it: data, scores, and what it leaves.

A `Training` (`experiment.py`) is a value and knows no folder. `prepare` makes it a `Task`: its data
stand in the run's folder, and it gives what reads them. The trainer, the hooks and the run know these
few interfaces alone, so a task of another kind, sound or images, brings classes of its own and changes
none of theirs: a `Training`, a `Task`, and their meeting by `@prepare.register(TheTraining)`.

Invariant: a task that was prepared again from its folder reads, bit for bit, what it read before.
"""

import dataclasses
import enum
import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

from cupola.core.errors import TrainingError
from cupola.core.module import Tree
from cupola.data.loader import Prefetched, Shard
from cupola.observe.account import Account
from cupola.observe.sinks import MediaSink
from cupola.train.experiment import Training
from cupola.train.folder import RunFolder

Place = Callable[[Any], Any]
"""Puts this host's rows of a batch on the devices."""


@runtime_checkable
class Scored(Protocol):
    """What is found by scoring a model."""

    @property
    def metrics(self) -> dict[str, float]:
        """Numbers by name, such as "held_out_loss"."""

    def text(self) -> str:
        """Returns the number that matters, for a person: "1.235 bits per byte"."""


@runtime_checkable
class Scorer(Protocol):
    """Scores a model on what is held out."""

    def all(self, params: Tree) -> Scored:
        """Returns the score over everything that is held out."""

    def sample(self, params: Tree) -> Scored:
        """Returns the score over some of it, always the same: what a run has time for."""


@dataclasses.dataclass(frozen=True)
class Done:
    """What is known after a step.

    Args:
        step: how many are done.
        progress: share of the budget that is spent.
        seconds: of training so far, evaluation and compilation not counted.
        tokens: trained on in this step, padding not counted, in the unit of the training.
        metrics: of the step.
        flops: of its matrix products on one device; None: nobody knows.
    """

    step: int
    progress: float
    seconds: float
    tokens: int
    metrics: dict[str, float]
    flops: int | None = None


class Hook:
    """Sees a run go by; may raise to end it. Override what matters."""

    def before_first(self, known: Account) -> None:
        """Called when the step is compiled for a shape of batches, and none of that shape has run."""

    def after_step(self, done: Done) -> None:
        """Called after each step."""

    def after_evaluation(self, step: int, score: Scored) -> None:
        """Called when what is held out was scored after `step` steps; a score may hold samples to show."""


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
        tokens: trained on, over all resumes, padding not counted, in the unit of the training.
        params: to evaluate and keep: the running average where the learner keeps one.
        evaluator: that scores them.
        skipped: steps skipped for gradients that were not finite.
    """

    end: End
    step: int
    seconds: float
    tokens: int
    params: Tree
    evaluator: Scorer
    skipped: int


class Task:
    """A training whose data stand in the run's folder.

    Args:
        experiment: that it carries out; preparing may have changed what its data forbid.
    """

    experiment: Training

    def begin(self, params: Tree) -> Tree:
        """Returns the parameters before the first step, of which `params` were drawn; by default just these.

        A run that goes on does not come by here.
        """
        return params

    def loader(self, shard: Shard) -> Prefetched:
        """Returns the batches to learn from, at their first; few shapes, for each is compiled.

        Args:
            shard: which of a batch's rows are this host's.
        """
        raise NotImplementedError

    def evaluator(self, place: Place, shard: Shard) -> Scorer:
        """Returns what scores the model; `place` puts batches on the devices as the mesh wants them."""
        raise NotImplementedError

    def hooks(self, sink: MediaSink) -> Sequence[Hook]:
        """Returns hooks of the task's own: plots and samples for the record; by default none."""
        return ()

    def finish(self, folder: RunFolder, outcome: Outcome, score: Any, summary: dict[str, Any]) -> dict[str, Any]:
        """Writes what a finished run leaves beside its checkpoints, and returns the summary with what it adds.

        By default it writes nothing and adds the score's numbers.

        Args:
            score: what its evaluator gave, over everything that is held out.
            summary: what is known of any run (`report.summarize`).
        """
        return summary | score.metrics


@functools.singledispatch
def prepare(experiment: Training, folder: RunFolder, note: Callable[[str], None]) -> Task:
    """Returns the task of an experiment, made ready in its folder or found there; by the experiment's class.

    Args:
        note: told, in a line, of each thing that is made.

    Raises:
        TrainingError: nobody has said how to prepare an experiment of this class.
    """
    raise TrainingError(
        f"nothing is known of how to prepare a {type(experiment).__name__}",
        where="experiment",
        remedy="Register a function for its class with @cupola.train.task.prepare.register.",
    )
