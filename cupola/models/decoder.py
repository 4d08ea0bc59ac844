"""A decoder-only language model: one forward for training, prefill and decoding.

Not here: families (recipes and name tables), sampling (`completion.py`), the mean of the loss over
a batch (`train/step.py`).
Invariant: the loss, the sampler and the evaluator call the same forward with the same parameters.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from cupola.core.context import Aside, Context
from cupola.core.errors import ConfigError, ShapeError
from cupola.core.module import Module, Tree
from cupola.core.record import record
from cupola.kernels.cross_entropy import PLAIN, Objective, linear_cross_entropy, linear_log_probs
from cupola.kernels.cross_entropy.reference import capped
from cupola.kernels.matmul import Turned, Weight, dot
from cupola.layers.attention import Attention
from cupola.layers.embedding import Embedding, Head
from cupola.layers.norm import RMSNorm
from cupola.layers.repeat import Repeat
from cupola.layers.stack import Stack


@record
class Hidden:
    """What a forward pass gives: the last hidden states, not logits, and what was said aside."""

    states: Float[Array, "B T D"]
    aside: Aside


class Decoder(Module):
    """Embeds tokens, passes them through a stack of blocks, and normalizes the result.

    Args:
        vocabulary: number of tokens.
        width: of the residual stream.
        max_length: longest sequence, in tokens.
        embedding: of the tokens.
        stack: the blocks: one many times over, or unlike ones in a row.
        norm: applied after the stack.
        head: the output matrix; None takes the embedding's (tied).
        soft_cap: logits become soft_cap * tanh(logits / soft_cap), in training as in serving; None leaves them.
    """

    vocabulary: int
    width: int
    max_length: int
    stack: Repeat | Stack
    embedding: Embedding = Embedding()
    norm: RMSNorm = RMSNorm()
    head: Head | None = None
    soft_cap: float | None = None

    def check(self) -> None:
        super().check()
        if self.soft_cap is not None and self.soft_cap <= 0:
            raise ConfigError(
                f"{self.soft_cap} caps nothing", where="soft_cap", remedy="Use a positive number, or None for no cap."
            )

    def __call__(
        self,
        p: Tree,
        tokens: Int[Array, "B T"],
        *,
        positions: Int[Array, "#B T"] | None = None,
        segments: Int[Array, "B T"] | None = None,
        view: Any = None,
        context: Context = Context(),
    ) -> Hidden:
        """Returns the hidden state of each token; with a view, of tokens that continue what it holds.

        Args:
            positions: of the tokens in their documents; None counts from 0. A view needs them.
            segments: document of each token, 0 for padding; None means one document a row.
            view: keys and values of earlier tokens: what `empty_view` gives, or a flat tuple of one view a
                layer in the order of `attentions`; it comes back in the same form. None means none.

        Raises:
            ShapeError: a row is longer than max_length (with a view it may hold several sequences), or a
                view comes without positions.
        """
        length = tokens.shape[1]
        if view is None and length > self.max_length:
            raise ShapeError(
                f"{length} tokens a row are more than max_length={self.max_length}",
                where="model",
                remedy=f"Pass at most {self.max_length}, or build the model with max_length={length}.",
            )
        if positions is None and view is not None:
            raise ShapeError(
                "a view came without positions", where="model", remedy="Pass positions=: where the new tokens stand."
            )
        if positions is None:
            positions = jnp.arange(length)[None]
        x = self.embedding(p["embedding"], tokens)
        x, said = self.stack(
            p["stack"], x, positions=positions, segments=segments, view=view, context=context.at("stack")
        )
        return Hidden(states=self.norm(p["norm"], x), aside=said.under("stack"))

    def output_table(self, p: Tree) -> Weight:
        """Returns the matrix that gives logits, the head's or, where they are tied, the embedding's: [V, D], or a form of [D, V]."""
        return p["embedding"]["table"] if self.head is None else p["head"]["table"]

    def logits(self, p: Tree, states: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
        """Returns the logits of hidden states; for a batch's loss use `loss`, which never holds them all."""
        table = self.output_table(p)
        plain = isinstance(table, Array)
        weight = Turned(values=table, shape=(self.width, self.vocabulary)) if plain else table
        return capped(dot(states, weight, self.precision), self.soft_cap)

    def loss(
        self,
        p: Tree,
        states: Float[Array, "B T D"],
        targets: Int[Array, "B T"],
        weights: Float[Array, "B T"],
        objective: Objective = PLAIN,
    ) -> Float[Array, ""]:
        """Returns the weighted sum of the objective's losses; by default of the negative log-probabilities, in nats.

        Raises:
            ConfigError: the objective has another soft cap than the model.
        """
        return linear_cross_entropy(
            states,
            self.output_table(p),
            targets,
            weights,
            precision=self.precision,
            objective=self.own(objective),
        )

    def own(self, objective: Objective) -> Objective:
        """Returns the objective with the model's soft cap.

        Raises:
            ConfigError: it has another one, and the model would be served without it.
        """
        if objective.soft_cap not in (None, self.soft_cap):
            raise ConfigError(
                f"{objective.soft_cap} is not the model's soft cap, {self.soft_cap}, with which it is served",
                where="objective.soft_cap",
                remedy=f"Use model.soft_cap={objective.soft_cap}; the objective may leave it out.",
            )
        return dataclasses.replace(objective, soft_cap=self.soft_cap)

    def log_probs(self, p: Tree, states: Float[Array, "B T D"], targets: Int[Array, "B T"]) -> Float[Array, "B T"]:
        """Returns the log-probability of each target, in nats."""
        return linear_log_probs(states, self.output_table(p), targets, precision=self.precision, soft_cap=self.soft_cap)

    def attentions(self) -> tuple[Attention, ...]:
        """Returns the attention of each layer, in order: what a view of the layer must hold."""
        return tuple(held for block in self.stack.blocks for _, held in block.walk() if isinstance(held, Attention))

    def empty_view(self, batch: int, capacity: int) -> Any:
        """Returns a view of keys and values for `capacity` tokens a row that holds nothing yet.

        Raises:
            ShapeError: the model cannot place that many tokens.
        """
        if capacity > self.max_length:
            raise ShapeError(
                f"a view of {capacity} tokens is more than max_length={self.max_length}",
                where="model",
                remedy=f"Ask for at most {self.max_length} tokens, prompt included.",
            )
        return self.stack.empty_view(batch, capacity)

    def flops(self, batch: int, length: int) -> int:
        """Returns the FLOPs of one forward pass with logits for every token."""
        tied = 2 * batch * length * self.vocabulary * self.width if self.head is None else 0
        return super().flops(batch, length) + tied
