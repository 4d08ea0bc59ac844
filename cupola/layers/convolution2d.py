"""Convolutions over time and frequency, [B, T, K, D], for networks that look at spectra as at pictures.

Not here: convolutions over time alone (`convolution.py`).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cupola.config.value import bound
from cupola.core.errors import ConfigError
from cupola.core.module import Module, Tree
from cupola.core.param import Constant, FanIn, Initializer, Param, Role
from cupola.layers.convolution import kernel_dims


class Conv2d(Module):
    """out[t, k] = sum over v, w of x[stride * (t, k) + (v, w) - (taps - 1) / 2] . weight[v, w] + bias.

    Beyond the edges are zeros, so that one output comes out for each stride.

    Args:
        width: numbers in a place of the input.
        outputs: numbers in a place of the output.
        taps: places that an output sees, in time and in frequency; odd.
        stride: places from one output to the next, in time and in frequency.
        bias: whether there is one.
        init_weight: draws the weight.
    """

    width: int = bound("numbers in a place")
    outputs: int
    taps: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    bias: bool = True
    init_weight: Initializer = FanIn()

    def check(self) -> None:
        if min(self.width, self.outputs, *self.stride) < 1 or not all(n > 0 and n % 2 for n in self.taps):
            raise ConfigError(
                f"width={self.width}, outputs={self.outputs}, taps={self.taps}, stride={self.stride}",
                where="taps",
                remedy="Use 1 or more, and odd taps, such as (3, 5).",
            )

    def params(self) -> dict[str, Param]:
        dims = kernel_dims("W W", self.width, self.outputs)
        shape = *self.taps, self.width, self.outputs
        weight = {"weight": Param(shape, dims, init=self.init_weight, inputs=3)}
        bias = {"bias": Param((self.outputs,), dims.split()[-1], init=Constant(), role=Role.SCALAR)}
        return weight | bias if self.bias else weight

    def __call__(self, p: Tree, x: Float[Array, "B T K D"]) -> Float[Array, "B U J F"]:
        """Returns the convolution."""
        compute = self.precision.compute
        out = jax.lax.conv_general_dilated(
            x.astype(compute),
            p["weight"].astype(compute),
            self.stride,
            [(taps // 2, taps // 2) for taps in self.taps],
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=jax.lax.Precision.HIGHEST if compute == jnp.float32 else None,
            preferred_element_type=self.precision.accumulate,
        ).astype(self.precision.output)
        return out + jax.lax.broadcast_in_dim(p["bias"], out.shape, (3,)) if self.bias else out
