"""Activation functions by name."""

import enum

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class Activation(enum.Enum):
    """An element-wise non-linearity; calling a member applies it."""

    SILU = "silu"
    GELU = "gelu"
    GELU_TANH = "gelu_tanh"
    RELU = "relu"
    RELU_SQUARED = "relu_squared"

    def __call__(self, x: Float[Array, "*N F"]) -> Float[Array, "*N F"]:
        """Returns the activation of each element."""
        match self:
            case Activation.SILU:
                return _silu(x)
            case Activation.GELU:
                return jax.nn.gelu(x, approximate=False)
            case Activation.GELU_TANH:
                return jax.nn.gelu(x, approximate=True)
            case Activation.RELU:
                return jax.nn.relu(x)
            case Activation.RELU_SQUARED:
                return jnp.square(jax.nn.relu(x))


@jax.custom_jvp
def _silu(x: Float[Array, "*N F"]) -> Float[Array, "*N F"]:
    """x * sigmoid(x) by one exponential: half the time of the compiler's sigmoid on a CPU."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return (wide / (1 + jnp.exp(-wide))).astype(x.dtype)


@_silu.defjvp
def _silu_jvp(primals, tangents):
    # By hand, because the exponential overflows far below zero: the quotient is right there, its derivative is not.
    (x,), (tangent,) = primals, tangents
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    share = 1 / (1 + jnp.exp(-wide))
    return _silu(x), (tangent * (share * (1 + wide * (1 - share)))).astype(x.dtype)
