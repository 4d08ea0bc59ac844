"""What an update is made by, apart from arrays. Not here: the update (`reference.py`)."""

import dataclasses
from collections.abc import Sequence

from jaxtyping import Array, Float

Leaves = Sequence[Float[Array, "..."]]
"""Of a tree, in its order."""


@dataclasses.dataclass(frozen=True)
class Rule:
    """The numbers of AdamW that are the same at every step.

    Args:
        multipliers: what the rate of each leaf's direction is multiplied by.
        decays: what each leaf is drawn towards zero by, times the rate; 0 leaves it alone.
        b1: share of the mean of gradients that is kept.
        b2: share of the mean of squared gradients that is kept.
        epsilon: added to the root of the latter.
    """

    multipliers: tuple[float, ...]
    decays: tuple[float, ...]
    b1: float
    b2: float
    epsilon: float
