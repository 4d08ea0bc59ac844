"""One training step, as a pure function.

Not here: what the loss is (`Training.loss`). Invariant: it is the mean over the whole batch's weights,
however the batch is cut into micro batches or split over devices.
"""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, Float, Int

from cupola.core.context import Aside, Context, Mode
from cupola.optim.accumulate import Graded, accumulated
from cupola.train.experiment import Training
from cupola.train.state import TrainState

Metrics = dict[str, Array]
StepFunction = Callable[[TrainState, Any, Float[Array, ""]], tuple[TrainState, Metrics]]


def make_step(experiment: Training) -> StepFunction:
    """Returns step(state, batch, progress) -> (state, metrics), to be compiled with state donated.

    Metrics: the loss's own, such as "loss" with all that the objective adds, and the learner's.
    """
    specs = experiment.model.specs()

    def step(state: TrainState, batch: Any, progress: Float[Array, ""]) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(state.key, state.step)

        def graded(part: Any, number: Int[Array, ""]) -> Graded:
            context = Context(mode=Mode.TRAIN, key=jax.random.fold_in(key, number))
            return jax.value_and_grad(experiment.loss, has_aux=True)(state.params, part, context)

        (_, (_, metrics, said)), gradient = accumulated(graded, batch, experiment.micro_batches)
        params, learner, learned = experiment.learner.update(
            gradient, state.learner, state.params, specs, progress, Aside(state=said)
        )
        new = TrainState(step=state.step + 1, params=params, learner=learner, key=state.key)
        return new, metrics | learned

    return step
