"""Scans over steps that multiply by matrices, each of which gets its gradient in one product after the scan.

The gradient of a plain scan adds, at every step, a product of a few rows to each matrix: it reads and
writes all of them as often as there are steps, which on a CPU takes longer than everything else. Here
a step's rows are kept, and what comes back to them, and multiplied once.
Invariant: values and gradients are those of the plain scan, up to the order of sums.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cupola.core.dtype import Precision
from cupola.kernels.product import contiguous, operand, product

Times = Callable[[str, Array], Array]
"""times(name, x) is x . matrices[name], in float32."""
Step = Callable[[Times, Any, Any, Any], tuple[Any, Any]]


def recurrence(
    step: Step, matrices: Mapping[str, Float[Array, "K N"]], given: Any, state: Any, inputs: Any, precision: Precision
) -> tuple[Any, Any]:
    """Returns the state after the last step, and what each step shows, stacked on a leading dim.

    Args:
        step: step(times, given, state, input) -> (state, shown). It multiplies by each matrix once, through
            `times`, and closes over nothing that has a gradient.
        matrices: by name.
        given: whatever else has a gradient, the same at every step.
        state: before the first step.
        inputs: a tree of arrays [T, ...], of which each step sees its own.
        precision: its `compute` is the dtype of the products' operands.

    Cost: the gradient keeps each product's rows, T * rows * K numbers, and what comes back, T * rows * N.
    """
    return _recurrence(step, precision, dict(matrices), given, state, inputs)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _recurrence(step: Step, precision: Precision, matrices: Any, given: Any, state: Any, inputs: Any) -> Any:
    times = partial(_times, precision, _ready(matrices, precision))
    return jax.lax.scan(lambda now, own: step(times, given, now, own), state, inputs)


def _forward(step: Step, precision: Precision, matrices: Any, given: Any, state: Any, inputs: Any) -> Any:
    ready, length = _ready(matrices, precision), len(jax.tree.leaves(inputs)[0])
    rows = _rows(step, matrices, given, state, jax.tree.map(lambda x: x[0], inputs))

    def body(given: Any, now: Any, own: Any) -> Any:
        kept: dict[str, Array] = {}
        each, moved = own

        def times(name: str, x: Float[Array, "B K"]) -> Float[Array, "B N"]:
            kept[name] = x.astype(precision.compute)
            return _moved(_times(precision, ready, name, x), moved[name])

        now, shown = step(times, given, now, each)
        return now, (shown, kept)

    def whole(given: Any, state: Any, inputs: Any, moved: Any) -> Any:
        last, (shown, kept) = jax.lax.scan(lambda now, own: body(given, now, own), state, (inputs, moved))
        return (last, shown), kept

    still = {name: jnp.zeros((length, rows[name], w.shape[1]), jnp.float32) for name, w in matrices.items()}
    found, back, kept = jax.vjp(whole, given, state, inputs, still, has_aux=True)
    return found, (back, kept, {name: jnp.zeros((), w.dtype) for name, w in matrices.items()})


def _backward(step: Step, precision: Precision, kept: Any, gradients: Any) -> Any:
    back, rows, of = kept
    given, state, inputs, moved = back(gradients)
    matrices = {name: _of_matrix(rows[name], moved[name], precision).astype(of[name].dtype) for name in rows}
    return matrices, given, state, inputs


def _of_matrix(x: Float[Array, "T B K"], sums: Float[Array, "T B N"], precision: Precision) -> Float[Array, "K N"]:
    """The gradient of a matrix: the sum over steps and rows of what was multiplied by what came back."""
    flat, came = x.reshape(-1, x.shape[-1]), sums.reshape(-1, sums.shape[-1])
    left = contiguous(operand(flat, precision, flat.shape[1]).T)
    return product(left, operand(came, precision, flat.shape[1]), (1, 0), precision)


def _ready(matrices: Any, precision: Precision) -> dict[str, tuple[Array, Array]]:
    """Each matrix as an operand, and its transpose as one, made once for all steps."""
    stopped = {name: jax.lax.stop_gradient(w).astype(precision.compute) for name, w in matrices.items()}
    return {name: (w, contiguous(w.T)) for name, w in stopped.items()}


def _times(precision: Precision, ready: Any, name: str, x: Float[Array, "B K"]) -> Float[Array, "B N"]:
    return _product(precision, x, *ready[name])


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _product(precision: Precision, x: Array, matrix: Array, _: Array) -> Array:
    return product(operand(x, precision, len(x)).astype(matrix.dtype), matrix, (1, 0), precision).astype(jnp.float32)


def _product_forward(precision: Precision, x: Array, matrix: Array, turned: Array) -> Any:
    return _product(precision, x, matrix, turned), (turned, jnp.zeros((), x.dtype))


def _product_backward(precision: Precision, kept: Any, gradient: Array) -> Any:
    turned, like = kept
    came = product(operand(gradient, precision, len(gradient)).astype(turned.dtype), turned, (1, 0), precision)
    return came.astype(like.dtype), None, None


_product.defvjp(_product_forward, _product_backward)


@jax.custom_jvp
def _moved(made: Array, _: Array) -> Array:
    """The product; what is added to it is 0, and is there for the gradient that comes to it."""
    return made


@_moved.defjvp
def _moved_jvp(primals: Any, tangents: Any) -> Any:
    return primals[0], tangents[0] + tangents[1]


def _rows(step: Step, matrices: Any, given: Any, state: Any, own: Any) -> dict[str, int]:
    """How many rows each matrix is multiplied by in a step."""
    seen: dict[str, int] = {}

    def times(name: str, x: Float[Array, "B K"]) -> Float[Array, "B N"]:
        seen[name] = len(x)
        return jnp.zeros((len(x), matrices[name].shape[1]), jnp.float32)

    jax.eval_shape(lambda: step(times, given, state, own))
    return seen


_recurrence.defvjp(_forward, _backward)
