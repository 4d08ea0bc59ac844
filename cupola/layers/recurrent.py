"""Long short-term memory as layers: over time, in both directions, and one step of it for decoders.

The recurrence over time is the kernel's (`kernels/lstm`); with zoneout, which stands between steps, it is
a scan over single ones. Invariant: a step after step gives what the whole sequence gives, and what
stands beyond a row's length reaches nothing within it.
Source: Hochreiter and Schmidhuber 1997; zoneout: Krueger et al. 2017, arXiv 1606.01305, equations 4 and 5.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from cupola.config.value import Value, bound
from cupola.core.context import Context, Mode
from cupola.core.errors import ConfigError
from cupola.core.module import Module, Tree
from cupola.core.param import Initializer, Param, Role
from cupola.core.record import record
from cupola.kernels.lstm import lstm
from cupola.kernels.matmul import dot
from cupola.layers.convolution import silenced, within
from cupola.layers.recurrence import Times, recurrence

Stays = tuple[Bool[Array, "*T B F"] | None, Bool[Array, "*T B F"] | None]
"""Which of the hidden numbers, and which of the cells, stay as they were; None where none is drawn."""


class Zoneout(Value):
    """In training each number of the state stays as it was with probability `rate`; else they are mixed so.

    Args:
        rate: share of the state that stays.
    """

    rate: float

    def check(self) -> None:
        if not 0 <= self.rate < 1:
            raise ConfigError(f"rate={self.rate} is no probability below 1", remedy="Use 0 <= rate < 1, such as 0.1.")

    def __call__(
        self, new: Float[Array, "B F"], old: Float[Array, "B F"], context: Context, name: str
    ) -> Float[Array, "B F"]:
        """Returns the state after the step.

        Raises:
            ConfigError: it trains, but the call's context has no key.
        """
        return self.mixed(new, old, self.drawn(new.shape, context, name))

    def drawn(self, shape: tuple[int, ...], context: Context, name: str) -> Bool[Array, "..."] | None:
        """Returns which numbers stay as they were; None where they are mixed instead.

        Args:
            shape: of one state, or of the states of many steps.

        Raises:
            ConfigError: it trains, but the call's context has no key.
        """
        if self.rate == 0 or context.mode is not Mode.TRAIN:
            return None
        return jax.random.bernoulli(context.draw(name), self.rate, shape)

    def mixed(
        self, new: Float[Array, "B F"], old: Float[Array, "B F"], stays: Bool[Array, "B F"] | None
    ) -> Float[Array, "B F"]:
        """Returns the state of which these numbers stay; of None, all are mixed by the rate."""
        if self.rate == 0:
            return new
        return self.rate * old + (1 - self.rate) * new if stays is None else jnp.where(stays, old, new)


class Uniform(Initializer):
    """Evenly between -scale / sqrt(numbers in the state) and its opposite, as torch's LSTM begins."""

    hidden: int
    scale: float = 1.0

    def draw(self, key: Key[Array, ""], param: Param) -> Array:
        most = self.scale / math.sqrt(self.hidden)
        return jax.random.uniform(key, param.shape, jnp.float32, -most, most).astype(param.dtype)


@record
class LSTMState:
    """What a step of an LSTM leaves to the next.

    Args:
        hidden: what it shows, [B, F].
        cell: what it keeps, [B, F].
    """

    hidden: Float[Array, "B F"]
    cell: Float[Array, "B F"]


class LSTM(Module):
    """Long short-term memory of `hidden` numbers; gates in the order input, forget, new, output.

    Args:
        width: numbers in a frame of the input.
        hidden: numbers in the state, and in a frame of the output.
        zoneout: what of the state stays from step to step; None mixes nothing.
    """

    width: int = bound("numbers in a frame")
    hidden: int
    zoneout: Zoneout | None = None

    def params(self) -> dict[str, Param]:
        init, gates = Uniform(hidden=self.hidden), 4 * self.hidden
        return {
            "input": Param((self.width, gates), "D F", init=init),
            "recurrent": Param((self.hidden, gates), "D F", init=init),
            "bias": Param((gates,), "F", init=init, role=Role.SCALAR),
        }

    def empty_state(self, batch: int) -> LSTMState:
        """Returns the state before the first step: zeros."""
        zeros = jnp.zeros((batch, self.hidden), self.precision.output)
        return LSTMState(hidden=zeros, cell=zeros)

    def __call__(
        self,
        p: Tree,
        x: Float[Array, "B T D"],
        lengths: Int[Array, " B"] | None = None,
        *,
        context: Context = Context(),
    ) -> Float[Array, "B T F"]:
        """Returns what the state shows after each frame; 0 beyond a row's length.

        Args:
            lengths: how many frames each row has; None means all.
        """
        mask = None if lengths is None else within(lengths, x.shape[1])
        x, state = silenced(x, mask), self.empty_state(len(x))
        if self.zoneout is None or self.zoneout.rate == 0:
            shown, _ = lstm(self._inputs(p, x), p["recurrent"], state.hidden, state.cell, precision=self.precision)
            return silenced(shown, mask)

        def step(times: Times, _: None, state: LSTMState, own: tuple[Array, Stays]) -> tuple[LSTMState, Array]:
            state = self.after(own[0] + times("recurrent", state.hidden), state, own[1])
            return state, state.hidden

        inputs = self._inputs(p, x).swapaxes(0, 1), self.stays(x.shape[1], len(x), context)
        _, shown = recurrence(step, {"recurrent": p["recurrent"]}, None, state, inputs, self.precision)
        return silenced(shown.swapaxes(0, 1), mask)

    def step(self, p: Tree, x: Float[Array, "B D"], state: LSTMState, *, context: Context = Context()) -> LSTMState:
        """Returns the state after one more frame.

        Raises:
            ConfigError: it trains with zoneout, but the call's context has no key.
        """
        sums = self._inputs(p, x) + dot(state.hidden, p["recurrent"], self.precision)
        stays = jax.tree.map(lambda drawn: drawn[0], self.stays(1, len(x), context))
        return self.after(sums, state, stays)

    def flops(self, batch: int, length: int) -> int:
        """Returns the FLOPs of batch x length steps."""
        return 8 * batch * length * self.hidden * (self.width + self.hidden)

    def _inputs(self, p: Tree, x: Float[Array, "*N D"]) -> Float[Array, "*N G"]:
        gates = dot(x, p["input"], self.precision)
        return gates + jax.lax.broadcast_in_dim(p["bias"].astype(gates.dtype), gates.shape, (gates.ndim - 1,))

    def stays(self, steps: int, batch: int, context: Context) -> Stays:
        """Returns what of the state stays at each step of a sequence, drawn at once.

        Raises:
            ConfigError: it trains with zoneout, but the call's context has no key.
        """
        if self.zoneout is None:
            return None, None
        shape = steps, batch, self.hidden
        return self.zoneout.drawn(shape, context, "hidden"), self.zoneout.drawn(shape, context, "cell")

    def after(self, sums: Float[Array, "B G"], state: LSTMState, stays: Stays) -> LSTMState:
        """Returns the state after a step of which input, state and bias add up to these sums.

        Args:
            stays: what of the hidden numbers and of the cells zoneout keeps.
        """
        enter, forget, new, show = jnp.split(sums.astype(jnp.float32), 4, -1)
        cell = jax.nn.sigmoid(forget) * state.cell.astype(jnp.float32) + jax.nn.sigmoid(enter) * jnp.tanh(new)
        hidden = jax.nn.sigmoid(show) * jnp.tanh(cell)
        hidden, cell = hidden.astype(state.hidden.dtype), cell.astype(state.cell.dtype)
        if self.zoneout is not None:
            hidden = self.zoneout.mixed(hidden, state.hidden, stays[0])
            cell = self.zoneout.mixed(cell, state.cell, stays[1])
        return LSTMState(hidden=hidden, cell=cell)


class BiLSTM(Module):
    """Two LSTMs, one from each end; what they show stands side by side.

    Args:
        forward: from the first frame on.
        backward: from each row's last frame back.
    """

    forward: LSTM
    backward: LSTM

    def __call__(
        self,
        p: Tree,
        x: Float[Array, "B T D"],
        lengths: Int[Array, " B"] | None = None,
        *,
        context: Context = Context(),
    ) -> Float[Array, "B T F"]:
        """Returns what both have seen up to each frame, forward first; 0 beyond a row's length."""
        ahead = self.forward(p["forward"], x, lengths, context=context.at("forward"))
        turned = reversed_within(x, lengths)
        back = self.backward(p["backward"], turned, lengths, context=context.at("backward"))
        return jnp.concatenate([ahead, reversed_within(back, lengths)], axis=-1)


def reversed_within(x: Float[Array, "B T D"], lengths: Int[Array, " B"] | None) -> Float[Array, "B T D"]:
    """Returns each row's frames in the opposite order; what is beyond its length stays where it is."""
    if lengths is None:
        return x[:, ::-1]
    time = jnp.arange(x.shape[1])[None]
    index = jnp.where(time < lengths[:, None], lengths[:, None] - 1 - time, time)
    return jnp.take_along_axis(x, index[..., None], axis=1)
