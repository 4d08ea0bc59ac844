"""Unlike blocks in a row: several `Repeat`s, such as layers that see far among layers that see near.

Invariant: it is called, viewed and counted like a `Repeat` of all its layers; a view of it is one
flat tuple, one view a layer, in the order of the layers.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

from jaxtyping import Array, Float

from cupola.core.context import Aside, Context
from cupola.core.errors import ConfigError
from cupola.core.module import Module, Tree
from cupola.layers.repeat import Repeat


class Stack(Module):
    """Several repetitions of blocks, one after the other.

    Args:
        parts: in the order of the layers.

    Example:
        in_a_row([near] * 5 + [far])        # Stack(parts=(Repeat(layers=5, ...), Repeat(layers=1, ...)))
    """

    parts: tuple[Repeat, ...]

    def check(self) -> None:
        if not self.parts:
            raise ConfigError("a stack of no parts", where="parts", remedy="Give at least one Repeat.")

    @property
    def layers(self) -> int:
        """How many layers all parts have."""
        return sum(part.layers for part in self.parts)

    @property
    def blocks(self) -> tuple[Module, ...]:
        """The block of each layer, in order."""
        return tuple(block for part in self.parts for block in part.blocks)

    def __call__(
        self,
        p: Tree,
        x: Float[Array, "B T D"],
        *,
        view: tuple[Any, ...] | None = None,
        context: Context,
        **shared: Any,
    ) -> tuple[Float[Array, "B T D"], Aside]:
        """Returns what the last part returns; what the parts say aside comes under their names.

        Args:
            view: one view a layer, in one flat tuple, and so they come back; None means that there are none.
        """
        every = Aside()
        views: list[Any] = []
        start = 0
        for index, (part, p_part) in enumerate(zip(self.parts, p["parts"], strict=True)):
            name, stop = f"parts.{index}", start + part.layers
            own = None if view is None else view[start:stop]
            x, said = part(p_part, x, view=own, context=context.at(name), **shared)
            every, start = every | said.under(name), stop
            views += said.view or ()
        return x, dataclasses.replace(every, view=None if view is None else tuple(views))

    def empty_view(self, batch: int, capacity: int) -> tuple[Any, ...]:
        """Returns the layers' views in one flat tuple."""
        return tuple(block.empty_view(batch, capacity) for block in self.blocks)


def in_a_row(blocks: Sequence[Module]) -> Repeat | Stack:
    """Returns the blocks one after the other, equal neighbours as one `Repeat`."""
    parts = tuple(Repeat(layers=len(list(group)), block=block) for block, group in itertools.groupby(blocks))
    return parts[0] if len(parts) == 1 else Stack(parts=parts)
