"""A second, smaller model that guesses the next tokens of all decoding sequences, for the model to verify.

Its keys and values lie in a pool of its own under the model's page numbers. It computes whatever the model
computes: prompts along with it, and of a decoding sequence the last token and each guess after it. So where
the model has keys and values it has them too, and the prefix cache, retraction and release know nothing of it.
Not here: verification (`run.py`), what is kept of it (`speculate.py`).
Invariant: whatever it guesses, the tokens are those of the model. It guesses with a request's own settings
and seed, so that one that agrees with the model agrees at any temperature; penalties, biases, grammars and
adapters it leaves out, at the cost of a guess.
Source: Leviathan et al. 2023, section 2; Chen et al. 2023 (speculative sampling), algorithm 2.
"""

import collections
import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32

from cupola.core.errors import ConfigError
from cupola.core.module import Tree
from cupola.kernels.choose import same_at_all_sizes
from cupola.models.decoder import Decoder
from cupola.serve.admit import Limits
from cupola.serve.batch import Batch, Tables, batch_of
from cupola.serve.rows import Place, Settings, rows_of
from cupola.serve.run import Pool
from cupola.serve.sample import Rows as Draws
from cupola.serve.sample import sample
from cupola.serve.sequence import Plan, Row
from cupola.serve.shapes import Shape, Shapes
from cupola.serve.speculate import Speculation, SpeculationKind
from cupola.serve.weights import for_serving


class Draft:
    """The compiled steps of a draft model, and the pool that they write to.

    Args:
        model: of the same tokens as the one that verifies.
        params: its parameters, stacked or cut into layers.
        count: guesses for each sequence.
        shapes: those of the model's steps.
        limits: those of the scheduler.
        vocabulary: tokens that may be drawn.

    Raises:
        ConfigError: it cannot read as long a text as the model, or knows fewer tokens.
    """

    def __init__(self, model: Decoder, params: Tree, *, count: int, shapes: Shapes, limits: Limits, vocabulary: int):
        if model.max_length < limits.max_length:
            raise ConfigError(
                f"the draft model reads {model.max_length} tokens, but requests may have {limits.max_length}",
                where="draft",
                remedy=f"Start with --length {model.max_length}, or with another draft model.",
            )
        if model.vocabulary < vocabulary:
            raise ConfigError(
                f"the draft model has {model.vocabulary} tokens, but the tokenizer {vocabulary}",
                where="draft",
                remedy="Name a draft model of the same tokenizer.",
            )
        self.params = for_serving(model, params)
        self._shapes, self._slots = shapes, shapes.decodes[-1]
        self._tables = Tables(self._slots, -(-limits.max_length // limits.page_size))
        self._pool = Pool.empty(model, limits.pages, limits.page_size)
        self._compiled: dict[Shape, Any] = {}
        self._guess = jax.jit(same_at_all_sizes(partial(_guess, model, count, vocabulary)), donate_argnums=1)
        self._follow = jax.jit(same_at_all_sizes(partial(_follow, model)), donate_argnums=1)

    def compile(self, shape: Shape) -> None:
        """Compiles what goes with a step of the model; any thread may call it."""
        if shape.decodes:
            self._compile(Shape(shape.decodes, 1, 0, 0), self._guess)
        if shape.chunks:
            self._compile(Shape(0, 1, shape.chunks, shape.chunk_width), self._follow)

    def step(self, plan: Plan, settings: Sequence[Settings]) -> Plan:
        """Computes what the plan does and returns it with guesses in its rows; waits for those, not for prompts.

        Args:
            plan: what the model's next step computes.
            settings: of each decoding row's request.
        """
        decodes = plan.decodes
        if decodes:
            bare = Plan(tuple(Row(row.sequence, row.start, 1, True) for row in decodes), ())
            shape = self._shape(bare)
            places = [Place(settings=own, position=row.stop) for own, row in zip(settings, bare.decodes, strict=True)]
            draws = dataclasses.replace(rows_of(places, rows=shape.draws), bias=None)
            guesses, self._pool = self._compiled[shape](self.params, self._pool, self._batch(bare, shape), draws)
            told = np.asarray(guesses).tolist()
            decodes = tuple(row.guessing(told[index]) for index, row in enumerate(decodes))
        if plan.chunks:
            read = Plan((), plan.chunks)
            shape = self._shape(read)
            self._pool = self._compiled[shape](self.params, self._pool, self._batch(read, shape))
        return Plan(decodes, plan.chunks)

    def _compile(self, shape: Shape, step: Any) -> None:
        if shape in self._compiled:
            return
        given = [self.params, self._pool, self._batch(Plan((), ()), shape)]
        if shape.decodes:
            given.append(rows_of([], rows=shape.draws))
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), given)
        self._compiled[shape] = step.lower(*abstract).compile()

    def _shape(self, plan: Plan) -> Shape:
        """Returns the smallest compiled shape for a plan of one part."""
        fits = [
            s for s in tuple(self._compiled) if bool(s.decodes) == bool(plan.decodes) and self._shapes.holds(s, plan)
        ]
        return min(fits, key=lambda shape: shape.tokens)

    def _batch(self, plan: Plan, shape: Shape) -> Batch:
        # Adapters are the model's: to each of their names this one answers as it is.
        adapters = collections.defaultdict[str, int](int)
        return batch_of(plan, shape, self._tables, slots=self._slots, adapters=adapters)


def draft_of(
    given: tuple[Decoder, Tree] | None, speculation: Speculation, shapes: Shapes, limits: Limits, vocabulary: int
) -> Draft | None:
    """Returns what guesses with a given model and its parameters; None where none is to guess.

    Raises:
        ConfigError: it is missing, or of no use, or does not fit.
    """
    wanted = speculation.kind is SpeculationKind.DRAFT
    if wanted and given is None:
        raise ConfigError(
            "a draft model is to guess, but none was given",
            where="speculate",
            remedy="Name one with --draft MODEL, or use --speculate ngram.",
        )
    if given is None:
        return None
    if not wanted:
        raise ConfigError(
            f"a draft model was given, but speculation is {speculation.kind.value}",
            where="speculate",
            remedy="Use --speculate draft, or leave the draft model out.",
        )
    return Draft(*given, count=speculation.count, shapes=shapes, limits=limits, vocabulary=vocabulary)


def _follow(model: Decoder, params: Tree, pool: Pool, batch: Batch) -> Pool:
    """Returns the pool with the tokens of the batch."""
    return _forward(model, params, pool, batch, batch.tokens, 0)[1]


def _guess(
    model: Decoder, count: int, vocabulary: int, params: Tree, pool: Pool, batch: Batch, draws: Draws
) -> tuple[Int32[Array, "R N"], Pool]:
    """Returns `count` guesses for each row, and the pool with its token and all that were guessed."""

    def one(held: tuple[Pool, Any], ahead: Any) -> tuple[tuple[Pool, Any], Any]:
        pool, tokens = held
        states, pool = _forward(model, params, pool, batch, tokens, ahead)
        logits = model.logits(params, states[None])[0]
        drawn = sample(logits, dataclasses.replace(draws, position=draws.position + ahead), vocabulary=vocabulary)
        return (pool, drawn.tokens), drawn.tokens

    (pool, last), guesses = jax.lax.scan(one, (pool, batch.tokens), jnp.arange(count, dtype=jnp.int32))
    # Of the last guess only keys and values are wanted: the model may accept it.
    return guesses.T, _forward(model, params, pool, batch, last, count)[1]


def _forward(
    model: Decoder, params: Tree, pool: Pool, batch: Batch, tokens: Any, ahead: Any
) -> tuple[Float[Array, "T D"], Pool]:
    """Returns the states of tokens so far after those of the batch, and the pool with them."""
    groups = tuple(dataclasses.replace(group, start=group.start + ahead) for group in batch.groups)
    positions = batch.positions + ahead
    hidden = model(params, tokens[None], positions=positions[None], view=pool.views(groups))
    return hidden.states[0], Pool.of(hidden.aside.view)
