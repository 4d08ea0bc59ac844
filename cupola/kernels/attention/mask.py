"""Masks as values: which keys each query may see.

A mask says *what* is visible; an implementation decides how, or refuses. Segment 0 is padding: a
padded query sees nothing and a padded key is seen by none, whatever it holds.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from cupola.config.value import Value
from cupola.core.errors import ConfigError


@jax.tree_util.register_dataclass
class Mask(Value):
    """Conditions that a visible key meets, all of them; the empty mask shows everything.

    A prefix is the exception: its keys are seen from everywhere, whatever `causal` and `window` hide.

    Args:
        causal: a key is seen by queries at its own position and later ones.
        window: a query sees itself and the window - 1 keys before it; needs causal.
        query_segments: [B, T] ints, the document of each query; keys of other documents are hidden. 0 is
            padding.
        key_segments: [B, S] ints, the document of each key.
        start: [B] ints, the position among the keys of the first query of each row; None is 0.
        prefix: [B] ints, how many keys at the beginning of each row every query sees (of its own document); None
            is 0. Needs causal.
    """

    causal: bool = dataclasses.field(default=False, metadata={"static": True})
    window: int | None = dataclasses.field(default=None, metadata={"static": True})
    # Any, because jax rebuilds trees with other things than arrays in their leaves.
    query_segments: Any = None
    key_segments: Any = None
    start: Any = None
    prefix: Any = None

    def check(self) -> None:
        if self.window is not None and (self.window < 1 or not self.causal):
            raise ConfigError(
                f"window={self.window} with causal={self.causal}",
                where="mask",
                remedy="A window counts keys from 1, backwards from the query: write Mask(causal=True, window=128).",
            )
        if (self.query_segments is None) != (self.key_segments is None):
            raise ConfigError("only one of query_segments and key_segments is given", where="mask", remedy="Give both.")
        if self.prefix is not None and not self.causal:
            raise ConfigError(
                "a prefix with causal=False", where="mask", remedy="Every key is seen already. Leave the prefix out."
            )

    def within(self, query_segments: Int[Array, "B T"] | None, key_segments: Int[Array, "B S"] | None) -> "Mask":
        """Returns the mask that also hides other documents; None adds nothing."""
        if query_segments is None:
            return self
        return dataclasses.replace(self, query_segments=query_segments, key_segments=key_segments)

    def starting(self, start: Int[Array, " B"]) -> "Mask":
        """Returns the mask for queries that begin at `start` among the keys."""
        return dataclasses.replace(self, start=start)

    def count(self, length: int) -> int:
        """Returns how many (query, key) pairs of one row of `length` tokens the fixed part shows."""
        if not self.causal:
            return length * length
        window = min(self.window or length, length)
        return window * (window + 1) // 2 + (length - window) * window

    def visible(self, queries: int, keys: int) -> Bool[Array, "#B #T #S"]:
        """Returns which keys each query sees, broadcast over the batch where rows are alike."""
        at = jnp.arange(queries)[None, :, None]
        if self.start is not None:
            at = at + self.start[:, None, None]
        behind = at - jnp.arange(keys)[None, None, :]
        seen = jnp.ones((1, 1, 1), bool)
        if self.causal:
            seen = behind >= 0
        if self.window is not None:
            seen = seen & (behind < self.window)
        if self.prefix is not None:
            seen = seen | (jnp.arange(keys)[None, None, :] < self.prefix[:, None, None])
        if self.query_segments is not None and self.key_segments is not None:
            query, key = self.query_segments[:, :, None], self.key_segments[:, None, :]
            seen = seen & (query == key) & (query != 0)
        return seen


CAUSAL = Mask(causal=True)
"""Each position sees itself and what came before."""
