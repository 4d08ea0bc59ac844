"""The loss of a batch of text.

Not here: the gradient and the mean over micro batches (`step.py`).
"""

import jax.numpy as jnp

from cupola.core.context import Context
from cupola.core.module import Tree
from cupola.data.loader import Batch
from cupola.kernels.cross_entropy import PLAIN, Objective
from cupola.models.decoder import Decoder
from cupola.optim.accumulate import Summed


def batch_loss(model: Decoder, params: Tree, *, batch: Batch, context: Context, objective: Objective = PLAIN) -> Summed:
    """Returns (loss, (weight, metrics, state)), all but the state sums over the batch's weights.

    What the model says aside, auxiliary losses and metrics alike, counts once for each unit of weight.
    """
    hidden = model(params, batch.tokens, positions=batch.positions, segments=batch.segments, context=context)
    loss = model.loss(params, hidden.states, batch.targets, batch.weights, objective)
    weight, said = jnp.sum(batch.weights), hidden.aside
    metrics = {"loss": loss} | {name: weight * jnp.mean(value) for name, value in said.metrics.items()}
    metrics |= {name: weight * jnp.sum(value) for name, value in said.losses.items()}
    return sum((metrics[name] for name in said.losses), loss), (weight, metrics, said.state)
