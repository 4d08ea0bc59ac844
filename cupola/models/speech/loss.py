"""What a speaking model is taught: frames, their end, and to read from left to right.

Not here: the mean over a batch (the trainer's). Invariant: nothing beyond an utterance's own frames and
symbols counts, whatever it is padded with.
Source: Shen et al. 2017, arXiv 1712.05884, section 2.2 (frames before and after the post-net, stop).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cupola.config.value import Value
from cupola.core.context import Context
from cupola.core.errors import ConfigError
from cupola.core.module import Tree
from cupola.data.audio.batches import SpeechBatch
from cupola.layers.convolution import within
from cupola.layers.location_attention import off_diagonal
from cupola.models.speech.tacotron import Spoken, Tacotron2

Summed = tuple[Float[Array, ""], tuple[Float[Array, ""], dict[str, Array], dict[str, Array]]]
"""(loss, (weight, metrics, state)): loss and metrics are sums over the weight, the frames of the batch."""


class Objective(Value):
    """What counts how much.

    Args:
        stop: weight of the cross-entropy of the end, in nats a frame.
        last: how much more the one frame that is the last counts in it.
        guided: weight of attention off the diagonal; 0 does without.
        guided_width: how far from the diagonal, in shares of the utterance, is not far yet.
    """

    stop: float = 1.0
    last: float = 1.0
    guided: float = 0.0
    guided_width: float = 0.2

    def check(self) -> None:
        if min(self.stop, self.last, self.guided) < 0 or self.guided_width <= 0:
            raise ConfigError(
                f"stop={self.stop}, last={self.last}, guided={self.guided}, guided_width={self.guided_width}",
                where="objective",
                remedy="Weights are 0 or more, such as 1, 1 and 0, and the width is above 0, such as 0.2.",
            )


def spoken_loss(
    model: Tacotron2, params: Tree, *, batch: SpeechBatch, context: Context, objective: Objective = Objective()
) -> Summed:
    """Returns the loss of a batch, what it is made of, and the statistics that the call said.

    Metrics: "loss"; "before" and "after", squared errors of a bin; "stop", nats a frame; "guided" where it
    counts; all as sums over frames.

    Args:
        context: with a key, in every mode: the pre-net draws in evaluation too.
    """
    spoken = model(params, batch.symbols, batch.symbol_lengths, batch.features, batch.feature_lengths, context=context)
    loss, parts = row_losses(spoken, batch, objective)
    metrics = {name: part.sum() for name, part in ({"loss": loss} | parts).items()}
    return loss.sum(), (batch.feature_lengths.sum().astype(jnp.float32), metrics, spoken.aside.state)


def row_losses(
    spoken: Spoken, batch: SpeechBatch, objective: Objective = Objective()
) -> tuple[Float[Array, " B"], dict[str, Float[Array, " B"]]]:
    """Returns the loss of each row, and what it is made of, as sums over the row's frames."""
    frames, lengths = batch.features.astype(jnp.float32), batch.feature_lengths
    mask = within(lengths, frames.shape[1])

    def squared(made: Float[Array, "B T M"]) -> Float[Array, " B"]:
        error = jnp.square(made.astype(jnp.float32) - frames).mean(-1)
        return jnp.where(mask, error, 0).sum(-1)

    ends = jnp.arange(frames.shape[1])[None] == lengths[:, None] - 1
    # log(1 + e^x) less x where it is the end, each without overflow.
    nats = jnp.where(ends, objective.last * jax.nn.softplus(-spoken.stops), jax.nn.softplus(spoken.stops))
    parts = {
        "before": squared(spoken.before),
        "after": squared(spoken.after),
        "stop": jnp.where(mask, nats, 0).sum(-1),
    }
    loss = parts["before"] + parts["after"] + objective.stop * parts["stop"]
    if objective.guided:
        far = off_diagonal(spoken.weights, lengths, batch.symbol_lengths, width=objective.guided_width)
        parts["guided"] = far * lengths
        loss = loss + objective.guided * parts["guided"]
    return loss, parts
