"""Divergences for distillation, fused with the linear heads: neither side's logits are ever whole in memory.

Not here: the mean over positions, temperature^2 (the trainer's choice). Invariant: the teacher gets no gradient.
Source: Hsu et al. 2024 (Liger-Kernel), section 3.2, for the gradient taken in the forward pass.
"""

from jaxtyping import Array, Float

from cupola.core.dtype import FLOAT32, Precision
from cupola.core.errors import ShapeError
from cupola.kernels.choose import Implementation, Operation
from cupola.kernels.divergence import reference, xla
from cupola.kernels.divergence.measure import Measure

LINEAR_DIVERGENCE = Operation(
    "linear_divergence",
    (Implementation("xla", xla.linear_divergence), Implementation("reference", reference.linear_divergence)),
)


def linear_divergence(
    x: Float[Array, "B T D"],
    head: Float[Array, "V D"],
    teacher_x: Float[Array, "B T E"],
    teacher_head: Float[Array, "V E"],
    weights: Float[Array, "B T"],
    *,
    measure: Measure,
    precision: Precision = FLOAT32,
    implementation: str | None = None,
) -> Float[Array, ""]:
    """Returns the sum of weights * the divergence of softmax(x . head) from softmax(teacher_x . teacher_head).

    A position of weight 0 adds nothing and gets no gradient; nothing flows to the teacher.

    Raises:
        ShapeError: widths disagree, or student and teacher have different vocabularies.
        Unsupported: an implementation was named that does not exist.

    Cost: 2*B*T*V*(D + E) FLOPs, and 4*B*T*D*V for the gradient; one chunk of both logits is held.
    Numerics: operands in `precision.compute`, everything else in float32.
    """
    for name, rows, matrix in (("head", x, head), ("teacher_head", teacher_x, teacher_head)):
        if rows.shape[-1] != matrix.shape[-1]:
            raise ShapeError(
                f"activations are {rows.shape[-1]} wide, but the head takes {matrix.shape[-1]}",
                where=name,
                remedy="Pass the head as [vocabulary, width].",
            )
    if head.shape[0] != teacher_head.shape[0]:
        raise ShapeError(
            f"the student has {head.shape[0]} classes, and the teacher {teacher_head.shape[0]}",
            where="teacher_head",
            remedy="Distil between models of one tokenizer, or cut both heads to the tokens that they share.",
        )
    return LINEAR_DIVERGENCE(implementation, x, head, teacher_x, teacher_head, weights, precision, measure)
