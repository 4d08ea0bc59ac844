"""The gated activation in float32."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from cupola.core.dtype import FLOAT32, Precision
from cupola.kernels.gated.activation import Activation


def gate(
    gates: Float[Array, "*N F"], values: Float[Array, "*N F"], activation: Activation, precision: Precision = FLOAT32
) -> Float[Array, "*N F"]:
    """Returns activation(gates) * values."""
    return (activation(gates.astype(jnp.float32)) * values.astype(jnp.float32)).astype(gates.dtype)
