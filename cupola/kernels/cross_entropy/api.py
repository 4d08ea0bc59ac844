"""Cross-entropy, from logits or fused with the linear head that makes them: then a batch's are never whole in memory.

Not here: which positions count (the batch's weights say), the mean (the trainer takes it).
Source: Hsu et al. 2024 (Liger-Kernel), section 3.2, for the gradient taken in the forward pass.
"""

from jaxtyping import Array, Float, Int

from cupola.core.dtype import FLOAT32, Precision
from cupola.core.errors import ShapeError
from cupola.kernels.choose import Implementation, Operation
from cupola.kernels.cross_entropy import cpu, gpu, reference, softmax, xla
from cupola.kernels.cross_entropy.objective import PLAIN, Losses, Objective
from cupola.kernels.gpu import implementation as on_gpu
from cupola.kernels.native.library import implementations

CROSS_ENTROPY = Operation(
    "cross_entropy",
    (
        Implementation("xla", softmax.cross_entropy),
        on_gpu(gpu.cross_entropy, gpu.refuses_logits),
        Implementation("reference", reference.cross_entropy),
    ),
)
LINEAR_CROSS_ENTROPY = Operation(
    "linear_cross_entropy",
    (
        *implementations(cpu.linear_cross_entropy, cpu.refuses_losses),
        Implementation("xla", xla.linear_cross_entropy),
        on_gpu(gpu.linear_cross_entropy, gpu.refuses_losses),
        Implementation("reference", reference.linear_cross_entropy),
    ),
)
LINEAR_LOSSES = Operation(
    "linear_losses",
    (
        *implementations(cpu.linear_losses, cpu.refuses_losses),
        Implementation("xla", xla.linear_losses),
        on_gpu(gpu.linear_losses, gpu.refuses_losses),
        Implementation("reference", reference.linear_losses),
    ),
)
LINEAR_LOG_PROBS = Operation(
    "linear_log_probs",
    (
        *implementations(cpu.linear_log_probs, cpu.refuses_log_probs),
        Implementation("xla", xla.linear_log_probs),
        on_gpu(gpu.linear_log_probs, gpu.refuses_log_probs),
        Implementation("reference", reference.linear_log_probs),
    ),
)


def cross_entropy(
    logits: Float[Array, "B T V"],
    targets: Int[Array, "B T"],
    weights: Float[Array, "B T"],
    *,
    objective: Objective = PLAIN,
    class_weights: Float[Array, " V"] | None = None,
    implementation: str | None = None,
) -> Float[Array, ""]:
    """Returns the sum of weights * the objective's loss over given logits.

    A position of weight 0 adds nothing and gets no gradient, whatever its logits and its target are.

    Args:
        class_weights: constants; no gradient flows to them.

    Raises:
        ShapeError: class weights are not one for each class.
        Unsupported: an implementation was named that does not exist.

    Cost: logits are read once forward and once backward, and nothing of their size is kept beside them.
    Numerics: float32, the gradient in the logits' dtype.
    """
    _check_classes(logits.shape[-1], class_weights)
    return CROSS_ENTROPY(implementation, logits, targets, weights, objective, class_weights)


def linear_cross_entropy(
    x: Float[Array, "B T D"],
    head: Float[Array, "V D"],
    targets: Int[Array, "B T"],
    weights: Float[Array, "B T"],
    *,
    precision: Precision = FLOAT32,
    objective: Objective = PLAIN,
    class_weights: Float[Array, " V"] | None = None,
    implementation: str | None = None,
) -> Float[Array, ""]:
    """Returns the sum of weights * the objective's loss over x . head; by default -log softmax(x . head)[targets].

    A position of weight 0 adds nothing and gets no gradient, whatever its target is.

    Args:
        class_weights: constants; no gradient flows to them.

    Raises:
        ShapeError: the widths of x and head disagree, or class weights are not one for each class.
        Unsupported: an implementation was named that does not exist or cannot honour the precision.

    Cost: 2*B*T*D*V FLOPs, three times that with the gradient; at most one chunk of logits is held.
    Numerics: operands in `precision.compute`; logits, their sum and the gradient's sums in float32.
    """
    _check_widths(x, head)
    _check_classes(head.shape[0], class_weights)
    return LINEAR_CROSS_ENTROPY(implementation, x, head, targets, weights, precision, objective, class_weights)


def linear_losses(
    x: Float[Array, "B T D"],
    head: Float[Array, "V D"],
    targets: Int[Array, "B T"],
    weights: Float[Array, "B T"],
    *,
    precision: Precision = FLOAT32,
    objective: Objective = PLAIN,
    class_weights: Float[Array, " V"] | None = None,
    implementation: str | None = None,
) -> Losses:
    """Returns `linear_cross_entropy` with what is said aside: the z-loss in it, and how many targets are the largest.

    Only `loss` has a gradient. Raises, cost and numerics are those of `linear_cross_entropy`; finding the
    largest reads each block of logits twice more.
    """
    _check_widths(x, head)
    _check_classes(head.shape[0], class_weights)
    return LINEAR_LOSSES(implementation, x, head, targets, weights, precision, objective, class_weights)


def linear_log_probs(
    x: Float[Array, "B T D"],
    head: Float[Array, "V D"],
    targets: Int[Array, "B T"],
    *,
    precision: Precision = FLOAT32,
    soft_cap: float | None = None,
    implementation: str | None = None,
) -> Float[Array, "B T"]:
    """Returns log softmax(x . head)[targets], a number in nats for each position.

    Args:
        soft_cap: logits become soft_cap * tanh(logits / soft_cap).

    Raises:
        ShapeError: the widths of x and head disagree.
        Unsupported: an implementation was named that does not exist or cannot honour the precision.

    Cost: 2*B*T*D*V FLOPs, four times that with the gradient; at most one block of logits is held.
    """
    _check_widths(x, head)
    return LINEAR_LOG_PROBS(implementation, x, head, targets, precision, soft_cap)


def _check_widths(x: Float[Array, "B T D"], head: Float[Array, "V E"]) -> None:
    if x.shape[-1] != head.shape[-1]:
        raise ShapeError(
            f"activations are {x.shape[-1]} wide, but the head takes {head.shape[-1]}",
            where="head",
            remedy="Pass the head as [vocabulary, width].",
        )


def _check_classes(vocabulary: int, class_weights: Float[Array, " W"] | None) -> None:
    if class_weights is not None and class_weights.shape != (vocabulary,):
        raise ShapeError(
            f"class weights have the shape {class_weights.shape}, and there are {vocabulary} classes",
            where="class_weights",
            remedy="Pass one weight for each class.",
        )
