"""Feed-forward networks, gated and plain.

Source: Shazeer 2020; Vaswani et al. 2017, section 3.3. Our hidden = their d_ff.
"""

from typing import ClassVar

from jaxtyping import Array, Float

from cupola.config.value import bound
from cupola.core.module import Module, Tree
from cupola.core.param import FanIn, Initializer, Param
from cupola.kernels.gated import Activation, gate
from cupola.kernels.matmul import dot
from cupola.layers.linear import bias_of, biased, maps


class GatedMLP(Module):
    """(activation(x . gate) * (x . up)) . down.

    Args:
        width: of the residual stream.
        hidden: between the products.
        activation: of the gate; SILU gives SwiGLU.
        init_output: draws the projection back to the residual stream.
    """

    width: int = bound("residual width")
    hidden: int
    activation: Activation = Activation.SILU
    init_output: Initializer = FanIn()
    beside: ClassVar[tuple[str, ...]] = ("gate", "up")

    def params(self) -> dict[str, Param]:
        return {
            "gate": Param((self.width, self.hidden), "D F"),
            "up": Param((self.width, self.hidden), "D F"),
            "down": Param((self.hidden, self.width), "F D", init=self.init_output),
        }

    def __call__(self, p: Tree, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Returns the network's output for each position."""
        gates, values = maps(x, p, self.beside_params(), self.precision)
        return dot(gate(gates, values, activation=self.activation, precision=self.precision), p["down"], self.precision)


class MLP(Module):
    """activation(x . up + up_bias) . down + down_bias.

    Args:
        width: of the residual stream.
        hidden: between the products.
        activation: between the products.
        init_output: draws the projection back to the residual stream.
    """

    width: int = bound("residual width")
    hidden: int
    activation: Activation = Activation.GELU
    init_output: Initializer = FanIn()

    def params(self) -> dict[str, Param]:
        up = Param((self.width, self.hidden), "D F")
        down = Param((self.hidden, self.width), "F D", init=self.init_output)
        return {"up": up, "up_bias": bias_of(up), "down": down, "down_bias": bias_of(down)}

    def __call__(self, p: Tree, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Returns the network's output for each position."""
        hidden = self.activation(biased(p, "up", dot(x, p["up"], self.precision)))
        return biased(p, "down", dot(hidden, p["down"], self.precision))
