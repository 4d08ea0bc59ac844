"""WaveNet: sound of log-mel frames, one sample after another.

Training sees all samples at once; speaking goes sample by sample from a view of each convolution's last
inputs, so its time is linear in samples. Invariant: both give the same distributions.
Source: van den Oord et al. 2016, arXiv 1609.03499, section 2; sizes: Shen et al. 2017, arXiv 1712.05884,
section 2.3 and table 4 (our reach + 1 = its receptive field); widths, which it does not say, as in the
common ports.
"""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, Key

from cupola.config.value import bound
from cupola.core.errors import ConfigError, ShapeError
from cupola.core.module import Module, Tree
from cupola.core.param import Constant, Normal, Param, Role
from cupola.core.record import record
from cupola.layers.convolution import Conv1d, ConvTranspose1d, Padding, Past, within
from cupola.layers.linear import Linear
from cupola.models.speech.assembled import Assembled
from cupola.models.speech.logistics import Logistics


class GatedLayer(Assembled):
    """x + residual(z) and skip(z), where z = tanh(a) sigmoid(b) and a, b = convolution(x) + condition(features).

    Args:
        bins: numbers in a conditioning frame.
        residual: numbers in a sample inside the network.
        skip: numbers that go to the output.
        taps: samples that it sees.
        dilation: samples from one tap to the next.
    """

    bins: int
    residual: int
    skip: int
    taps: int
    dilation: int

    def parts(self) -> dict[str, Module]:
        def linear(width: int, outputs: int, bias: bool) -> Linear:
            return Linear(precision=self.precision, width=width, outputs=outputs, bias=bias)

        return {
            "convolution": self.convolution,
            "condition": linear(self.bins, 2 * self.residual, False),
            "residual": linear(self.residual, self.residual, True),
            "skip": linear(self.residual, self.skip, True),
        }

    @property
    def convolution(self) -> Conv1d:
        """Over the samples before."""
        return Conv1d(
            precision=self.precision,
            width=self.residual,
            outputs=2 * self.residual,
            taps=self.taps,
            dilation=self.dilation,
            padding=Padding.CAUSAL,
        )

    def __call__(
        self, p: Tree, x: Float[Array, "B N R"], condition: Float[Array, "B N M"]
    ) -> tuple[Float[Array, "B N R"], Float[Array, "B N K"]]:
        """Returns (what goes to the next layer, what goes to the output)."""
        return self._gated(p, self.convolution(p["convolution"], x), x, condition)

    def step(
        self, p: Tree, x: Float[Array, "B R"], condition: Float[Array, "B M"], past: Past
    ) -> tuple[Float[Array, "B R"], Float[Array, "B K"], Past]:
        """Returns the same of one more sample, and the view after it."""
        seen, past = self.convolution.step(p["convolution"], x, past)
        return *self._gated(p, seen, x, condition), past

    def _gated(self, p: Tree, seen: Array, x: Array, condition: Array) -> tuple[Array, Array]:
        parts = self.parts()
        new, gate = jnp.split(seen + parts["condition"](p["condition"], condition), 2, axis=-1)
        z = jnp.tanh(new) * jax.nn.sigmoid(gate)
        return x + parts["residual"](p["residual"], z), parts["skip"](p["skip"], z)


@record
class Sounding:
    """What a sample leaves to the next: the views of the convolutions, and the sample.

    Args:
        pasts: of each layer.
        sample: [B] the last.
        time: how many went before, an int32 scalar.
    """

    pasts: tuple[Past, ...]
    sample: Float[Array, " B"]
    time: Int[Array, ""]


class WaveNet(Assembled):
    """Layers of doubling dilation over the samples before, told of the frames; a mixture of logistics comes out.

    Args:
        bins: numbers in a log-mel frame.
        strides: of the transposed convolutions that make a row for each sample; their product is the hop.
        layers: how many.
        cycles: how often the dilation begins again at 1.
        taps: samples that a layer sees.
        residual: numbers in a sample inside the network.
        skip: numbers that go from each layer to the output.
        mixture: what describes a sample.
    """

    bins: int = bound("numbers in a frame")
    strides: tuple[int, ...] = (15, 20)
    layers: int = 30
    cycles: int = 3
    taps: int = 3
    residual: int = 128
    skip: int = 128
    mixture: Logistics = Logistics()

    def check(self) -> None:
        if self.layers < 1 or self.cycles < 1 or self.layers % self.cycles:
            raise ConfigError(
                f"{self.layers} layers are no whole number in each of {self.cycles} cycles",
                where="layers",
                remedy=f"Use layers={max(1, round(self.layers / max(1, self.cycles))) * max(1, self.cycles)}.",
            )
        if not self.strides or min(self.strides) < 1:
            raise ConfigError(f"{self.strides}", where="strides", remedy="Their product is the hop, such as (15, 20).")

    @property
    def hop(self) -> int:
        """Samples for each frame."""
        return math.prod(self.strides)

    @property
    def reach(self) -> int:
        """Samples before one that its distribution depends on, less the first of them."""
        return sum(layer.convolution.reach for layer in self._layers())

    def _layers(self) -> tuple[GatedLayer, ...]:
        each = self.layers // self.cycles
        return tuple(
            GatedLayer(
                precision=self.precision,
                bins=self.bins,
                residual=self.residual,
                skip=self.skip,
                taps=self.taps,
                dilation=2 ** (i % each),
            )
            for i in range(self.layers)
        )

    def _ups(self) -> tuple[ConvTranspose1d, ...]:
        return tuple(
            ConvTranspose1d(precision=self.precision, width=self.bins, outputs=self.bins, taps=2 * s, stride=s)
            for s in self.strides
        )

    def params(self) -> dict[str, Param]:
        # A sample is one number, which no mesh may split: a vector, and no matrix of one row.
        return {
            "input": Param((self.residual,), "F", init=Normal(std=1.0), role=Role.SCALAR),
            "input_bias": Param((self.residual,), "F", init=Constant(), role=Role.SCALAR),
        }

    def parts(self) -> dict[str, Module]:
        def linear(width: int, outputs: int) -> Linear:
            return Linear(precision=self.precision, width=width, outputs=outputs, bias=True)

        return {
            **{f"up_{i}": up for i, up in enumerate(self._ups())},
            **{f"layer_{i}": layer for i, layer in enumerate(self._layers())},
            "hidden": linear(self.skip, self.skip),
            "output": linear(self.skip, self.mixture.outputs),
        }

    def condition(
        self, p: Tree, features: Float[Array, "B T M"], mask: Bool[Array, "B T"] | None = None
    ) -> Float[Array, "B N M"]:
        """Returns a row for each sample; frames where the mask is false count as zeros."""
        for i, up in enumerate(self._ups()):
            features = jax.nn.leaky_relu(up(p[f"up_{i}"], features, mask), 0.4)
            mask = up.mask_out(mask)
        return features

    def __call__(
        self,
        p: Tree,
        samples: Float[Array, "B N"],
        features: Float[Array, "B T M"],
        mask: Bool[Array, "B T"] | None = None,
    ) -> Float[Array, "B N O"]:
        """Returns the mixture of each sample, told the samples before it.

        Args:
            samples: `hop` for each frame.
            mask: which frames there are; None means all.

        Raises:
            ShapeError: there are not `hop` samples for each frame.
        """
        if samples.shape[1] != self.hop * features.shape[1]:
            raise ShapeError(
                f"{samples.shape[1]} samples for {features.shape[1]} frames",
                where="wavenet",
                remedy=f"Pass {self.hop} for each frame: {self.hop * features.shape[1]}.",
            )
        condition = self.condition(p, features, mask)
        x, skips = self._taken(p, jnp.pad(samples, ((0, 0), (1, 0)))[:, :-1]), []
        for i, layer in enumerate(self._layers()):
            x, skip = layer(p[f"layer_{i}"], x, condition)
            skips.append(skip)
        return self._described(p, skips)

    def loss(
        self,
        p: Tree,
        samples: Float[Array, "B N"],
        features: Float[Array, "B T M"],
        lengths: Int[Array, " B"],
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """Returns (sum of negative log-probabilities, in nats; number of samples) of the frames that there are.

        Args:
            lengths: how many frames each row has.

        Raises:
            ShapeError: there are not `hop` samples for each frame.
        """
        mask = within(lengths, features.shape[1])
        true = self.mixture.quantized(samples)
        there = within(lengths * self.hop, samples.shape[1])
        log_probs = self.mixture.log_probs(self(p, jnp.where(there, true, 0), features, mask), true)
        return -jnp.where(there, log_probs, 0).sum(), there.sum().astype(jnp.float32)

    def silence(self, batch: int) -> Sounding:
        """Returns the state before the first sample."""
        return Sounding(
            pasts=tuple(layer.convolution.empty_past(batch) for layer in self._layers()),
            sample=jnp.zeros(batch, jnp.float32),
            time=jnp.zeros((), jnp.int32),
        )

    def step(
        self, p: Tree, condition: Float[Array, "B M"], sounding: Sounding
    ) -> tuple[Float[Array, "B O"], tuple[Past, ...]]:
        """Returns the mixture of the next sample, and the views after the last.

        Cost: that of one sample, whatever went before.
        """
        x = self._taken(p, sounding.sample)
        pasts, skips = [], []
        for i, (layer, past) in enumerate(zip(self._layers(), sounding.pasts, strict=True)):
            x, skip, past = layer.step(p[f"layer_{i}"], x, condition, past)
            pasts.append(past)
            skips.append(skip)
        return self._described(p, skips), tuple(pasts)

    def _taken(self, p: Tree, samples: Float[Array, "*N"]) -> Float[Array, "*N R"]:
        taken = jnp.multiply.outer(samples, p["input"])
        bias = jax.lax.broadcast_in_dim(p["input_bias"], taken.shape, (taken.ndim - 1,))
        return (taken + bias).astype(self.precision.output)

    def _described(self, p: Tree, skips: list[Array]) -> Array:
        parts = self.parts()
        hidden = jax.nn.relu(parts["hidden"](p["hidden"], jax.nn.relu(sum(skips[1:], skips[0]))))
        return parts["output"](p["output"], hidden).astype(jnp.float32)


def sound(
    model: WaveNet,
    params: Tree,
    features: Float[Array | np.ndarray, "B T M"],
    *,
    key: Key[Array, ""],
    chunk_frames: int = 8,
) -> Iterator[Float32[np.ndarray, "B N"]]:
    """Yields the sound of frames, so many at a time; any number gives the same samples.

    Args:
        key: draws the samples.

    Raises:
        ConfigError: a chunk of no frames.
        ShapeError: there are no frames.
    """
    if chunk_frames < 1:
        raise ConfigError(f"{chunk_frames}", where="chunk_frames", remedy="Use 1 or more, such as 8.")
    frames = features.shape[1]
    if not frames:
        raise ShapeError("there are no frames to make sound of", where="features", remedy="Give at least one.")
    # Few lengths, few compilations; frames that are not there count as zeros, as at any end.
    length = -(-frames // chunk_frames) * chunk_frames
    there = np.broadcast_to(np.arange(length) < frames, (len(features), length))
    padded = np.pad(np.asarray(features), ((0, 0), (0, length - frames), (0, 0)))
    condition = _conditioned(model)(params, padded, there)
    sounding = model.silence(len(features))
    for start in range(0, length, chunk_frames):
        part = condition[:, start * model.hop : (start + chunk_frames) * model.hop]
        sounding, samples = _sounded(model)(params, part, sounding, key)
        yield np.asarray(samples)[:, : (frames - start) * model.hop]


@functools.lru_cache(maxsize=8)
def _conditioned(model: WaveNet) -> Callable[..., Any]:
    return jax.jit(model.condition)


@functools.lru_cache(maxsize=8)
def _sounded(model: WaveNet) -> Callable[..., Any]:
    def sounded(
        params: Tree, condition: Float[Array, "B N M"], sounding: Sounding, key: Key[Array, ""]
    ) -> tuple[Sounding, Float[Array, "B N"]]:
        def one(sounding: Sounding, condition: Float[Array, "B M"]) -> tuple[Sounding, Float[Array, " B"]]:
            described, pasts = model.step(params, condition, sounding)
            sample = model.mixture.draw(described, jax.random.fold_in(key, sounding.time))
            return Sounding(pasts=pasts, sample=sample, time=sounding.time + 1), sample

        sounding, samples = jax.lax.scan(one, sounding, condition.swapaxes(0, 1))
        return sounding, samples.swapaxes(0, 1)

    return jax.jit(sounded, donate_argnums=2)
