"""Tacotron 2's decoder: one log-mel frame after another, looking at the encoded symbols.

One step serves training, where it is given the true frame before, and speaking, where it is given its
own. Not here: the loop that speaks (`generate.py`), the post-net (`tacotron.py`).
A step may make several frames, of which the last is told to the next (the reduction factor of Tacotron 1,
Wang et al. 2017, arXiv 1703.10135, section 3.3): as many times fewer steps, and attention that is learned sooner.
Invariant: a step depends on its frame, its state and its number alone, so frames made in chunks of any
length are the same.
Source: Shen et al. 2017, arXiv 1712.05884, section 2.2. The first LSTM asks and the second answers, as
in the common ports, where the paper says only that there are two.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from cupola.config.value import bound
from cupola.core.context import Context, Mode
from cupola.core.errors import ConfigError
from cupola.core.module import Module, Tree
from cupola.core.record import record
from cupola.kernels.matmul import dot
from cupola.layers.dropout import Dropout
from cupola.layers.linear import Linear
from cupola.layers.location_attention import LocationAttention, Looked, Memory, Moves, Sees
from cupola.layers.recurrence import Times, recurrence
from cupola.layers.recurrent import LSTM, LSTMState, Zoneout
from cupola.models.speech.assembled import Assembled


class PreNet(Assembled):
    """Narrow layers whose dropout never rests: what the decoder is told of the frame before is little and unsure.

    Args:
        width: numbers in a frame.
        hidden: of each layer.
        layers: how many.
        bias: whether they have one.
        dropout: in training and in speaking alike.
    """

    width: int
    hidden: int = 256
    layers: int = 2
    bias: bool = True
    dropout: Dropout = Dropout(rate=0.5)

    def parts(self) -> dict[str, Module]:
        widths = [self.width, *[self.hidden] * self.layers]
        return {
            str(i): Linear(precision=self.precision, width=widths[i], outputs=widths[i + 1], bias=self.bias)
            for i in range(self.layers)
        }

    def __call__(self, p: Tree, x: Float[Array, "*N M"], *, context: Context) -> Float[Array, "*N F"]:
        """Returns what is let through.

        Raises:
            ConfigError: the call's context has no key.
        """
        always = dataclasses.replace(context, mode=Mode.TRAIN)
        for name, layer in self.parts().items():
            x = self.dropout(jax.nn.relu(layer(p[name], x)), always.at(name))
        return x


@record
class FrameState:
    """What a step leaves to the next.

    Args:
        first, second: of the LSTMs.
        seen: [B, D] what was looked at.
        looked: where.
    """

    first: LSTMState
    second: LSTMState
    seen: Float[Array, "B D"]
    looked: Looked


@record
class Frames:
    """What a decoder makes.

    Args:
        frames: [B, T, M] log-mel frames, before the post-net.
        stops: [B, T] logits that a frame is the last.
        weights: [B, T, S] of each frame over symbols.
    """

    frames: Float[Array, "B T M"]
    stops: Float[Array, "B T"]
    weights: Float[Array, "B T S"]


class FrameDecoder(Assembled):
    """A pre-net, an LSTM that asks, attention, an LSTM that answers, and what a frame and its stop are of it.

    Args:
        bins: numbers in a frame.
        memory_width: numbers in an encoded symbol.
        frames_per_step: frames that a step makes; each has a stop of its own, and the weights of its step.
        pre_net: numbers in each of the pre-net's two layers.
        pre_net_bias: whether they have a bias.
        pre_net_dropout: in training and in speaking alike.
        hidden: of each LSTM.
        zoneout: of each LSTM; None has none.
        attention: numbers in which query and key are added.
        filters, taps: of the attention's convolution over where it has looked.
        sees, moves, attention_bias: of the attention.
    """

    bins: int = bound("numbers in a frame")
    memory_width: int = bound("numbers in an encoded symbol")
    frames_per_step: int = 1
    pre_net: int = 256
    pre_net_bias: bool = True
    pre_net_dropout: Dropout = Dropout(rate=0.5)
    hidden: int = 1024
    zoneout: Zoneout | None = Zoneout(rate=0.1)
    attention: int = 128
    filters: int = 32
    taps: int = 31
    sees: Sees = Sees.CUMULATIVE
    moves: Moves = Moves.ANYWHERE
    attention_bias: bool = True

    def check(self) -> None:
        for name in ("bins", "memory_width", "frames_per_step", "pre_net", "hidden"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{getattr(self, name)}", where=name, remedy="Use 1 or more.")

    @property
    def _pre_net(self) -> PreNet:
        return PreNet(
            precision=self.precision,
            width=self.bins,
            hidden=self.pre_net,
            bias=self.pre_net_bias,
            dropout=self.pre_net_dropout,
        )

    @property
    def _attention(self) -> LocationAttention:
        return LocationAttention(
            precision=self.precision,
            query_width=self.hidden,
            memory_width=self.memory_width,
            hidden=self.attention,
            filters=self.filters,
            taps=self.taps,
            sees=self.sees,
            moves=self.moves,
            bias=self.attention_bias,
        )

    def _lstm(self, width: int) -> LSTM:
        return LSTM(precision=self.precision, width=width + self.memory_width, hidden=self.hidden, zoneout=self.zoneout)

    def _linear(self, outputs: int) -> Linear:
        return Linear(precision=self.precision, width=self.hidden + self.memory_width, outputs=outputs, bias=True)

    def parts(self) -> dict[str, Module]:
        return {
            "pre_net": self._pre_net,
            "first": self._lstm(self.pre_net),
            "attention": self._attention,
            "second": self._lstm(self.hidden),
            "frame": self._linear(self.frames_per_step * self.bins),
            "stop": self._linear(self.frames_per_step),
        }

    def memory(self, p: Tree, values: Float[Array, "B S D"], lengths: Int[Array, " B"]) -> Memory:
        """Returns encoded symbols ready to be looked at."""
        return self._attention.memory(p["attention"], values, lengths)

    def empty_state(self, memory: Memory) -> FrameState:
        """Returns the state before the first frame."""
        batch = len(memory.values)
        return FrameState(
            first=self._lstm(self.pre_net).empty_state(batch),
            second=self._lstm(self.hidden).empty_state(batch),
            seen=jnp.zeros((batch, self.memory_width), self.precision.output),
            looked=self._attention.nowhere(memory),
        )

    def __call__(
        self, p: Tree, targets: Float[Array, "B T M"], memory: Memory, *, context: Context = Context()
    ) -> Frames:
        """Returns a frame for each target, having been told the last target before each step.

        Raises:
            ConfigError: the call's context has no key: the pre-net draws in every mode.
        """
        length, each = targets.shape[1], self.frames_per_step
        before = jnp.pad(targets, ((0, 0), (1, 0), (0, 0)))[:, :-1:each].astype(self.precision.output)
        told = self._pre_net(p["pre_net"], before, context=context.at("pre_net"))

        own, seen, weights = self._asked(p, told, memory, context)
        second = self._lstm(self.hidden)(p["second"], jnp.concatenate([own, seen], -1), context=context.at("second"))
        frames, stops = self._shown(p, jnp.concatenate([second, seen], -1))
        # The last step may make more than there are targets.
        return Frames(
            frames=frames.reshape(len(frames), -1, self.bins)[:, :length],
            stops=stops.reshape(len(stops), -1)[:, :length],
            weights=jnp.repeat(weights, each, axis=1)[:, :length],
        )

    def _asked(
        self, p: Tree, told: Float[Array, "B T F"], memory: Memory, context: Context
    ) -> tuple[Float[Array, "B T H"], Float[Array, "B T D"], Float[Array, "B T S"]]:
        """What the first LSTM shows at each frame, what is seen, and where.

        Nothing of a frame waits for the second LSTM but what is told of the next, which is known here: it
        runs over all frames afterwards. So does, before, what the first makes of what it is told.
        """
        lstm, attention, first = self._lstm(self.pre_net), self._attention, p["first"]
        batch, length = told.shape[:2]
        sums = dot(told, first["input"][: self.pre_net], self.precision) + first["bias"][None, None]
        matrices = {
            # What was seen and what the state was, side by side.
            "state": jnp.concatenate([first["input"][self.pre_net :], first["recurrent"]]),
            "query": p["attention"]["query"],
        }
        # Its scores over all symbols, at every frame, are most of what a backward pass would keep.
        look = jax.checkpoint(attention.look, prevent_cse=False)

        def step(times: Times, given: Any, state: Any, own: Any) -> tuple[Any, tuple[Array, Array, Array]]:
            (located, memory), (before, seen, looked), (sums, stays) = given, state, own
            sums = sums + times("state", jnp.concatenate([seen, before.hidden], -1))
            now = lstm.after(sums, before, stays)
            seen, looked = look(located, times("query", now.hidden), memory, looked)
            return (now, seen, looked), (now.hidden, seen, looked.weights)

        start = self.empty_state(memory)
        _, found = recurrence(
            step,
            matrices,
            (attention.located(p["attention"]), memory),
            (start.first, start.seen, start.looked),
            (sums.swapaxes(0, 1), lstm.stays(length, batch, context.at("first"))),
            self.precision,
        )
        own, seen, weights = (x.swapaxes(0, 1) for x in found)
        return own, seen, weights

    def step(
        self, p: Tree, before: Float[Array, "B M"], state: FrameState, memory: Memory, *, context: Context
    ) -> tuple[tuple[Float[Array, "B R M"], Float[Array, "B R"], Float[Array, "B S"]], FrameState]:
        """Returns (the step's frames, logits that each is the last, weights), and the state after it.

        Args:
            before: the last frame of the step before; zeros before the first.
            context: of this step: the stream of its own number.

        Raises:
            ConfigError: the call's context has no key: the pre-net draws in every mode.
        """
        told = self._pre_net(p["pre_net"], before.astype(self.precision.output), context=context.at("pre_net"))
        answer, state = self._advance(p, told, state, memory, context)
        frames, stops = self._shown(p, answer)
        return (frames, stops, state.looked.weights), state

    def flops(self, batch: int, length: int, symbols: int | None = None) -> int:
        """Returns the FLOPs of `length` frames of each row.

        Args:
            symbols: that are looked at; None means as many as frames.
        """
        others = (part for name, part in self.parts().items() if name != "attention")
        steps = -(-length // self.frames_per_step)
        looking = self._attention.flops(batch, steps, length if symbols is None else symbols)
        return looking + sum(part.flops(batch, steps) for part in others)

    def _advance(
        self, p: Tree, told: Float[Array, "B F"], state: FrameState, memory: Memory, context: Context
    ) -> tuple[Float[Array, "B D"], FrameState]:
        first = self._lstm(self.pre_net).step(
            p["first"], jnp.concatenate([told, state.seen], -1), state.first, context=context.at("first")
        )
        seen, looked = self._attention.step(p["attention"], first.hidden, memory, state.looked)
        second = self._lstm(self.hidden).step(
            p["second"], jnp.concatenate([first.hidden, seen], -1), state.second, context=context.at("second")
        )
        after = FrameState(first=first, second=second, seen=seen, looked=looked)
        return jnp.concatenate([second.hidden, seen], -1), after

    def _shown(self, p: Tree, answers: Float[Array, "*N D"]) -> tuple[Float[Array, "*N R M"], Float[Array, "*N R"]]:
        stops = self._linear(self.frames_per_step)(p["stop"], answers)
        frames = self._linear(self.frames_per_step * self.bins)(p["frame"], answers)
        return frames.reshape(*frames.shape[:-1], self.frames_per_step, self.bins), stops.astype(jnp.float32)
