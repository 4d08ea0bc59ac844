"""The cell as the equations, one step after another, in float32."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cupola.core.dtype import FLOAT32, Precision


def lstm(
    inputs: Float[Array, "B T G"],
    recurrent: Float[Array, "W G"],
    hidden: Float[Array, "B W"],
    cell: Float[Array, "B W"],
    precision: Precision = FLOAT32,
) -> tuple[Float[Array, "B T W"], Float[Array, "B W"]]:
    """Returns the hidden state after each step, and the last cell."""
    matrix = _rounded(recurrent.astype(jnp.float32), precision)

    def step(state, given):
        hidden, cell = state
        product = jnp.matmul(_rounded(hidden, precision), matrix, precision=jax.lax.Precision.HIGHEST)
        enter, forget, new, show = jnp.split(given + product, 4, -1)
        cell = jax.nn.sigmoid(forget) * cell + jax.nn.sigmoid(enter) * jnp.tanh(new)
        hidden = jax.nn.sigmoid(show) * jnp.tanh(cell)
        return (hidden, cell), hidden

    start = hidden.astype(jnp.float32), cell.astype(jnp.float32)
    (_, last), hiddens = jax.lax.scan(step, start, inputs.astype(jnp.float32).swapaxes(0, 1))
    return hiddens.swapaxes(0, 1).astype(inputs.dtype), last.astype(cell.dtype)


def _rounded(x: Float[Array, "..."], precision: Precision) -> Float[Array, "..."]:
    return x.astype(precision.compute).astype(jnp.float32)
