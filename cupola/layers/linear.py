"""A linear map, with or without a bias; maps of the same activations, beside each other or as one product."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cupola.config.value import bound
from cupola.core.dtype import Precision
from cupola.core.module import Module, Tree
from cupola.core.param import Constant, FanIn, Initializer, Param, Role
from cupola.kernels.matmul import dot, dots

JOINED = "joined"
"""Under this name a server keeps one matrix in place of some that multiply the same activations."""


def maps(x: Float[Array, "... D"], p: Tree, specs: dict[str, Param], precision: Precision) -> list[Float[Array, "..."]]:
    """Returns x times each of some weights; in one product where they were joined.

    Args:
        specs: the weights by name, each with one dim that is summed over.
    """
    if JOINED not in p:
        return list(dots(x, [p[name] for name in specs], precision))
    outputs = [spec.shape[1:] for spec in specs.values()]
    every = dot(x, p[JOINED], precision)
    ends = np.cumsum([math.prod(shape) for shape in outputs])[:-1].tolist()
    return [
        part.reshape(*x.shape[:-1], *shape)
        for part, shape in zip(jnp.split(every, ends, axis=-1), outputs, strict=True)
    ]


def biased(p: Tree, name: str, out: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns a projection with its bias added, where it has one."""
    if f"{name}_bias" not in p:
        return out
    bias = p[f"{name}_bias"].astype(out.dtype)
    return out + jax.lax.broadcast_in_dim(bias, out.shape, tuple(range(out.ndim - bias.ndim, out.ndim)))


def bias_of(weight: Param) -> Param:
    """Returns the vector, one a head where there are heads, that is added to a product with the weight."""
    shape, dims = weight.shape[weight.inputs :], weight.dims.split()[weight.inputs :]
    return Param(shape, " ".join(dims), init=Constant(), role=Role.SCALAR, stacked=len(shape) - 1)


class Linear(Module):
    """x . weight + bias.

    Args:
        width: of what comes in.
        outputs: of what goes out.
        bias: whether there is one.
        init_weight: draws the weight.
    """

    width: int = bound("residual width")
    outputs: int
    bias: bool = False
    init_weight: Initializer = FanIn()

    def params(self) -> dict[str, Param]:
        weight = {"weight": Param((self.width, self.outputs), "D F", init=self.init_weight)}
        bias = {"bias": Param((self.outputs,), "F", init=Constant(), role=Role.SCALAR)}
        return weight | bias if self.bias else weight

    def __call__(self, p: Tree, x: Float[Array, "*N D"]) -> Float[Array, "*N F"]:
        """Returns the map of each row."""
        out = dot(x, p["weight"], self.precision)
        return out + jax.lax.broadcast_in_dim(p["bias"], out.shape, (out.ndim - 1,)) if self.bias else out
