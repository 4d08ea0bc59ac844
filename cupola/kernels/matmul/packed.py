"""A dense matrix in the order in which a CPU's matrix instructions read it.

Not here: the other forms (`form.py`), the products (`cpu.py`).
Invariant: `dense(packed)` is the matrix rounded to bfloat16.
"""

import dataclasses
import math

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from cupola.core.record import record
from cupola.kernels.matmul.form import dense

COLUMNS = 16
"""Outputs of one block: the float32 numbers of a register."""
DEPTH = 32
"""Inputs are padded to a multiple of it: the bfloat16 numbers of a row of a tile."""


@record
class Packed:
    """A dense matrix in bfloat16: what a server on a CPU keeps of weights that no longer change.

    Blocks of 16 outputs; in a block pairs of inputs; of a pair the two numbers of each output side by
    side. A product reads it once, in order, and a row's result is the same bits whatever other rows
    come with it. It may be stacked: `shape` is that of one matrix.

    Args:
        values: the numbers, inputs padded to a multiple of 32 and outputs to one of 16, by zeros.
        shape: of the matrix that this stands for, [K, F], where each may be several dims.
        inputs: how many dims K is.
    """

    values: Float[Array, "*L N P 16 2"]
    shape: tuple[int, ...] = dataclasses.field(kw_only=True, metadata={"static": True})
    inputs: int = dataclasses.field(default=1, kw_only=True, metadata={"static": True})

    @classmethod
    def pack(cls, weight: Float[Array, "..."], inputs: int = 1, stacked: int = 0) -> "Packed":
        """Returns the form of a matrix whose first `inputs` dims are summed over.

        Args:
            stacked: how many dims before those are a stack of matrices.
        """
        stack, shape = weight.shape[:stacked], weight.shape[stacked:]
        k, f = math.prod(shape[:inputs]), math.prod(shape[inputs:])
        around = [(0, 0)] * stacked + [(0, -k % DEPTH), (0, -f % COLUMNS)]
        flat = jnp.pad(weight.reshape(*stack, k, f).astype(jnp.bfloat16), around)
        parts = flat.reshape(*stack, flat.shape[-2] // 2, 2, flat.shape[-1] // COLUMNS, COLUMNS)
        at = len(stack)
        values = parts.transpose(*range(at), at + 2, at, at + 3, at + 1)
        return cls(values=values, shape=tuple(shape), inputs=inputs)

    @property
    def sizes(self) -> tuple[int, int]:
        """How many numbers K and F are."""
        return math.prod(self.shape[: self.inputs]), math.prod(self.shape[self.inputs :])

    @property
    def dtype(self) -> jnp.dtype:
        """In which it is multiplied."""
        return self.values.dtype

    def column(self, index: Int[Array, "..."]) -> Float[Array, "... K"]:
        """Returns the weights of some outputs: rows of a table of embeddings that is the head too."""
        found = self.values[index // COLUMNS, :, index % COLUMNS]
        return found.reshape(*index.shape, -1)[..., : self.sizes[0]]


@dense.register
def _(weight: Packed) -> Float[Array, "..."]:
    stack = weight.values.shape[:-4]
    at, (k, f) = len(stack), weight.sizes
    matrix = weight.values.transpose(*range(at), at + 1, at + 3, at, at + 2)
    matrix = matrix.reshape(*stack, 2 * weight.values.shape[-3], -1)
    return matrix[..., :k, :f].reshape(*stack, *weight.shape)
