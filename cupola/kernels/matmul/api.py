"""One matrix product for every layer: it knows the precision policy and dispatches on the form.

Not here: forms (`form.py`), attention's products of activations (`attention/`).
Invariant: a weight's form changes the cost of a product, never its meaning.
"""

from collections.abc import Sequence

import jax
from jaxtyping import Array, Float, Int

from cupola.core.dtype import Precision
from cupola.core.errors import ShapeError
from cupola.kernels.choose import Implementation, Operation
from cupola.kernels.gpu import implementation as on_gpu
from cupola.kernels.matmul import cpu, dense, gpu, reference, xla
from cupola.kernels.matmul.form import Int8, LowRank, Weight
from cupola.kernels.matmul.packed import Packed
from cupola.kernels.native.library import implementations

DOT = Operation(
    "dot",
    (
        *implementations(cpu.dot, cpu.refuses),
        Implementation("xla", xla.dot),
        on_gpu(gpu.dot, gpu.refuses),
        Implementation("reference", reference.dot),
    ),
)
DOTS = Operation(
    "dots",
    (
        Implementation("xla", xla.dots),
        *implementations(dense.dots, dense.refuses),
        Implementation("reference", reference.dots),
    ),
)
DOT_EXPERTS = Operation(
    "dot_experts",
    (
        *implementations(cpu.dot_experts, cpu.refuses_experts),
        Implementation("xla", xla.dot_experts),
        on_gpu(gpu.dot_experts, gpu.refuses_experts),
        Implementation("reference", reference.dot_experts),
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
    _check(x, weight, contract)
    if isinstance(weight, jax.Array):
        return DOTS(implementation, x, (weight,), precision, contract)[0]
    return DOT(implementation, x, weight, precision, contract)


def dots(
    x: Float[Array, "..."],
    weights: Sequence[Weight],
    precision: Precision,
    *,
    contract: int = 1,
    implementation: str | None = None,
) -> tuple[Float[Array, "..."], ...]:
    """Returns x . weight for each of several weights; arguments as in `dot`.

    Cost: as many products, with plain matrices less: x is read once, and its gradient is one sum.
    """
    for weight in weights:
        _check(x, weight, contract)
    if all(isinstance(weight, jax.Array) for weight in weights):
        return DOTS(implementation, x, tuple(weights), precision, contract)
    return tuple(dot(x, weight, precision, contract=contract, implementation=implementation) for weight in weights)


def dot_experts(
    x: Float[Array, "N K"],
    weight: Weight,
    sizes: Int[Array, " E"],
    precision: Precision,
    *,
    implementation: str | None = None,
) -> Float[Array, "N F"]:
    """Returns rows that stand in groups, each times the matrix of its group; rows beyond all groups are zero.

    Args:
        x: rows, sorted by expert.
        weight: matrices [E, K, F], an array or a stack of `Packed`.
        sizes: how many rows each expert has.
        precision: operands in `compute`, sums in `accumulate`, the result in `output`.

    Raises:
        ShapeError: the dims summed over disagree, or there are not as many sizes as matrices.
        Unsupported: an implementation was named that cannot honour the form.

    Cost: 2*N*K*F FLOPs for N rows. Numerics: natively a row's bits do not depend on the other rows.
    """
    experts, inputs = (weight.values.shape[0], weight.shape[0]) if isinstance(weight, Packed) else weight.shape[:2]
    if x.shape[1] != inputs or sizes.shape != (experts,):
        raise ShapeError(
            f"activations {x.shape} with {sizes.shape[0]} sizes do not go with {experts} matrices of {inputs} inputs",
            where="dot_experts",
            remedy=f"Pass activations of [N, {inputs}] and {experts} sizes.",
        )
    return DOT_EXPERTS(implementation, x, weight, sizes, precision)


def _check(x: Float[Array, "..."], weight: Weight, contract: int) -> None:
    shape = shape_of(weight)
    if x.shape[x.ndim - contract :] != shape[:contract]:
        raise ShapeError(
            f"activations end in {x.shape[x.ndim - contract :]}, but the weight begins with {shape[:contract]}",
            where="dot",
            remedy=f"Pass activations whose last {contract} dims are {shape[:contract]}.",
        )


def shape_of(weight: Weight) -> tuple[int, ...]:
    """Returns the shape of the matrix that a form stands for."""
    match weight:
        case Int8():
            return weight.values.shape
        case LowRank():
            return shape_of(weight.base)
    return weight.shape
