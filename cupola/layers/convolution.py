"""Convolutions over time, [B, T, D]: plain, dilated, causal, and the transposed one that makes more frames.

A causal one goes on from a view of its last inputs, one frame at a time, so that generation is linear
in frames. Not here: normalization between convolutions (`batch_norm.py`). Invariant: what stands where
a mask is false never reaches what stands where it is true.
"""

import enum

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from cupola.config.value import bound
from cupola.core.errors import ConfigError, Unsupported
from cupola.core.module import Module, Tree
from cupola.core.param import Constant, FanIn, Initializer, Param, Role
from cupola.core.record import record
from cupola.kernels.matmul import dot


def within(lengths: Int[Array, " B"], length: int) -> Bool[Array, "B T"]:
    """Returns which of `length` frames each row has."""
    return jnp.arange(length)[None] < lengths[:, None]


def silenced(x: Float[Array, "B T D"], mask: Bool[Array, "B T"] | None) -> Float[Array, "B T D"]:
    """Returns x with 0 where the mask is false, so that even what is not finite there is gone."""
    return x if mask is None else jnp.where(mask[..., None], x, 0)


def kernel_dims(taps: str, inputs: int, outputs: int) -> str:
    """Returns the letters of a kernel; a size of 1, which no mesh may split, has that of a tap."""
    return f"{taps} {'D' if inputs > 1 else 'W'} {'F' if outputs > 1 else 'W'}"


class Padding(enum.Enum):
    """Zeros around the input."""

    SAME = "same"
    """At both ends: as many frames come out as go in, or one for each stride."""
    CAUSAL = "causal"
    """All before the first frame: a frame never sees a later one."""
    NONE = "none"
    """None: only frames whose every tap is inside come out."""


@record
class Past:
    """The last inputs of a causal convolution, a ring.

    Args:
        inputs: [B, R, D], where the frame of time t stands in slot t modulo R.
        time: how many frames went before, an int32 scalar.
    """

    inputs: Float[Array, "B R D"]
    time: Int[Array, ""]


class Conv1d(Module):
    """out[t] = sum over w of x[stride * t + dilation * w - before] . weight[w] + bias.

    Args:
        width: numbers in a frame of the input.
        outputs: numbers in a frame of the output.
        taps: input frames that an output frame sees.
        dilation: input frames from one tap to the next.
        stride: input frames from one output frame to the next.
        groups: parts of the input, each seen by its own part of the output.
        padding: zeros around the input.
        bias: whether there is one.
        init_weight: draws the weight.
    """

    width: int = bound("numbers in a frame")
    outputs: int = bound("numbers in a frame of the output")
    taps: int
    dilation: int = 1
    stride: int = 1
    groups: int = 1
    padding: Padding = Padding.SAME
    bias: bool = True
    init_weight: Initializer = FanIn()

    def check(self) -> None:
        for name in ("width", "outputs", "taps", "dilation", "stride", "groups"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{getattr(self, name)}", where=name, remedy="Use 1 or more.")
        for name in ("width", "outputs"):
            if getattr(self, name) % self.groups:
                raise ConfigError(
                    f"{name}={getattr(self, name)} does not divide into {self.groups} groups",
                    where=name,
                    remedy=f"Use a multiple of {self.groups}.",
                )

    def params(self) -> dict[str, Param]:
        shape = self.taps, self.width // self.groups, self.outputs
        dims = kernel_dims("W", *shape[1:])
        weight = {"weight": Param(shape, dims, init=self.init_weight, inputs=2)}
        bias = {"bias": Param((self.outputs,), dims.split()[-1], init=Constant(), role=Role.SCALAR)}
        return weight | bias if self.bias else weight

    @property
    def reach(self) -> int:
        """Input frames before the last that an output frame sees."""
        return (self.taps - 1) * self.dilation

    def __call__(
        self, p: Tree, x: Float[Array, "B T D"], mask: Bool[Array, "B T"] | None = None
    ) -> Float[Array, "B U F"]:
        """Returns the convolution; where the mask is false the input counts as the zeros around it.

        Args:
            mask: which input frames there are; None means all. Of the output it is `mask_out`.
        """
        return self._shifted(p, self._products(p, silenced(x, mask), self.stride, self.dilation, self._zeros()))

    def mask_out(self, mask: Bool[Array, "B T"] | None) -> Bool[Array, "B U"] | None:
        """Returns which output frames there are: those whose last tap, or middle one with SAME, is an input frame."""
        if mask is None:
            return None
        last = self.reach if self.padding is Padding.NONE else 0
        return mask[:, last :: self.stride]

    def empty_past(self, batch: int) -> Past:
        """Returns the view with which a causal convolution begins: zeros, as its padding.

        Raises:
            Unsupported: it is not causal, or it skips frames.
        """
        if self.padding is not Padding.CAUSAL or self.stride != 1:
            raise Unsupported(
                f"a convolution with {self.padding} and stride={self.stride} cannot go frame by frame",
                where="convolution",
                remedy="Use padding=Padding.CAUSAL and stride=1, or call it with whole sequences.",
            )
        inputs = jnp.zeros((batch, max(1, self.reach), self.width), self.precision.output)
        return Past(inputs=inputs, time=jnp.zeros((), jnp.int32))

    def step(self, p: Tree, x: Float[Array, "B D"], past: Past) -> tuple[Float[Array, "B F"], Past]:
        """Returns the output of one more frame, and the view after it; equals the call on the whole sequence.

        Cost: one frame's products, and one frame written into the view where it is donated or in a loop.
        """
        ring = past.inputs.shape[1]
        slots = (past.time - self.dilation * jnp.arange(self.taps - 1, 0, -1)) % ring
        seen = jnp.concatenate([past.inputs[:, slots], x[:, None]], axis=1).astype(self.precision.output)
        after = jax.lax.dynamic_update_slice_in_dim(
            past.inputs, x[:, None].astype(past.inputs.dtype), past.time % ring, 1
        )
        if self.groups == 1:
            out = dot(seen, p["weight"], self.precision, contract=2)
        else:
            out = self._products(p, seen, 1, 1, (0, 0))[:, 0]
        return self._shifted(p, out), Past(inputs=after, time=past.time + 1)

    def flops(self, batch: int, length: int) -> int:
        """Returns the FLOPs of one pass over batch x length input frames."""
        return super().flops(batch, -(-length // self.stride))

    def _products(
        self, p: Tree, x: Float[Array, "B T D"], stride: int, dilation: int, zeros: tuple[int, int]
    ) -> Float[Array, "B U F"]:
        compute = self.precision.compute
        if self.groups == self.width == self.outputs:
            return self._each_alone(p, jnp.pad(x, ((0, 0), zeros, (0, 0))), stride, dilation)
        return jax.lax.conv_general_dilated(
            x.astype(compute),
            p["weight"].astype(compute),
            (stride,),
            [zeros],
            rhs_dilation=(dilation,),
            dimension_numbers=("NWC", "WIO", "NWC"),
            feature_group_count=self.groups,
            precision=jax.lax.Precision.HIGHEST if compute == jnp.float32 else None,
            preferred_element_type=self.precision.accumulate,
        )

    def _each_alone(self, p: Tree, x: Float[Array, "B T D"], stride: int, dilation: int) -> Float[Array, "B U F"]:
        """Every number by itself, as a sum of shifted products: a convolution of groups takes a CPU 20 to 80 times as long."""
        last = x.shape[1] - (self.taps - 1) * dilation
        weight = p["weight"].astype(self.precision.compute).astype(self.precision.accumulate)
        wide = x.astype(self.precision.compute).astype(self.precision.accumulate)
        shifted = [wide[:, w * dilation :][:, :last:stride] * weight[w][None] for w in range(self.taps)]
        return sum(shifted[1:], shifted[0])

    def _zeros(self) -> tuple[int, int]:
        match self.padding:
            case Padding.SAME:
                return self.reach // 2, self.reach - self.reach // 2
            case Padding.CAUSAL:
                return self.reach, 0
            case Padding.NONE:
                return 0, 0

    def _shifted(self, p: Tree, out: Float[Array, "*N F"]) -> Float[Array, "*N F"]:
        out = out.astype(self.precision.output)
        return out + jax.lax.broadcast_in_dim(p["bias"], out.shape, (out.ndim - 1,)) if self.bias else out


class ConvTranspose1d(Module):
    """Makes `stride` frames of each: out[stride * t + w - before] sums x[t] . weight[w], the ends cut off.

    Args:
        width: numbers in a frame of the input.
        outputs: numbers in a frame of the output.
        taps: output frames that an input frame reaches, `stride` or more.
        stride: output frames for each input frame.
        bias: whether there is one.
        init_weight: draws the weight.
    """

    width: int = bound("numbers in a frame")
    outputs: int
    taps: int
    stride: int
    bias: bool = True
    init_weight: Initializer = FanIn()

    def check(self) -> None:
        if not 1 <= self.stride <= self.taps:
            raise ConfigError(
                f"{self.taps} taps leave gaps between strides of {self.stride}",
                where="taps",
                remedy=f"Use taps={2 * max(1, self.stride)}.",
            )

    def params(self) -> dict[str, Param]:
        weight = {"weight": Param((self.width, self.taps, self.outputs), "D W F", init=self.init_weight)}
        bias = {"bias": Param((self.outputs,), "F", init=Constant(), role=Role.SCALAR)}
        return weight | bias if self.bias else weight

    def __call__(
        self, p: Tree, x: Float[Array, "B T D"], mask: Bool[Array, "B T"] | None = None
    ) -> Float[Array, "B U F"]:
        """Returns T * stride frames; input frames where the mask is false count as zeros.

        Cost: 2 * B * T * D * taps * F FLOPs; no zeros are multiplied.
        """
        batch, frames = x.shape[:2]
        spread = dot(silenced(x, mask), p["weight"], self.precision)
        shifts = -(-self.taps // self.stride)
        filled = jnp.pad(spread, ((0, 0), (0, 0), (0, shifts * self.stride - self.taps), (0, 0)))
        parts = filled.reshape(batch, frames, shifts, self.stride, self.outputs)
        none = (0, 0)
        shifted = [jnp.pad(parts[:, :, i], (none, (i, shifts - 1 - i), none, none)) for i in range(shifts)]
        added = sum(shifted[1:], shifted[0])
        flat = added.reshape(batch, -1, self.outputs)
        before = (self.taps - self.stride) // 2
        out = flat[:, before : before + frames * self.stride]
        return out + p["bias"][None, None] if self.bias else out

    def mask_out(self, mask: Bool[Array, "B T"] | None) -> Bool[Array, "B U"] | None:
        """Returns which output frames there are."""
        return None if mask is None else jnp.repeat(mask, self.stride, axis=1)
