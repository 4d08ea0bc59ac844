"""Normalization layers."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from cupola.config.value import bound
from cupola.core.module import Module, Tree
from cupola.core.param import Constant, Param, Role
from cupola.kernels.norm import layer_norm, rms_norm


class RMSNorm(Module):
    """Divides each row by its root mean square and scales it by a learned vector.

    Args:
        width: of a row.
        epsilon: added to the mean square.
        offset: added to the vector, which is kept less it: Gemma's is 1.
    """

    width: int = bound("residual width")
    epsilon: float = 1e-6
    offset: float = 0.0

    def params(self) -> dict[str, Param]:
        return {"scale": Param((self.width,), "D", init=Constant(value=1.0 - self.offset), role=Role.SCALAR)}

    def __call__(self, p: Tree, x: Float[Array, "*N D"]) -> Float[Array, "*N D"]:
        """Returns the normalized rows."""
        # In float32, for 1 + w has fewer digits in bf16 than w.
        scale = p["scale"].astype(jnp.float32) + self.offset if self.offset else p["scale"]
        return rms_norm(x, scale, epsilon=self.epsilon)


class LayerNorm(Module):
    """Brings each row to mean 0 and variance 1, then scales and moves it by learned vectors.

    Args:
        width: of a row.
        epsilon: added to the variance.
    """

    width: int = bound("residual width")
    epsilon: float = 1e-5

    def params(self) -> dict[str, Param]:
        return {
            "scale": Param((self.width,), "D", init=Constant(value=1.0), role=Role.SCALAR),
            "offset": Param((self.width,), "D", init=Constant(), role=Role.SCALAR),
        }

    def __call__(self, p: Tree, x: Float[Array, "*N D"]) -> Float[Array, "*N D"]:
        """Returns the normalized rows."""
        return layer_norm(x, p["scale"], p["offset"], epsilon=self.epsilon)


Norm = RMSNorm | LayerNorm
"""What a block may normalize with."""
