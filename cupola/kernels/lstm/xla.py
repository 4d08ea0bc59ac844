"""The cell for the compiler: a scan whose step has one product, and whose gradient makes that of the matrix at once.

Kept for the gradient are the gates and the cells; the gradient of the matrix, a sum over all steps, is one product
after the scan, where a step of its own for each would read and write the matrix every time.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cupola.core.dtype import FLOAT32, Precision
from cupola.kernels.product import contiguous, operand, product


def lstm(
    inputs: Float[Array, "B T G"],
    recurrent: Float[Array, "W G"],
    hidden: Float[Array, "B W"],
    cell: Float[Array, "B W"],
    precision: Precision = FLOAT32,
) -> tuple[Float[Array, "B T W"], Float[Array, "B W"]]:
    """Returns the hidden state after each step, and the last cell."""
    given = (x.astype(jnp.float32) for x in (inputs, recurrent, hidden, cell))
    hiddens, last = _lstm(*given, precision)
    return hiddens.astype(inputs.dtype), last.astype(cell.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _lstm(inputs, recurrent, hidden, cell, precision):
    return _forward(inputs, recurrent, hidden, cell, precision)[0]


def _forward(inputs, recurrent, hidden, cell, precision):
    matrix = operand(recurrent, precision, hidden.shape[0])

    def step(state, given):
        hidden, cell = state
        sums = given + product(operand(hidden, precision, hidden.shape[0]), matrix, (1, 0), precision)
        enter, forget, new, show = jnp.split(sums, 4, -1)
        gates = *map(jax.nn.sigmoid, (enter, forget)), jnp.tanh(new), jax.nn.sigmoid(show)
        cell = gates[1] * cell + gates[0] * gates[2]
        hidden = gates[3] * jnp.tanh(cell)
        return (hidden, cell), (hidden, cell, jnp.concatenate(gates, -1))

    (_, last), out = jax.lax.scan(step, (hidden, cell), inputs.swapaxes(0, 1))
    hiddens, cells, gates = (x.swapaxes(0, 1) for x in out)
    return (hiddens, last), (recurrent, hidden, cell, hiddens, cells, gates)


def _backward(precision, kept, gradients):
    recurrent, hidden, cell, hiddens, cells, gates = kept
    for_hiddens, for_last = gradients
    matrix = contiguous(operand(recurrent, precision, hidden.shape[0]).T)
    before = jnp.concatenate((cell[:, None], cells[:, :-1]), 1) if cells.shape[1] else cells

    def step(state, given):
        (for_hidden, for_cell), (more, cell, before, gates) = state, given
        enter, forget, new, show = jnp.split(gates, 4, -1)
        shown, for_hidden = jnp.tanh(cell), for_hidden + more
        for_cell = for_cell + for_hidden * show * (1 - shown * shown)
        sums = jnp.concatenate(
            (
                for_cell * new * enter * (1 - enter),
                for_cell * before * forget * (1 - forget),
                for_cell * enter * (1 - new * new),
                for_hidden * shown * show * (1 - show),
            ),
            -1,
        )
        back = product(operand(sums, precision, hidden.shape[0]), matrix, (1, 0), precision)
        return (back, for_cell * forget), sums

    over = tuple(x.swapaxes(0, 1) for x in (for_hiddens, cells, before, gates))
    (for_hidden, for_cell), sums = jax.lax.scan(step, (jnp.zeros_like(hidden), for_last), over, reverse=True)
    sums = sums.swapaxes(0, 1)
    return sums, for_matrix(hidden, hiddens, sums, precision), for_hidden, for_cell


def for_matrix(
    hidden: Float[Array, "B W"], hiddens: Float[Array, "B T W"], sums: Float[Array, "B T G"], precision: Precision
) -> Float[Array, "W G"]:
    """Returns the gradient of the matrix: the sum over steps of the state before it times what its sums got."""
    before = jnp.concatenate((hidden[:, None], hiddens[:, :-1]), 1) if hiddens.shape[1] else hiddens
    states, sums = before.reshape(-1, before.shape[-1]), sums.reshape(-1, sums.shape[-1])
    left = contiguous(operand(states, precision, states.shape[1]).T)
    return product(left, operand(sums, precision, states.shape[1]), (1, 0), precision)


_lstm.defvjp(_forward, _backward)
