"""The gated activation on a GPU; its gradient computes the activation again from what came in, as in `xla.py`."""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array, Float

from cupola.core.dtype import FLOAT32, Precision
from cupola.kernels.gated.activation import Activation
from cupola.kernels.gpu import launch, power, refused_formats

BLOCK = (4, 1024)
"""Rows and numbers of each that a program computes; of narrower rows as many more."""
ERF_ABOVE = (-2.72614225801306e-10, 2.77068142495902e-08, -2.10102402082508e-06, -5.69250639462346e-05,
             -7.34990630326855e-04, -2.95459980854025e-03, -1.60960333262415e-02)  # fmt: skip
ERF_BELOW = (-1.45660718464996e-05, -2.13374055278905e-04, -1.68282697438203e-03, -7.37332916720468e-03,
             -1.42647390514189e-02)  # fmt: skip
"""The error function as the quotient of two polynomials in the square, up to 4, where it is 1: what XLA computes in
float32, which Triton has no function for."""
CUBIC = 0.044715
"""Of the argument of the tanh that stands for GELU's."""


def gate(
    gates: Float[Array, "*N F"], values: Float[Array, "*N F"], activation: Activation, precision: Precision = FLOAT32
) -> Float[Array, "*N F"]:
    """Returns activation(gates) * values."""
    return _gate(gates, values, activation, precision.compute)


def refuses(gates, values, activation: Activation, precision: Precision = FLOAT32) -> list[str]:
    """Returns the dtypes that there is no kernel for."""
    reasons = refused_formats(**{"gates": gates.dtype, "values": values.dtype, "precision.compute": precision.compute})
    if gates.dtype != values.dtype:
        reasons.append(f"gates are {gates.dtype.name} and values {values.dtype.name}")
    return reasons


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _gate(gates, values, activation, compute):
    return _map(_forward_kernel, activation, gates, values, results=(gates.dtype,))[0]


def _forward(gates, values, activation, compute):
    return _gate(gates, values, activation, compute), (gates.astype(compute), values.astype(compute))


def _backward(activation, compute, kept, gradient):
    return tuple(_map(_backward_kernel, activation, *kept, gradient, results=(gradient.dtype,) * 2))


_gate.defvjp(_forward, _backward)


def _map(kernel, activation, *arrays, results):
    """Returns what a kernel makes of each element of arrays of one shape, in arrays of these dtypes."""
    shape, width = arrays[0].shape, arrays[0].shape[-1]
    rows = math.prod(shape[:-1])
    across = power(width, BLOCK[1])
    block = power(rows, BLOCK[0] * BLOCK[1] // across), across
    spec = pl.BlockSpec(block, lambda i, j: (i, j))
    made = launch(
        partial(kernel, activation, (rows, width)),
        [jax.ShapeDtypeStruct((rows, width), dtype) for dtype in results],
        [x.reshape(rows, width) for x in arrays],
        grid=(pl.cdiv(rows, block[0]), pl.cdiv(width, block[1])),
        inputs=[spec] * len(arrays),
        outputs=[spec] * len(results),
        numbers=block[0] * block[1],
    )
    return [x.reshape(shape) for x in made]


def _forward_kernel(activation, sizes, gates_ref, values_ref, out_ref):
    gates, values, inside = _read(sizes, gates_ref, values_ref)
    active, _ = _active(activation, gates)
    triton.store(out_ref, (active * values).astype(out_ref.dtype), mask=inside)


def _backward_kernel(activation, sizes, gates_ref, values_ref, gradient_ref, for_gates_ref, for_values_ref):
    gates, values, gradient, inside = _read(sizes, gates_ref, values_ref, gradient_ref)
    active, slope = _active(activation, gates)
    triton.store(for_gates_ref, (gradient * values * slope).astype(for_gates_ref.dtype), mask=inside)
    triton.store(for_values_ref, (gradient * active).astype(for_values_ref.dtype), mask=inside)


def _read(sizes, *refs):
    """Returns the program's block of each array in float32, and what of it is inside."""
    (rows, width), (high, wide) = sizes, refs[0].shape
    row, column = pl.program_id(0) * high + jnp.arange(high), pl.program_id(1) * wide + jnp.arange(wide)
    inside = (row < rows)[:, None] & (column < width)[None]
    return *(triton.load(ref, mask=inside, other=0).astype(jnp.float32) for ref in refs), inside


def _active(activation: Activation, x: Float[Array, "R W"]) -> tuple[Float[Array, "R W"], Float[Array, "R W"]]:
    """Returns the activation of float32 numbers and its slope."""
    match activation:
        case Activation.SILU:
            share = 1 / (1 + jnp.exp(-x))
            return x * share, share * (1 + x * (1 - share))
        case Activation.GELU:
            below = 0.5 * (1 + _erf(x * math.sqrt(0.5)))
            return x * below, below + x * jnp.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
        case Activation.GELU_TANH:
            steep = math.sqrt(2 / math.pi)
            part = jnp.tanh(steep * (x + CUBIC * x * x * x))
            below = 0.5 * (1 + part)
            return x * below, below + 0.5 * x * (1 - part * part) * steep * (1 + 3 * CUBIC * x * x)
        case Activation.RELU:
            # Compared so that a NaN stays one.
            return jnp.where(x <= 0, 0.0, x), jnp.where(x <= 0, 0.0, 1.0)
        case Activation.RELU_SQUARED:
            positive = jnp.where(x <= 0, 0.0, x)
            return positive * positive, 2 * positive


def _erf(x: Float[Array, "R W"]) -> Float[Array, "R W"]:
    x = jnp.where(x > 4, 4.0, jnp.where(x < -4, -4.0, x))
    above, below = (jnp.zeros_like(x) + factors[0] for factors in (ERF_ABOVE, ERF_BELOW))
    for factor in ERF_ABOVE[1:]:
        above = above * (x * x) + factor
    for factor in ERF_BELOW[1:]:
        below = below * (x * x) + factor
    return x * above / below
