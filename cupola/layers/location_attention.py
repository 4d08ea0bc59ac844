"""Location-sensitive attention: a decoder looks at a sequence, knowing where it has looked before.

Additive attention whose scores also see a convolution of the weights so far; as one step, for a
decoder that scans. Forward attention is an option: weight may stay at a position or go to the next.
Not here: attention between tokens (`attention.py`). Invariant: the weights of a row are 0 beyond its
length and sum to 1, or to 0 for a row of nothing.
Source: Chorowski et al. 2015, arXiv 1506.07503, equations 8 and 9 (query = s, memory = h, weights = alpha);
cumulative weights: Shen et al. 2017, arXiv 1712.05884, section 2.2; forward attention: Zhang, Ling and
Dai 2018, arXiv 1807.06736, algorithm 1; guided attention: Tachibana et al. 2017, arXiv 1710.08969, section 4.1.
"""

import dataclasses
import enum

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from cupola.config.value import bound
from cupola.core.errors import ConfigError
from cupola.core.module import Module, Tree
from cupola.core.param import Constant, FanIn, Initializer, Param, Role
from cupola.core.record import record
from cupola.kernels.matmul import dot
from cupola.layers.convolution import Conv1d, silenced, within


class Sees(enum.Enum):
    """Which weights the scores know of."""

    CUMULATIVE = 1
    """The sum of all so far: the paper's."""
    LAST_AND_CUMULATIVE = 2
    """Those of the last step too: the common ports'."""


class Moves(enum.Enum):
    """Where weight may go from one step to the next."""

    ANYWHERE = "anywhere"
    FORWARD = "forward"
    """To the same position or the one after it: what is to be spoken in order needs no more."""


@record
class Memory:
    """A sequence that is looked at, made ready once.

    Args:
        values: [B, S, D] what is mixed; 0 beyond a row's length.
        keys: [B, S, A] what the query is added to.
        mask: [B, S] which positions there are.
    """

    values: Float[Array, "B S D"]
    keys: Float[Array, "B S A"]
    mask: Bool[Array, "B S"]


@record
class Looked:
    """Where a decoder has looked.

    Args:
        weights: [B, S] at the last step.
        cumulative: [B, S] their sum over all steps.
    """

    weights: Float[Array, "B S"]
    cumulative: Float[Array, "B S"]


class LocationAttention(Module):
    """Mixes a memory by softmax over S of score . tanh(query + key + location + bias).

    Args:
        query_width: numbers in a query.
        memory_width: numbers in a position of the memory.
        hidden: numbers that query, key and location are added as.
        filters: of the convolution over the weights so far.
        taps: positions that a filter sees.
        sees: which weights the filters are over.
        moves: where weight may go.
        bias: whether there is one.
        init_weight: draws the matrices.
    """

    query_width: int = bound("numbers in a query")
    memory_width: int = bound("numbers in a position of the memory")
    hidden: int = 128
    filters: int = 32
    taps: int = 31
    sees: Sees = Sees.CUMULATIVE
    moves: Moves = Moves.ANYWHERE
    bias: bool = True
    init_weight: Initializer = FanIn()

    def check(self) -> None:
        for name in ("query_width", "memory_width", "hidden", "filters", "taps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{getattr(self, name)}", where=name, remedy="Use 1 or more.")

    @property
    def _location(self) -> Conv1d:
        return Conv1d(precision=self.precision, width=self.sees.value, outputs=self.filters, taps=self.taps, bias=False)

    def params(self) -> dict[str, Param]:
        def matrix(width: int) -> Param:
            return Param((width, self.hidden), "D F", init=self.init_weight)

        vectors = {"score": Param((self.hidden,), "F", init=self.init_weight, role=Role.SCALAR)}
        if self.bias:
            vectors["bias"] = Param((self.hidden,), "F", init=Constant(), role=Role.SCALAR)
        return {
            "query": matrix(self.query_width),
            "key": matrix(self.memory_width),
            # Of one or two channels, which no mesh may split.
            "filters": dataclasses.replace(self._location.params()["weight"], dims="W W F"),
            "location": matrix(self.filters),
            **vectors,
        }

    def memory(self, p: Tree, values: Float[Array, "B S D"], lengths: Int[Array, " B"]) -> Memory:
        """Returns a sequence ready to be looked at; what is beyond a row's length is forgotten."""
        mask = within(lengths, values.shape[1])
        values = silenced(values, mask)
        return Memory(values=values, keys=dot(values, p["key"], self.precision), mask=mask)

    def nowhere(self, memory: Memory) -> Looked:
        """Returns the state before the first step; with `FORWARD` weight begins at the first position."""
        zeros = jnp.zeros(memory.mask.shape, jnp.float32)
        start = zeros.at[:, 0].set(1.0) if self.moves is Moves.FORWARD else zeros
        return Looked(weights=jnp.where(memory.mask, start, 0), cumulative=zeros)

    def step(
        self, p: Tree, query: Float[Array, "B Q"], memory: Memory, looked: Looked
    ) -> tuple[Float[Array, "B D"], Looked]:
        """Returns what is seen, and where it stood: weights . values, and the state after the step.

        Cost: 2 * B * S * (taps * A + A + D) FLOPs; the keys were made once.
        Numerics: scores and weights in float32.
        """
        asked = dot(query, p["query"], self.precision)
        return self.look(self.located(p), asked, memory, looked)

    def located(self, p: Tree) -> Tree:
        """Returns what `look` needs of the parameters: filters and the matrix after them as one, the score, the bias.

        There is nothing between them that is not linear, and their product is a small one.
        """
        filters = jnp.einsum("wcf,fa->wca", p["filters"], p["location"], precision=_EXACT)
        kept = {name: p[name] for name in ("score", "bias") if name in p}
        return {"filters": filters.reshape(-1, self.hidden), **kept}

    def look(
        self, p: Tree, asked: Float[Array, "B A"], memory: Memory, looked: Looked
    ) -> tuple[Float[Array, "B D"], Looked]:
        """Returns as `step` does, of a query that was multiplied by its matrix already.

        Args:
            p: what `located` gives.
        """
        seen = [looked.cumulative] if self.sees is Sees.CUMULATIVE else [looked.weights, looked.cumulative]
        around = _windows(jnp.stack(seen, axis=-1), self.taps)
        sums = memory.keys + dot(around, p["filters"], self.precision) + asked.astype(memory.keys.dtype)[:, None]
        sums = sums + p["bias"][None, None] if self.bias else sums
        scores = jnp.einsum(
            "bsa,a->bs", jnp.tanh(sums).astype(jnp.float32), p["score"].astype(jnp.float32), precision=_EXACT
        )
        weights = self._moved(_softmax(scores, memory.mask), memory.mask, looked.weights)
        mixed = jnp.einsum("bs,bsd->bd", weights, memory.values, precision=_EXACT)
        after = Looked(weights=weights, cumulative=looked.cumulative + weights)
        return mixed.astype(self.precision.output), after

    def flops(self, batch: int, length: int, positions: int | None = None) -> int:
        """Returns the FLOPs of `length` steps of each row, the keys included.

        Args:
            positions: of the memory; None means as many as steps.
        """
        looked_at = length if positions is None else positions
        each = self.taps * self.sees.value * self.filters + (self.filters + 1) * self.hidden + self.memory_width
        keys, queries = looked_at * self.memory_width, length * self.query_width
        return 2 * batch * (length * looked_at * each + (keys + queries) * self.hidden)

    def _moved(
        self, wanted: Float[Array, "B S"], mask: Bool[Array, "B S"], before: Float[Array, "B S"]
    ) -> Float[Array, "B S"]:
        if self.moves is Moves.ANYWHERE:
            return wanted
        reached = before + jnp.pad(before, ((0, 0), (1, 0)))[:, :-1]
        # A position that softmax all but rules out may still be gone through: else weight could die out.
        moved = jnp.where(mask, reached * jnp.maximum(wanted, _LEAST), 0)
        total = moved.sum(-1, keepdims=True)
        return moved / jnp.where(total > 0, total, 1)


_LEAST = 1e-6
_EXACT = jax.lax.Precision.HIGHEST


def _windows(x: Float[Array, "B S C"], taps: int) -> Float[Array, "B S W"]:
    """What stands around each position, zeros beyond the ends: taps * C numbers, as SAME convolutions see them."""
    before = (taps - 1) // 2
    padded = jnp.pad(x, ((0, 0), (before, taps - 1 - before), (0, 0)))
    return jnp.concatenate([padded[:, w : w + x.shape[1]] for w in range(taps)], axis=-1)


def _softmax(scores: Float[Array, "B S"], mask: Bool[Array, "B S"]) -> Float[Array, "B S"]:
    """Weights over what the mask allows; of a row that allows nothing, zeros."""
    highest = jnp.max(scores, axis=-1, keepdims=True, where=mask, initial=jnp.finfo(scores.dtype).min)
    raised = jnp.where(mask, jnp.exp(jnp.where(mask, scores - jax.lax.stop_gradient(highest), 0)), 0)
    total = raised.sum(-1, keepdims=True)
    return raised / jnp.where(total > 0, total, 1)


def off_diagonal(
    weights: Float[Array, "B T S"], frames: Int[Array, " B"], symbols: Int[Array, " B"], *, width: float = 0.2
) -> Float[Array, " B"]:
    """Returns how much weight is far from the diagonal, from 0 to 1: the loss of guided attention, one a row.

    The mean over a row's frames t of sum over s of weight * (1 - exp(-(s / S - t / T)^2 / (2 width^2))).

    Args:
        weights: of each frame t over symbols s.
        frames: T, how many each row has.
        symbols: S, how many each row has.
        width: how far from the diagonal is not far yet.
    """
    rows, columns = within(frames, weights.shape[1]), within(symbols, weights.shape[2])
    down = jnp.arange(weights.shape[1])[None] / jnp.maximum(frames, 1)[:, None]
    along = jnp.arange(weights.shape[2])[None] / jnp.maximum(symbols, 1)[:, None]
    far = 1 - jnp.exp(-jnp.square(along[:, None] - down[..., None]) / (2 * width**2))
    there = rows[..., None] & columns[:, None]
    return jnp.where(there, weights * far, 0).sum((1, 2)) / jnp.maximum(frames, 1)
