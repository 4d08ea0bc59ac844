"""Steps on the device: the model over a batch, and the draw of the next tokens.

Not here: what a step computes (`schedule.py`), its shapes (`shapes.py`), texts (`output.py`).
A step's forward is begun and runs while the host takes in what the step before drew; then its own draws are
begun, which may depend on that; `Launched` is asked for its results later.
Invariant: the forward is the model's own, `Decoder.__call__`, over paged views; the pool is donated
from step to step and never copied.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int32

from cupola.core.module import Tree
from cupola.core.record import record
from cupola.kernels.choose import same_at_all_sizes
from cupola.kernels.paged import Keys, Values, stored_dtype
from cupola.layers.kv import Paged, Rows
from cupola.models.decoder import Decoder
from cupola.serve.adapters import Adapters
from cupola.serve.batch import Batch, Tables, batch_of
from cupola.serve.request import Token
from cupola.serve.rows import rows_of
from cupola.serve.sample import Drawn, Given, sample
from cupola.serve.sample import Rows as Draws
from cupola.serve.sequence import Plan, Row
from cupola.serve.shapes import Shape, Shapes

SCORED_AT_ONCE = 64
"""Prompt tokens whose log-probabilities are computed together: their logits are held whole."""


@record
class Pool:
    """Keys and values of every layer, in pages.

    Args:
        keys: [P, K, C, Z] of each layer.
        values: [P, K, Z, C] of each layer.
    """

    keys: tuple[Keys, ...]
    values: tuple[Values, ...]

    @classmethod
    def empty(cls, model: Decoder, pages: int, page_size: int) -> "Pool":
        """Returns a pool that holds nothing."""
        kept = [(a.groups, a.head_size, stored_dtype(a.precision)) for a in model.attentions()]
        return cls(
            keys=tuple(jnp.zeros((pages, k, c, page_size), dtype) for k, c, dtype in kept),
            values=tuple(jnp.zeros((pages, k, page_size, c), dtype) for k, c, dtype in kept),
        )

    def views(self, groups: tuple[Rows, ...]) -> tuple[Paged, ...]:
        """Returns what each layer reads and writes in a step of these sequences."""
        pairs = zip(self.keys, self.values, strict=True)
        return tuple(Paged(keys=keys, values=values, groups=groups) for keys, values in pairs)

    @classmethod
    def of(cls, views: tuple[Paged, ...]) -> "Pool":
        """Returns the pool as a step has left it."""
        return cls(keys=tuple(view.keys for view in views), values=tuple(view.values for view in views))


def bytes_per_token(model: Decoder) -> int:
    """Returns what keys and values of one token take in all layers."""
    return sum(2 * a.groups * a.head_size * stored_dtype(a.precision).itemsize for a in model.attentions())


@dataclasses.dataclass(frozen=True)
class Begun:
    """A step whose forward runs on the device; how its rows draw may yet depend on the step before.

    Args:
        plan: what it computes.
        shape: that it was padded to.
        logits: of each draw.
        states: the last hidden state of each token of the step.
        slots: where each drawn token is kept for the next step.
    """

    plan: Plan
    shape: Shape
    logits: Float[Array, "R V"]
    states: Float[Array, "T D"]
    slots: Int[Given, " R"]


@dataclasses.dataclass(frozen=True)
class Launched:
    """A step that runs on the device, its draws too.

    Args:
        plan: what it computes.
        shape: that it was padded to.
        drawn: the tokens, for each drawing row of the plan in order, one more than its draft.
        states: the last hidden state of each token of the step.
    """

    plan: Plan
    shape: Shape
    drawn: Drawn
    states: Float[Array, "T D"]

    def rows(self) -> Iterator[tuple[Row, list[Token]]]:
        """Yields each row of the plan with what was drawn after its last known token and after each of its draft.

        Waits for the device.
        """
        tokens, log_probs = np.asarray(self.drawn.tokens).tolist(), np.asarray(self.drawn.log_probs).tolist()
        tops = _tops(self.drawn)
        place = 0
        for row in self.plan.rows:
            count = (1 + len(row.draft)) * row.draws
            span = slice(place, place + count)
            yield row, [Token(*each) for each in zip(tokens[span], log_probs[span], tops[span], strict=True)]
            place += count

    def states_of(self, row: Row) -> Float[Array, "T D"]:
        """Returns the hidden states of a chunk's tokens."""
        first = self.shape.decodes * self.shape.width + self.plan.chunks.index(row) * self.shape.chunk_width
        return self.states[first : first + row.count]


def _tops(drawn: Drawn) -> list[tuple[tuple[int, float], ...]]:
    if drawn.top is None:
        return [()] * drawn.tokens.shape[0]
    pairs = zip(np.asarray(drawn.top).tolist(), np.asarray(drawn.top_log_probs).tolist(), strict=True)
    return [tuple(zip(ids, log_probs, strict=True)) for ids, log_probs in pairs]


class Runner:
    """Compiled steps of one model, and the pool that they write to.

    Args:
        model: as in training.
        params: its parameters, cut into layers; best in forms for serving (`weights.py`).
        shapes: that steps are compiled for.
        pages: of the pool, the one for padding among them.
        page_size: tokens in a page.
        max_length: most tokens of a sequence.
        vocabulary: tokens that may be drawn; the model may have more, which no text has.
        adapters: low-rank adapters that rows may choose.
    """

    def __init__(
        self,
        model: Decoder,
        params: Tree,
        *,
        shapes: Shapes,
        pages: int,
        page_size: int,
        max_length: int,
        vocabulary: int,
        adapters: Adapters | None = None,
    ):
        self.model, self.shapes, self.adapters = model, shapes, adapters
        self.params = params if adapters is None else adapters.attached(params)
        self._vocabulary = vocabulary
        self._slots = shapes.decodes[-1]
        self._tables = Tables(self._slots, -(-max_length // page_size))
        self._pool = Pool.empty(model, pages, page_size)
        self._latest = jnp.zeros(self._slots, jnp.int32)
        self._compiled: dict[Shape, Any] = {}
        self._step = jax.jit(same_at_all_sizes(partial(_step, model)), donate_argnums=1)

    def compile(self, shape: Shape) -> None:
        """Compiles a step, or finds it in the cache of compilations; any thread may call it."""
        batch = batch_of(Plan((), ()), shape, self._tables, slots=self._slots, adapters={})
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (self.params, self._pool, self._latest, batch)
        )
        compiled = self._step.lower(*abstract).compile()
        logits = jnp.zeros((shape.draws, self.model.vocabulary), self.model.precision.output)
        rows = rows_of((), rows=shape.draws)
        _draw(logits, jnp.zeros_like(self._latest), batch.drawn_slots, rows, self._vocabulary, 0)
        self._compiled[shape] = compiled

    @property
    def ready(self) -> frozenset[Shape]:
        """The shapes that are compiled."""
        return frozenset(self._compiled)

    def begin(self, plan: Plan) -> Begun:
        """Begins a step's forward; it runs after those begun before, while the host goes on."""
        shape = min(
            (shape for shape in tuple(self._compiled) if self.shapes.holds(shape, plan)),
            key=lambda s: (s.tokens, s.decodes),
        )
        names = {} if self.adapters is None else self.adapters.numbers
        batch = batch_of(plan, shape, self._tables, slots=self._slots, adapters=names)
        logits, states, self._pool = self._compiled[shape](self.params, self._pool, self._latest, batch)
        return Begun(plan=plan, shape=shape, logits=logits, states=states, slots=batch.drawn_slots)

    def draw(self, begun: Begun, draws: Draws, *, top: int = 0) -> Launched:
        """Begins the draws of a step, before any later step is begun.

        Args:
            draws: how each row draws, padded to those of the step's shape.
            top: how many of the likeliest tokens are wanted of each row.
        """
        drawn, self._latest = _draw(begun.logits, self._latest, begun.slots, draws, self._vocabulary, top)
        return Launched(plan=begun.plan, shape=begun.shape, drawn=drawn, states=begun.states)

    def scores(self, launched: Launched, row: Row, *, top: int) -> list[Token]:
        """Returns each token that follows one of a chunk's in the prompt, with its log-probability."""
        sequence = row.sequence
        targets = sequence.tokens[row.start + 1 : min(row.stop + 1, sequence.prompt_tokens)]
        states = launched.states_of(row)
        scored: list[Token] = []
        for first in range(0, len(targets), SCORED_AT_ONCE):
            wanted = targets[first : first + SCORED_AT_ONCE]
            missing = SCORED_AT_ONCE - len(wanted)
            rows = jnp.pad(states[first : first + len(wanted)], ((0, missing), (0, 0)))
            drawn = _score(self.model, self.params, rows, np.asarray(wanted + [0] * missing, np.int32), top)
            each = zip(wanted, np.asarray(drawn.log_probs).tolist(), _tops(drawn), strict=False)
            scored += [Token(*one) for one in each]
        return scored

    def replace(self, params: Tree) -> None:
        """Takes other weights of the same shapes from the next step on."""
        self.params = params if self.adapters is None else self.adapters.attached(params)

    def refresh(self) -> None:
        """Takes the adapters as they are now from the next step on."""
        if self.adapters is not None:
            self.params = self.adapters.attached(self.params)


def _step(
    model: Decoder, params: Tree, pool: Pool, latest: Int32[Array, " N"], batch: Batch
) -> tuple[Float[Array, "R V"], Float[Array, "T D"], Pool]:
    """Returns the logits after the wanted tokens, all last hidden states, and the pool with the new tokens."""
    tokens = jnp.where(batch.slots >= 0, latest[batch.slots], batch.tokens)
    params = Adapters.chosen(params, jnp.asarray(batch.adapters))
    hidden = model(params, tokens[None], positions=jnp.asarray(batch.positions)[None], view=pool.views(batch.groups))
    states = hidden.states[0]
    logits = model.logits(params, states[batch.wanted][None])[0]
    return logits, states, Pool.of(hidden.aside.view)


@partial(jax.jit, static_argnums=(4, 5), donate_argnums=1)
def _draw(
    logits: Float[Array, "R V"],
    latest: Int32[Array, " N"],
    slots: Int[Given, " R"],
    draws: Draws,
    vocabulary: int,
    top: int,
) -> tuple[Drawn, Int32[Array, " N"]]:
    drawn = sample(logits, draws, vocabulary=vocabulary, top=top)
    return drawn, latest.at[slots].set(drawn.tokens, mode="drop")


@partial(jax.jit, static_argnames=("model", "top"))
def _score(model: Decoder, params: Tree, states: Float[Array, "T D"], targets: Int[Array, " T"], top: int) -> Drawn:
    """Returns the targets as if they had been drawn."""
    log_probs = jax.nn.log_softmax(model.logits(params, states[None])[0].astype(jnp.float32))
    own = jnp.take_along_axis(log_probs, targets[:, None], 1)[:, 0]
    if not top:
        return Drawn(targets, own)
    values, ids = jax.lax.top_k(log_probs, top)
    return Drawn(targets, own, ids.astype(jnp.int32), values)


def embedding_of(states: Sequence[Float[np.ndarray, "T D"]]) -> tuple[float, ...]:
    """Returns the mean of a prompt's hidden states, scaled to length 1."""
    mean = np.concatenate(states).astype(np.float64).mean(0)
    return tuple((mean / max(float(np.linalg.norm(mean)), 1e-30)).tolist())
