"""A linear map, with or without a bias."""

import jax
from jaxtyping import Array, Float

from cupola.config.value import bound
from cupola.core.module import Module, Tree
from cupola.core.param import Constant, FanIn, Initializer, Param, Role
from cupola.kernels.matmul import dot


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
