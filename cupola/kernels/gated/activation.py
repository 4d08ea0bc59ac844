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
                return jax.nn.silu(x)
            case Activation.GELU:
                return jax.nn.gelu(x, approximate=False)
            case Activation.GELU_TANH:
                return jax.nn.gelu(x, approximate=True)
            case Activation.RELU:
                return jax.nn.relu(x)
            case Activation.RELU_SQUARED:
                return jnp.square(jax.nn.relu(x))
