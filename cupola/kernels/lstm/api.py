"""Long short-term memory: a state that each step reads, forgets a part of, and adds to.

Not here: the product of the input with its own matrix, which needs no step to wait for another and is made for all at
once (`kernels/matmul`); zoneout and dropout between steps, for which the caller scans over steps of length one.
The native kernel is used where it was measured to be faster: it is 1.4 to 1.5 x as fast as the compiler at 256 steps of 8 rows of 512 numbers
(with the gradient within 1.15 x of torch's in float32, 0.8 x of it in bf16), and 0.8 to 1.3 x below 512 numbers a state.
Source: Hochreiter & Schmidhuber 1997; Gers et al. 2000 (forget gate).
"""

from jaxtyping import Array, Float

from cupola.core.dtype import FLOAT32, Precision
from cupola.core.errors import ShapeError
from cupola.kernels.choose import Implementation, Operation
from cupola.kernels.lstm import cpu, reference, xla
from cupola.kernels.native.library import implementations

LSTM = Operation(
    "lstm",
    (
        Implementation("xla", xla.lstm),
        *implementations(cpu.lstm, cpu.refuses),
        Implementation("reference", reference.lstm),
    ),
)


def lstm(
    inputs: Float[Array, "B T G"],
    recurrent: Float[Array, "W G"],
    hidden: Float[Array, "B W"],
    cell: Float[Array, "B W"],
    *,
    precision: Precision = FLOAT32,
    implementation: str | None = None,
) -> tuple[Float[Array, "B T W"], Float[Array, "B W"]]:
    """Returns the hidden state after each step, and the cell after the last.

    Each step has i, f, g, o = split(inputs + hidden . recurrent), cell = sigmoid(f) * cell + sigmoid(i) * tanh(g),
    and hidden = sigmoid(o) * tanh(cell).

    Args:
        inputs: what the input and the biases add, G = 4 W numbers a step, in the order i, f, g, o (torch's).
        recurrent: what the state before is multiplied by, in the same order.
        hidden, cell: before the first step.
        precision: its `compute` is the dtype of the products' operands.

    Raises:
        ShapeError: G is not 4 W.
        Unsupported: an implementation was named that does not exist or cannot honour the arguments.

    Cost: 8*B*T*W*W FLOPs; backward needs the gates and the cells, 5*B*T*W numbers, which are kept.
    Numerics: sums, gates and cells in float32, the results in the dtypes of inputs and cell.
    """
    width = hidden.shape[-1]
    if recurrent.shape != (width, 4 * width) or inputs.shape[-1] != 4 * width:
        raise ShapeError(
            f"a state of {width} has gates of {4 * width}, but the inputs have {inputs.shape[-1]} "
            f"and the matrix is {recurrent.shape[0]} by {recurrent.shape[1]}",
            where="lstm",
            remedy="Pass four numbers for each of the state's: for its input gate, forget gate, new part, output gate.",
        )
    return LSTM(implementation, inputs, recurrent, hidden, cell, precision)
