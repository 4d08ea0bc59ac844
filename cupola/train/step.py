"""One training step, as a pure function.

Invariant: the loss is the mean over the whole batch's weights, however the batch is cut into micro
batches or split over devices.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from cupola.core.context import Context, Mode
from cupola.core.module import Tree
from cupola.data.loader import Batch
from cupola.kernels.cross_entropy import PLAIN, Objective
from cupola.models.decoder import Decoder
from cupola.optim.accumulate import Graded, accumulated
from cupola.train.experiment import Experiment
from cupola.train.state import TrainState

Metrics = dict[str, Array]
StepFunction = Callable[[TrainState, Batch, Float[Array, ""]], tuple[TrainState, Metrics]]


def make_step(experiment: Experiment) -> StepFunction:
    """Returns step(state, batch, progress) -> (state, metrics), to be compiled with state donated.

    Metrics: "loss" (nats a token, with what the objective adds), what the model says aside, and the learner's.
    """
    specs = experiment.model.specs()

    def step(state: TrainState, batch: Batch, progress: Float[Array, ""]) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(state.key, state.step)

        def graded(part: Batch, number: Int[Array, ""]) -> Graded:
            context = Context(mode=Mode.TRAIN, key=jax.random.fold_in(key, number))
            loss = partial(batch_loss, experiment.model, batch=part, context=context, objective=experiment.objective)
            return jax.value_and_grad(loss, has_aux=True)(state.params)

        (_, (_, metrics)), gradient = accumulated(graded, batch, experiment.micro_batches)
        params, learner, learned = experiment.learner.update(gradient, state.learner, state.params, specs, progress)
        new = TrainState(step=state.step + 1, params=params, learner=learner, key=state.key)
        return new, metrics | learned

    return step


def batch_loss(
    model: Decoder, params: Tree, *, batch: Batch, context: Context, objective: Objective = PLAIN
) -> tuple[Float[Array, ""], tuple[Float[Array, ""], Metrics]]:
    """Returns (loss, (weight, metrics)), each a sum over the batch's weights.

    What the model says aside, auxiliary losses and metrics alike, counts once for each unit of weight.
    """
    hidden = model(params, batch.tokens, positions=batch.positions, segments=batch.segments, context=context)
    loss = model.loss(params, hidden.states, batch.targets, batch.weights, objective)
    weight, said = jnp.sum(batch.weights), hidden.aside
    metrics = {"loss": loss} | {name: weight * jnp.mean(value) for name, value in said.metrics.items()}
    metrics |= {name: weight * jnp.sum(value) for name, value in said.losses.items()}
    return sum((metrics[name] for name in said.losses), loss), (weight, metrics)
