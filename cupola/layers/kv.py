"""Views of keys and values: what differs between training, prefill and decoding.

Attention hands its queries, keys and values to the view, which keeps what later calls need and
attends to all that it holds; None (training) means that there is nothing to keep. Not here: how
attention is computed (`kernels/attention`, `kernels/paged`), who owns which page (the server).
Invariant: a view holds what was computed; it changes no number but to round it to what it keeps.
"""

import abc
import dataclasses
import enum

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from cupola.core.dtype import Precision
from cupola.core.record import record
from cupola.kernels.attention import Mask, attend
from cupola.kernels.paged import Keys, Values, paged_attend, write_pages, write_tokens


class View(abc.ABC):
    """Keys and values of one layer from earlier calls."""

    @abc.abstractmethod
    def attend(
        self,
        query: Float[Array, "B T H C"],
        key: Float[Array, "B T K C"],
        value: Float[Array, "B T K C"],
        *,
        positions: Int[Array, "#B T"],
        mask: Mask,
        scale: float | None,
        precision: Precision,
    ) -> tuple[Float[Array, "B T H C"], "View"]:
        """Returns what each query gathers from the view and from this call, and the view that holds both.

        Args:
            positions: of the tokens in their documents.
            mask: which keys each query sees; positions in the document decide.
            scale: multiplies scores; None means 1/sqrt(C).
        """


@record
class Growing(View):
    """Keys and values of one layer for sequences that grow, in arrays of a fixed capacity.

    Args:
        keys: [B, S, K, C], S being the capacity.
        values: the same.
    """

    keys: Float[Array, "B S K C"]
    values: Float[Array, "B S K C"]

    @classmethod
    def empty(cls, batch: int, capacity: int, heads: int, width: int, dtype: np.dtype) -> "Growing":
        """Returns a view that holds nothing yet."""
        # Two arrays, not one twice: both are donated to the step that grows them.
        return cls(
            keys=jnp.zeros((batch, capacity, heads, width), dtype),
            values=jnp.zeros((batch, capacity, heads, width), dtype),
        )

    def attend(self, query, key, value, *, positions, mask, scale, precision):
        start = jnp.broadcast_to(positions[:, 0], query.shape[:1])
        view = self.extend(key, value, start)
        mixed = attend(query, view.keys, view.values, mask=mask.starting(start), scale=scale, precision=precision)
        return mixed, view

    def extend(
        self, key: Float[Array, "B T K C"], value: Float[Array, "B T K C"], start: Int[Array, " B"]
    ) -> "Growing":
        """Returns the view with these keys and values written from position `start` of each row on.

        The caller sees to it that start + T is within the capacity: inside a compiled step nothing
        can be refused any more.
        """
        write = jax.vmap(lambda held, new, at: jax.lax.dynamic_update_slice(held, new.astype(held.dtype), (at, 0, 0)))
        return type(self)(keys=write(self.keys, key, start), values=write(self.values, value, start))


class Begin(enum.Enum):
    """Where in a page the new tokens of a sequence may begin."""

    ANYWHERE = "anywhere"
    PAGE = "page"
    """At its first place, with a width of whole pages: these are written as pages, which is many times as fast."""


@record
class Rows:
    """Some of a step's tokens: as many new ones for each of some sequences.

    Args:
        table: the pages of each sequence, in order.
        start: position of the first new token of each sequence.
        width: new tokens of each.
        begin: where in a page the new tokens of a sequence may begin.
    """

    table: Int[Array | np.ndarray, "B N"]
    start: Int[Array | np.ndarray, " B"]
    width: int = dataclasses.field(metadata={"static": True})
    begin: Begin = dataclasses.field(metadata={"static": True})


@record
class Paged(View):
    """Keys and values of one layer in the pages of a pool that many sequences share.

    A step's tokens lie in one row, whatever sequences they belong to, so that every product sees
    them all at once; only attention takes them apart. Tokens past the last group are padding.

    Args:
        keys: [P, K, C, Z], Z being the tokens in a page.
        values: [P, K, Z, C].
        groups: whose tokens come, in this order.
    """

    keys: Keys
    values: Values
    groups: tuple[Rows, ...]

    def attend(self, query, key, value, *, positions, mask, scale, precision):
        keys, values = self.keys, self.values
        taken = 0
        for group in self.groups:
            new_key, new_value = (_taken(x, taken, group) for x in (key, value))
            write = write_pages if group.begin is Begin.PAGE else write_tokens
            places = jnp.asarray(group.table), jnp.asarray(group.start)
            keys, values = write(keys, values, new_key, new_value, *places)
            taken += group.start.shape[0] * group.width
        mixed, taken = [], 0
        for group in self.groups:
            asked = _taken(query, taken, group).astype(precision.compute)
            places = jnp.asarray(group.table), jnp.asarray(group.start)
            mix = paged_attend(asked, keys, values, *places, mask=mask, scale=scale)
            mixed.append(mix.reshape(-1, *query.shape[2:]).astype(query.dtype))
            taken += mixed[-1].shape[0]
        mixed.append(jnp.zeros((query.shape[1] - taken, *query.shape[2:]), query.dtype))
        return jnp.concatenate(mixed)[None], dataclasses.replace(self, keys=keys, values=values)


def _taken(x: Float[Array, "1 T H C"], first: int, group: Rows) -> Float[Array, "B W H C"]:
    rows = group.start.shape[0]
    return x[0, first : first + rows * group.width].reshape(rows, group.width, *x.shape[2:])
