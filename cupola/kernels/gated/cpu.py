"""The gated activation in native code; its gradient computes the activation again from what came in.

Kept are the two arrays that came in, in the dtype in which they would be multiplied: where that is not their own, the
forward pass writes them in it while it reads them.
"""

from functools import partial

import jax
import numpy as np
from jaxtyping import Array, Float

from cupola.core.dtype import FLOAT32, Precision
from cupola.kernels.gated.activation import Activation
from cupola.kernels.native.level import Level
from cupola.kernels.native.library import call

DTYPES = ("float32", "bfloat16")
NUMBERS = {activation: np.int32(number) for number, activation in enumerate(Activation)}


def gate(
    gates: Float[Array, "*N F"],
    values: Float[Array, "*N F"],
    activation: Activation,
    precision: Precision = FLOAT32,
    *,
    level: Level,
) -> Float[Array, "*N F"]:
    """Returns activation(gates) * values."""
    return _gate(gates, values, activation, precision.compute, level)


def refuses(
    gates: Float[Array, "*N F"],
    values: Float[Array, "*N F"],
    activation: Activation,
    precision: Precision = FLOAT32,
    *,
    level: Level,
) -> list[str]:
    """Returns the dtypes that there is no kernel for."""
    named = {"gates are": gates.dtype, "values are": values.dtype, "what is kept is": precision.compute}
    reasons = [f"{what} {d.name}, and it takes {' and '.join(DTYPES)}" for what, d in named.items() if d not in DTYPES]
    if gates.dtype != values.dtype:
        reasons.append(f"gates are {gates.dtype.name} and values {values.dtype.name}")
    return reasons


def _compute(gates, values, activation, kept, level):
    results = [jax.ShapeDtypeStruct(gates.shape, gates.dtype), *(jax.ShapeDtypeStruct(*each) for each in [kept] * 2)]
    return call("gate_forward", level, results, gates, values, activation=NUMBERS[activation])


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _gate(gates, values, activation, compute, level):
    return _compute(gates, values, activation, ((0,), gates.dtype), level)[0]


def _forward(gates, values, activation, compute, level):
    if compute == gates.dtype:
        return _gate(gates, values, activation, compute, level), (gates, values)
    out, *kept = _compute(gates, values, activation, (gates.shape, compute), level)
    return out, tuple(kept)


def _backward(activation, compute, level, kept, gradient):
    results = [jax.ShapeDtypeStruct(gradient.shape, gradient.dtype)] * 2
    return tuple(call("gate_backward", level, results, *kept, gradient, activation=NUMBERS[activation]))


_gate.defvjp(_forward, _backward)
