"""Vocos: sound of log-mel frames by one inverse Fourier transform.

All layers work at the rate of frames; the last says the spectrum of each frame, and the overlapping
frames add up. HiFi-GAN makes samples of frames by layers of transposed convolutions, the last of which
work at the rate of samples: of about the same size and quality, Vocos is an order of magnitude faster,
which is why it is the fast vocoder here.
Not here: sound of frames that come bit by bit (`vocoders.py`), what it learns from (`spectral_loss.py`,
`discriminators.py`). Invariant: frames where a mask is false reach no others.
Source: Siuzdak 2023, arXiv 2306.00814, abstract (speed) and section 3; Liu et al. 2022, arXiv 2201.03545 (blocks).
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Complex, Float

from cupola.config.value import bound
from cupola.core.errors import ConfigError, ShapeError
from cupola.core.module import Module, Tree
from cupola.core.param import Constant, Normal, Param, Role
from cupola.data.audio.spectrum import Stft
from cupola.kernels.gated import Activation
from cupola.layers.convolution import Conv1d, silenced
from cupola.layers.feed_forward import MLP
from cupola.layers.linear import Linear
from cupola.layers.norm import LayerNorm
from cupola.models.speech.assembled import Assembled

_SMALL = Normal(std=0.02)


class ConvNeXtBlock(Assembled):
    """x + scale * mlp(norm(convolution(x))), where the convolution sees each number by itself.

    Args:
        width: numbers in a frame.
        hidden: between the two products.
        taps: frames that the convolution sees, odd.
        first_scale: the scale before training.
    """

    width: int = bound("numbers in a frame inside")
    hidden: int
    taps: int = 7
    first_scale: float = 1.0

    def params(self) -> dict[str, Param]:
        return {"scale": Param((self.width,), "D", init=Constant(value=self.first_scale), role=Role.SCALAR)}

    def parts(self) -> dict[str, Module]:
        width, precision = self.width, self.precision
        return {
            "convolution": Conv1d(
                precision=precision, width=width, outputs=width, groups=width, taps=self.taps, init_weight=_SMALL
            ),
            "norm": LayerNorm(precision=precision, width=width, epsilon=1e-6),
            "mlp": MLP(
                precision=precision, width=width, hidden=self.hidden, activation=Activation.GELU, init_output=_SMALL
            ),
        }

    def __call__(
        self, p: Tree, x: Float[Array, "B T D"], mask: Bool[Array, "B T"] | None = None
    ) -> Float[Array, "B T D"]:
        """Returns the next frames."""
        parts = self.parts()
        seen = parts["norm"](p["norm"], parts["convolution"](p["convolution"], x, mask))
        return x + parts["mlp"](p["mlp"], seen) * p["scale"].astype(x.dtype)[None, None]


class Vocos(Assembled):
    """Convolutions over frames, and the spectrum of each: size * e^(i angle).

    Args:
        bins: numbers in a log-mel frame.
        stft: of the spectra; its hop is the frames'.
        width: numbers in a frame inside.
        hidden: between the products of a block.
        layers: blocks.
        taps: frames that a convolution sees, odd.
        most: no magnitude is larger; full scale gives some hundreds.

    Example:
        Vocos(bins=100, stft=Stft(size=1024, hop=256))                         # the paper's
        Vocos(bins=80, stft=Stft(size=1200, hop=300), width=256, hidden=768)   # a quarter of its products
    """

    bins: int = bound("numbers in a frame")
    stft: Stft = bound("of the spectra")
    width: int = 512
    hidden: int = 1536
    layers: int = 8
    taps: int = 7
    most: float = 100.0

    def check(self) -> None:
        for name in ("bins", "width", "hidden", "layers", "most"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{getattr(self, name)}", where=name, remedy="Use a number above 0.")
        if self.taps < 1 or self.taps % 2 == 0:
            raise ConfigError(f"{self.taps} taps have no middle", where="taps", remedy="Use an odd number, such as 7.")

    @property
    def reach(self) -> int:
        """Frames on either side of one that its spectrum depends on."""
        return (self.layers + 1) * (self.taps // 2)

    def parts(self) -> dict[str, Module]:
        precision = self.precision
        block = ConvNeXtBlock(
            precision=precision, width=self.width, hidden=self.hidden, taps=self.taps, first_scale=1 / self.layers
        )
        return {
            "first": Conv1d(
                precision=precision, width=self.bins, outputs=self.width, taps=self.taps, init_weight=_SMALL
            ),
            "first_norm": LayerNorm(precision=precision, width=self.width, epsilon=1e-6),
            **{f"block_{i}": block for i in range(self.layers)},
            "last_norm": LayerNorm(precision=precision, width=self.width, epsilon=1e-6),
            "spectrum": Linear(
                precision=precision, width=self.width, outputs=2 * self.stft.bins, bias=True, init_weight=_SMALL
            ),
        }

    def spectrum(
        self, p: Tree, features: Float[Array, "B T M"], mask: Bool[Array, "B T"] | None = None
    ) -> Complex[Array, "B T K"]:
        """Returns the spectrum of each frame.

        Args:
            mask: which frames there are; None means all. Others get a spectrum of 0.

        Numerics: magnitudes and angles in float32.
        """
        parts = self.parts()
        x = parts["first_norm"](p["first_norm"], parts["first"](p["first"], features, mask))
        for name in (f"block_{i}" for i in range(self.layers)):
            x = parts[name](p[name], x, mask)
        told = parts["spectrum"](p["spectrum"], parts["last_norm"](p["last_norm"], x)).astype(jnp.float32)
        logs, angles = jnp.split(silenced(told, mask), 2, axis=-1)
        size = jnp.minimum(jnp.exp(logs), self.most)
        if mask is not None:
            size = silenced(size, mask)
        return size * jnp.cos(angles) + 1j * (size * jnp.sin(angles))

    def __call__(self, p: Tree, features: Float[Array, "B T M"], samples: int | None = None) -> Float[Array, "B N"]:
        """Returns the sound of frames.

        Args:
            samples: how many to return; None means the least that have T frames.

        Raises:
            ShapeError: there are no frames.
        """
        if not features.shape[1]:
            raise ShapeError("there are no frames to make sound of", where="features", remedy="Give at least one.")
        return self.stft.inverse(self.spectrum(p, features), samples)
