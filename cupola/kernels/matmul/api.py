"""One matrix product for every layer: it knows the precision policy and dispatches on the form.

Not here: forms (`form.py`), attention's products of activations (`attention/`).
Invariant: a weight's form changes the cost of a product, never its meaning.
"""

from jaxtyping import Array, Float

from cupola.core.dtype import Precision
from cupola.core.errors import ShapeError
from cupola.kernels.choose import Implementation, Operation
from cupola.kernels.matmul import cpu, reference, xla
from cupola.kernels.matmul.form import Int8, LowRank, Weight
from cupola.kernels.native.library import implementations

DOT = Operation(
    "dot",
    (
        *implementations(cpu.dot, cpu.refuses),
        Implementation("xla", xla.dot),
        Implementation("reference", reference.dot),
    ),
)


def dot(
    x: Float[Array, "..."],
    weight: Weight,
    precision: Precision,
    *,
    contract: int = 1,
    implementation: str | None = None,
) -> Float[Array, "..."]:
    """Returns x . weight, summed over the last dims of x and the first dims of the weight.

    Args:
        x: [..., K] activations, where K may be several dims.
        weight: [K, F] in any form (`form.py`), where F may be several dims.
        precision: operands in `compute`, sums in `accumulate`, the result in `output`.
        contract: how many dims K is.

    Raises:
        ShapeError: the dims summed over disagree.
        Unsupported: an implementation was named that cannot honour the form.

    Cost: 2*M*K*F FLOPs for M rows.
    """
    shape = shape_of(weight)
    if x.shape[x.ndim - contract :] != shape[:contract]:
        raise ShapeError(
            f"activations end in {x.shape[x.ndim - contract :]}, but the weight begins with {shape[:contract]}",
            where="dot",
            remedy=f"Pass activations whose last {contract} dims are {shape[:contract]}.",
        )
    return DOT(implementation, x, weight, precision, contract)


def shape_of(weight: Weight) -> tuple[int, ...]:
    """Returns the shape of the matrix that a form stands for."""
    match weight:
        case Int8():
            return weight.values.shape
        case LowRank():
            return shape_of(weight.base)
    return weight.shape
