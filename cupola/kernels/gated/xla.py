"""The gated activation for the compiler; its gradient computes the activation again from what came in.

Kept are the two arrays that came in, in the dtype in which they would be multiplied, and none of what
the activation makes on its way: on a CPU, reading memory takes longer than an exponential.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cupola.core.dtype import FLOAT32, Precision
from cupola.kernels.gated.activation import Activation


def gate(
    gates: Float[Array, "*N F"], values: Float[Array, "*N F"], activation: Activation, precision: Precision = FLOAT32
) -> Float[Array, "*N F"]:
    """Returns activation(gates) * values."""
    wide = jnp.promote_types(gates.dtype, values.dtype)
    return _gate(gates.astype(wide), values.astype(wide), activation, precision).astype(gates.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _gate(gates, values, activation, precision):
    return activation(gates) * values


def _forward(gates, values, activation, precision):
    # The barriers, here and below, keep the compiler from keeping what it has made on the way instead.
    kept = jax.lax.optimization_barrier((gates.astype(precision.compute), values.astype(precision.compute)))
    return activation(gates) * values, kept


def _backward(activation, precision, kept, gradient):
    gates, values = (x.astype(gradient.dtype) for x in jax.lax.optimization_barrier(kept))
    active, pull = jax.vjp(activation, gates)
    (for_gates,) = pull(gradient * values)
    return for_gates, gradient * active


_gate.defvjp(_forward, _backward)
