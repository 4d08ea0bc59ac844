"""The gated activation for the compiler; its gradient computes the activation again from what came in.

Kept are the two arrays that came in, which the products before it have made in any case, and none
of what the activation makes on its way.
"""

from functools import partial

import jax
from jaxtyping import Array, Float

from cupola.kernels.gated.activation import Activation


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def gate(gates: Float[Array, "*N F"], values: Float[Array, "*N F"], activation: Activation) -> Float[Array, "*N F"]:
    """Returns activation(gates) * values."""
    return activation(gates) * values


def _forward(gates, values, activation):
    return activation(gates) * values, (gates, values)


def _backward(activation, kept, gradient):
    # Behind the barrier, or the compiler finds the forward pass's exponentials and keeps those.
    gates, values = jax.lax.optimization_barrier(kept)
    active, pull = jax.vjp(activation, gates)
    (for_gates,) = pull((gradient * values).astype(active.dtype))
    return for_gates, (gradient * active).astype(values.dtype)


gate.defvjp(_forward, _backward)
