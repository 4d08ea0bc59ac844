"""Cross-entropy of a linear head: the logits of a batch are never whole in memory.

Not here: which positions count (the batch's weights say), the mean (the trainer takes it).
Source: Hsu et al. 2024 (Liger-Kernel), section 3.2, for the gradient taken in the forward pass.
"""

from jaxtyping import Array, Float, Int

from cupola.core.dtype import FLOAT32, Precision
from cupola.core.errors import ShapeError
from cupola.kernels.choose import Implementation, Operation
from cupola.kernels.cross_entropy import reference, xla

LINEAR_CROSS_ENTROPY = Operation(
    "linear_cross_entropy",
    (Implementation("xla", xla.linear_cross_entropy), Implementation("reference", reference.linear_cross_entropy)),
)
LINEAR_LOG_PROBS = Operation(
    "linear_log_probs",
    (Implementation("xla", xla.linear_log_probs), Implementation("reference", reference.linear_log_probs)),
)


def linear_cross_entropy(
    x: Float[Array, "B T D"],
    head: Float[Array, "V D"],
    targets: Int[Array, "B T"],
    weights: Float[Array, "B T"],
    *,
    precision: Precision = FLOAT32,
    implementation: str | None = None,
) -> Float[Array, ""]:
    """Returns the sum of -weights * log softmax(x . head)[targets].

    A position of weight 0 adds nothing and gets no gradient, whatever its target is.

    Raises:
        ShapeError: the widths of x and head disagree.
        Unsupported: an implementation was named that does not exist.

    Cost: 2*B*T*D*V FLOPs, three times that with the gradient; at most one chunk of logits is held.
    Numerics: operands in `precision.compute`; logits, their sum and the gradient's sums in float32.
    """
    _check_widths(x, head)
    return LINEAR_CROSS_ENTROPY(implementation, x, head, targets, weights, precision)


def linear_log_probs(
    x: Float[Array, "B T D"],
    head: Float[Array, "V D"],
    targets: Int[Array, "B T"],
    *,
    precision: Precision = FLOAT32,
    implementation: str | None = None,
) -> Float[Array, "B T"]:
    """Returns log softmax(x . head)[targets], a number in nats for each position.

    Raises:
        ShapeError: the widths of x and head disagree.
        Unsupported: an implementation was named that does not exist.

    Cost: 2*B*T*D*V FLOPs; at most one chunk of logits is held.
    """
    _check_widths(x, head)
    return LINEAR_LOG_PROBS(implementation, x, head, targets, precision)


def _check_widths(x: Float[Array, "B T D"], head: Float[Array, "V E"]) -> None:
    if x.shape[-1] != head.shape[-1]:
        raise ShapeError(
            f"activations are {x.shape[-1]} wide, but the head takes {head.shape[-1]}",
            where="head",
            remedy="Pass the head as [vocabulary, width].",
        )
