"""Weight normalization: a weight is a direction and, for each output, a length.

Invariant: outputs depend on directions by their angle alone.
Source: Salimans and Kingma 2016, arXiv 1602.07868; our direction, length = their v, g.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cupola.core.module import Module, Tree
from cupola.core.param import Constant, Param, Role
from cupola.layers.convolution import Conv1d
from cupola.layers.convolution2d import Conv2d


class WeightNorm(Module):
    """A convolution whose weight is length * direction / |direction|, for each output.

    Args:
        inner: the convolution; its weight is the direction.
    """

    inner: Conv1d | Conv2d

    def params(self) -> dict[str, Param]:
        weight = self.inner.params()["weight"]
        # FanIn draws directions of length 1, on average.
        return {"length": Param(weight.shape[-1:], weight.dims.split()[-1], init=Constant(value=1.0), role=Role.SCALAR)}

    def __call__(self, p: Tree, x: Float[Array, "B ... D"]) -> Float[Array, "B ... F"]:
        """Returns what the convolution makes with the normalized weight.

        Numerics: lengths in float32.
        """
        direction = p["inner"]["weight"].astype(jnp.float32)
        square = jnp.sum(jnp.square(direction), range(direction.ndim - 1))
        scale = p["length"].astype(jnp.float32) * jax.lax.rsqrt(jnp.maximum(square, 1e-20))
        weight = direction * jax.lax.broadcast_in_dim(scale, direction.shape, (direction.ndim - 1,))
        return self.inner(p["inner"] | {"weight": weight}, x)
