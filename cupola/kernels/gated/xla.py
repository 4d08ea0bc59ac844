"""The gated activation for the compiler, in the dtype that it is given."""

from jaxtyping import Array, Float

from cupola.kernels.gated.activation import Activation


def gate(gates: Float[Array, "*N F"], values: Float[Array, "*N F"], activation: Activation) -> Float[Array, "*N F"]:
    """Returns activation(gates) * values."""
    return activation(gates) * values
