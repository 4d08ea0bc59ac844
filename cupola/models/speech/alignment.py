"""How well a decoder reads: whether what it looks at goes from the first symbol to the last.

Not here: the attention itself (`layers/location_attention.py`). Each is a number from 0 to 1, 1 the
best. Attention that never moves is monotonic too, so only both together say that a model reads.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from cupola.layers.convolution import within
from cupola.layers.location_attention import off_diagonal


def monotonicity(weights: Float[Array, "B T S"], frames: Int[Array, " B"]) -> Float[Array, " B"]:
    """Returns the share of steps after which a row looks at the same symbol or a later one; 1 of a single frame.

    Args:
        weights: of each frame t over symbols s.
        frames: how many each row has.
    """
    at = jnp.argmax(weights, -1)
    steps = within(frames, weights.shape[1])[:, 1:]
    onward = jnp.where(steps, at[:, 1:] >= at[:, :-1], False).sum(-1)
    return jnp.where(frames > 1, onward / jnp.maximum(frames - 1, 1), 1.0)


def diagonality(
    weights: Float[Array, "B T S"], frames: Int[Array, " B"], symbols: Int[Array, " B"], *, width: float = 0.2
) -> Float[Array, " B"]:
    """Returns how much of a row's weight is near the diagonal: 1 less the loss of guided attention.

    Args:
        weights: of each frame t over symbols s.
        frames: how many each row has.
        symbols: how many each row has.
        width: how far from the diagonal is near, in shares of the utterance.
    """
    return 1 - off_diagonal(weights, frames, symbols, width=width)
