"""Normalization layers."""

from jaxtyping import Array, Float

from cupola.config.value import bound
from cupola.core.module import Module, Tree
from cupola.core.param import Constant, Param, Role
from cupola.kernels.norm import rms_norm


class RMSNorm(Module):
    """Divides each row by its root mean square and scales it by a learned vector.

    Args:
        width: of a row.
        epsilon: added to the mean square.
    """

    width: int = bound("residual width")
    epsilon: float = 1e-6

    def params(self) -> dict[str, Param]:
        return {"scale": Param((self.width,), "D", init=Constant(value=1.0), role=Role.SCALAR)}

    def __call__(self, p: Tree, x: Float[Array, "*N D"]) -> Float[Array, "*N D"]:
        """Returns the normalized rows."""
        return rms_norm(x, p["scale"], epsilon=self.epsilon)
