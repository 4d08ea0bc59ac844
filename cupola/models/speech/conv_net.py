"""Convolutions in a row, each normalized over the batch: the encoder's and the post-net's.

Invariant: what stands where the mask is false never reaches what stands where it is true, at any depth.
Source: Shen et al. 2017, arXiv 1712.05884, section 2.2.
"""

import enum

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from cupola.config.value import bound
from cupola.core.context import Aside, Context
from cupola.core.errors import ConfigError
from cupola.core.module import Module, Tree
from cupola.layers.batch_norm import BatchNorm
from cupola.layers.convolution import Conv1d
from cupola.layers.dropout import Dropout
from cupola.models.speech.assembled import Assembled


class Curve(enum.Enum):
    """What follows a normalized convolution."""

    RELU = "relu"
    TANH = "tanh"
    NONE = "none"

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Returns it of each element."""
        match self:
            case Curve.RELU:
                return jax.nn.relu(x)
            case Curve.TANH:
                return jnp.tanh(x)
            case Curve.NONE:
                return x


class ConvBlock(Module):
    """dropout(curve(norm(convolution(x)))).

    Args:
        width: numbers in a frame of the input.
        outputs: numbers in a frame of the output.
        convolution: over time.
        norm: over the batch.
        curve: what follows.
        dropout: in training.
    """

    width: int = bound("numbers in a frame")
    outputs: int = bound("numbers in a frame of the output")
    convolution: Conv1d = Conv1d(taps=5)
    norm: BatchNorm = BatchNorm()
    curve: Curve = Curve.RELU
    dropout: Dropout = Dropout(rate=0.5)

    def shares(self) -> dict[str, object]:
        """Returns its fields; the norm stands after the convolution."""
        return super().shares() | {"channels": self.outputs}

    def __call__(
        self, p: Tree, x: Float[Array, "B T D"], mask: Bool[Array, "B T"] | None = None, *, context: Context
    ) -> tuple[Float[Array, "B T F"], Aside]:
        """Returns the frames, and the statistics aside."""
        x, said = self.norm(p["norm"], self.convolution(p["convolution"], x, mask), mask, context=context)
        return self.dropout(self.curve(x), context), said.under("norm")


class ConvNet(Assembled):
    """`layers` blocks from `width` over `hidden` to `outputs` numbers a frame.

    Args:
        width: numbers in a frame of the input.
        hidden: of a block but the last.
        outputs: of the last block.
        layers: how many.
        taps: frames that a convolution sees, odd.
        curve: of a block but the last.
        last: the last block's.
        dropout: of each block.
        norm_rate: how far running statistics move to each batch's.
        norm_epsilon: added to variances.
    """

    width: int
    hidden: int
    outputs: int
    layers: int
    taps: int = 5
    curve: Curve = Curve.RELU
    last: Curve = Curve.RELU
    dropout: Dropout = Dropout(rate=0.5)
    norm_rate: float = 0.1
    norm_epsilon: float = 1e-5

    def check(self) -> None:
        if self.layers < 1 or self.taps % 2 == 0:
            raise ConfigError(
                f"layers={self.layers}, taps={self.taps}",
                where="layers",
                remedy="Use 1 layer or more, and an odd number of taps.",
            )

    @property
    def reach(self) -> int:
        """Frames at each side that a frame of the output depends on."""
        return self.layers * (self.taps // 2)

    def parts(self) -> dict[str, Module]:
        widths = [self.width, *[self.hidden] * (self.layers - 1), self.outputs]
        return {
            str(i): ConvBlock(
                precision=self.precision,
                width=widths[i],
                outputs=widths[i + 1],
                convolution=Conv1d(taps=self.taps),
                norm=BatchNorm(rate=self.norm_rate, epsilon=self.norm_epsilon),
                curve=self.last if i == self.layers - 1 else self.curve,
                dropout=self.dropout,
            )
            for i in range(self.layers)
        }

    def __call__(
        self, p: Tree, x: Float[Array, "B T D"], mask: Bool[Array, "B T"] | None = None, *, context: Context
    ) -> tuple[Float[Array, "B T F"], Aside]:
        """Returns the frames, and the statistics aside."""
        every = Aside()
        for name, block in self.parts().items():
            x, said = block(p[name], x, mask, context=context.at(name))
            every |= said.under(name)
        return x, every
