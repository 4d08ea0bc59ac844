"""The cell in native code: rows of the batch are shared out among threads, which never wait for one another.

A thread takes a few rows through all steps; the matrix, in the order in which it is read, stays in its cache.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cupola.core.dtype import FLOAT32, Precision
from cupola.kernels.lstm import xla
from cupola.kernels.native.level import Level
from cupola.kernels.native.library import call

DTYPES = ("float32", "bfloat16")


def lstm(
    inputs: Float[Array, "B T G"],
    recurrent: Float[Array, "W G"],
    hidden: Float[Array, "B W"],
    cell: Float[Array, "B W"],
    precision: Precision = FLOAT32,
    *,
    level: Level,
) -> tuple[Float[Array, "B T W"], Float[Array, "B W"]]:
    """Returns the hidden state after each step, and the last cell."""
    given = (x.astype(jnp.float32) for x in (inputs, recurrent, hidden, cell))
    hiddens, last = _lstm(*given, precision, level)
    return hiddens.astype(inputs.dtype), last.astype(cell.dtype)


def refuses(
    inputs: Float[Array, "B T G"],
    recurrent: Float[Array, "W G"],
    hidden: Float[Array, "B W"],
    cell: Float[Array, "B W"],
    precision: Precision = FLOAT32,
    *,
    level: Level,
) -> list[str]:
    """Returns the formats that there is no kernel for."""
    compute = precision.compute
    return [] if compute in DTYPES else [f"products are of {compute.name}, and it takes {' and '.join(DTYPES)}"]


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _lstm(inputs, recurrent, hidden, cell, precision, level):
    hiddens, last, _, _ = _run(inputs, recurrent, hidden, cell, precision, level, 0)
    return hiddens, last


def _run(inputs, recurrent, hidden, cell, precision, level, keeps):
    (b, t), w = inputs.shape[:2], hidden.shape[1]
    shapes = (b, t, w), (b, w), (keeps * b, t, w), (keeps * b, t, 4 * w)
    results = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return call("lstm_forward", level, results, inputs, recurrent.astype(precision.compute), hidden, cell)


def _forward(inputs, recurrent, hidden, cell, precision, level):
    hiddens, last, cells, gates = _run(inputs, recurrent, hidden, cell, precision, level, 1)
    return (hiddens, last), (recurrent, hidden, cell, hiddens, cells, gates)


def _backward(precision, level, kept, gradients):
    recurrent, hidden, cell, hiddens, cells, gates = kept
    shapes = gates.shape, hidden.shape, hidden.shape
    results = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    matrix = recurrent.T.astype(precision.compute)
    sums, for_hidden, for_cell = call("lstm_backward", level, results, *gradients, matrix, cell, cells, gates)
    return sums, xla.for_matrix(hidden, hiddens, sums, precision), for_hidden, for_cell


_lstm.defvjp(_forward, _backward)
