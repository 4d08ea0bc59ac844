"""Log-probabilities of whole answers, from the fused linear log-probabilities of their tokens.

Not here: what is made of them (`losses.py`). A loss and its gradient hold one block of logits, because
`linear_log_probs` does: every loss of this folder is a function of `Answers`.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from cupola.core.dtype import FLOAT32, Precision
from cupola.kernels.cross_entropy import linear_log_probs


class Answers(NamedTuple):
    """One answer a row.

    Args:
        sums: of its tokens' log-probabilities.
        tokens: how many count, by their weights.
    """

    sums: Float[Array, " B"]
    tokens: Float[Array, " B"]

    @property
    def means(self) -> Float[Array, " B"]:
        """The log-probability of a token; 0 where none counts."""
        return self.sums / jnp.where(self.tokens == 0, 1, self.tokens)


def linear_answers(
    x: Float[Array, "B T D"],
    head: Float[Array, "V D"],
    targets: Int[Array, "B T"],
    weights: Float[Array, "B T"],
    *,
    precision: Precision = FLOAT32,
    soft_cap: float | None = None,
    implementation: str | None = None,
) -> Answers:
    """Returns the answers' log-probabilities under softmax(x . head).

    Args:
        weights: 1 where a token is the answer's; positions of weight 0 may hold anything.

    Raises:
        ShapeError: the widths of x and head disagree.
        Unsupported: an implementation was named that does not exist or cannot honour the precision.

    Cost: 2*B*T*D*V FLOPs, four times that with the gradient; at most one block of logits is held.
    """
    counts = weights != 0
    seen, real = jnp.where(counts[..., None], x, 0), jnp.where(counts, targets, 0)
    log_probs = linear_log_probs(
        seen, head, real, precision=precision, soft_cap=soft_cap, implementation=implementation
    )
    return Answers(jnp.sum(weights * log_probs, -1), jnp.sum(weights, -1))
