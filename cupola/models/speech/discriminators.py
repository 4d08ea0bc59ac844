"""Discriminators of sound: by period and by spectrum. Each says of many places how real they are.

A period's network sees every period-th sample as a sequence of its own, so that it hears pitch; a
resolution's sees the magnitudes of a spectrum as a picture, so that it hears what is smeared or missing.
Not here: the game that they play (`adversarial.py`).
Source: Kong et al. 2020, arXiv 2010.05646, section 2.3 (periods); Jang et al. 2021, arXiv 2106.07889,
section 2.3 (resolutions; our layers are those of its Vocos form, arXiv 2306.00814, but for a Hann window).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cupola.config.value import bound
from cupola.core.errors import ConfigError
from cupola.core.module import Module, Tree
from cupola.core.record import record
from cupola.data.audio.spectrum import Stft
from cupola.layers.convolution import Conv1d, Padding
from cupola.layers.convolution2d import Conv2d
from cupola.layers.weight_norm import WeightNorm
from cupola.models.speech.assembled import Assembled

_SLOPE = 0.1
_SCORE_TAPS = 3
"""Of the layer that scores, in a discriminator of a period."""


@record
class Verdict:
    """What a discriminator makes of sounds.

    Args:
        scores: [B, S] of each place; higher is more real.
        maps: what each layer saw, the scores included: what a generator learns to match.
    """

    scores: Float[Array, "B S"]
    maps: tuple[Array, ...]


class PeriodDiscriminator(Assembled):
    """Convolutions over every period-th sample.

    Args:
        period: samples from one that it sees to the next.
        widths: of the layers; all but the last skip.
        taps: that a layer sees, odd.
        stride: of the layers that skip.
    """

    period: int
    widths: tuple[int, ...] = bound("numbers in a place, layer by layer")
    taps: int = 5
    stride: int = 3

    def parts(self) -> dict[str, Module]:
        def conv(width: int, outputs: int, taps: int, stride: int) -> WeightNorm:
            inner = Conv1d(width=width, outputs=outputs, taps=taps, stride=stride, padding=Padding.NONE)
            return WeightNorm(precision=self.precision, inner=inner)

        last = len(self.widths) - 1
        layers = {
            f"layer_{i}": conv(before, after, self.taps, 1 if i == last else self.stride)
            for i, (before, after) in enumerate(zip((1, *self.widths), self.widths, strict=False))
        }
        return {**layers, "scores": conv(self.widths[-1], 1, _SCORE_TAPS, 1)}

    def __call__(self, p: Tree, samples: Float[Array, "B N"]) -> Verdict:
        """Returns its verdict."""
        batch, missing = len(samples), -samples.shape[1] % self.period
        whole = jnp.pad(samples, ((0, 0), (0, missing)), mode="reflect")
        folded = whole.reshape(batch, -1, self.period).swapaxes(1, 2)
        x, maps = folded.reshape(batch * self.period, -1, 1), []
        for name, layer in self.parts().items():
            reach = ((_SCORE_TAPS if name == "scores" else self.taps) - 1) // 2
            x = layer(p[name], jnp.pad(x, ((0, 0), (reach, reach), (0, 0))))
            x = x if name == "scores" else jax.nn.leaky_relu(x, _SLOPE)
            maps.append(x)
        return _verdict(batch, maps)


class ResolutionDiscriminator(Assembled):
    """Convolutions over the magnitudes of a spectrum.

    Args:
        stft: of the spectrum.
        width: of the layers.
    """

    stft: Stft
    width: int = bound("numbers in a place")

    def parts(self) -> dict[str, Module]:
        def conv(width: int, outputs: int, taps: tuple[int, int], stride: tuple[int, int]) -> WeightNorm:
            return WeightNorm(
                precision=self.precision, inner=Conv2d(width=width, outputs=outputs, taps=taps, stride=stride)
            )

        width = self.width
        return {
            "layer_0": conv(1, width, (5, 7), (2, 2)),
            "layer_1": conv(width, width, (3, 5), (1, 2)),
            "layer_2": conv(width, width, (3, 5), (2, 2)),
            "layer_3": conv(width, width, (3, 3), (1, 2)),
            "layer_4": conv(width, width, (3, 3), (2, 2)),
            "scores": conv(width, 1, (3, 3), (1, 1)),
        }

    def __call__(self, p: Tree, samples: Float[Array, "B N"]) -> Verdict:
        """Returns its verdict.

        Raises:
            AudioError: too few samples for a spectrum.
        """
        x, maps = jnp.abs(self.stft(samples))[..., None], []
        for name, layer in self.parts().items():
            x = layer(p[name], x)
            x = x if name == "scores" else jax.nn.leaky_relu(x, _SLOPE)
            maps.append(x)
        return _verdict(len(samples), maps)


def _verdict(batch: int, maps: list[Array]) -> Verdict:
    whole = tuple(x.astype(jnp.float32) for x in maps)
    return Verdict(scores=whole[-1].reshape(batch, -1), maps=whole)


class Discriminators(Assembled):
    """All of them.

    Args:
        periods: of one each.
        widths: of a period's layers.
        stfts: of one each.
        width: of a resolution's layers.

    Example:
        Discriminators()                                                # HiFi-GAN's periods, Vocos' resolutions
        Discriminators(widths=(8, 32, 64, 128, 128), width=16)          # some hundredth of their products
    """

    periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    widths: tuple[int, ...] = (32, 128, 512, 1024, 1024)
    stfts: tuple[Stft, ...] = (Stft(size=1024, hop=256), Stft(size=2048, hop=512), Stft(size=512, hop=128))
    width: int = 64

    def check(self) -> None:
        if not self.periods and not self.stfts:
            raise ConfigError("no discriminators", where="periods", remedy="Name periods such as (2, 3, 5, 7, 11).")
        if min((1, *self.periods)) < 1 or len(set(self.periods)) < len(self.periods):
            raise ConfigError(f"{self.periods}", where="periods", remedy="Name each once, such as (2, 3, 5, 7, 11).")
        if not self.widths or min(*self.widths, self.width) < 1:
            raise ConfigError(
                f"widths={self.widths}, width={self.width}", where="widths", remedy="Use 1 or more for each layer."
            )

    def parts(self) -> dict[str, Module]:
        by_period = {
            f"period_{n}": PeriodDiscriminator(precision=self.precision, period=n, widths=self.widths)
            for n in self.periods
        }
        by_resolution = {
            f"resolution_{i}": ResolutionDiscriminator(precision=self.precision, stft=stft, width=self.width)
            for i, stft in enumerate(self.stfts)
        }
        return {**by_period, **by_resolution}

    def __call__(self, p: Tree, samples: Float[Array, "B N"]) -> tuple[tuple[Verdict, ...], tuple[Verdict, ...]]:
        """Returns the verdicts of those by period, and of those by resolution."""
        told = {name: part(p[name], samples) for name, part in self.parts().items()}
        of_periods = tuple(verdict for name, verdict in told.items() if name.startswith("period"))
        return of_periods, tuple(verdict for name, verdict in told.items() if name.startswith("resolution"))
