"""What goes into a call beside arrays, and what is said aside.

`Context` (mode and randomness) goes in as one argument; `Aside` (losses, metrics, new state, new
key/value views) comes out in the return value. Invariant: nothing travels through hidden state, so every
module works under jit, scan, grad and shard_map alike.
"""

import dataclasses
import enum
from typing import Any

import jax
from jaxtyping import Array, Key

from cupola.core.errors import ConfigError
from cupola.core.record import record
from cupola.core.rng import stream


class Mode(enum.Enum):
    """What a call is for."""

    TRAIN = "train"
    """Dropout and the like are on."""
    EVALUATE = "evaluate"
    """Nothing is random."""


@record
class Context:
    """The mode of a call and the random stream that it may draw from.

    Args:
        mode: training or evaluation.
        key: root of the call's random streams; may be None where nothing random is on.
    """

    mode: Mode = dataclasses.field(default=Mode.EVALUATE, metadata={"static": True})
    key: Key[Array, "..."] | None = None

    def at(self, name: str | Array) -> "Context":
        """Returns the context of a child: the same mode, its own stream.

        Args:
            name: a field's name, or a layer's index inside `Repeat`.
        """
        if self.key is None:
            return self
        key = stream(self.key, name) if isinstance(name, str) else jax.random.fold_in(self.key, name)
        return dataclasses.replace(self, key=key)

    def draw(self, name: str) -> Key[Array, ""]:
        """Returns a key to draw from.

        Raises:
            ConfigError: the call was given no key.
        """
        if self.key is None:
            raise ConfigError(
                f"{name} draws random numbers, but the call has no key",
                remedy="Pass Context(mode=Mode.TRAIN, key=jax.random.key(0)).",
            )
        return stream(self.key, name)


@record
class Aside:
    """What a module says beside its result; containers merge it, `Repeat` stacks it.

    Args:
        losses: terms to add to the training loss, by name.
        metrics: numbers to show, by name.
        state: next values of parameters of Role.STATE, by path; in training only (`core/state.py`).
        view: the key/value view after the call, or a tree of them by child; None in training.
    """

    losses: dict[str, Array] = dataclasses.field(default_factory=dict)
    metrics: dict[str, Array] = dataclasses.field(default_factory=dict)
    state: dict[str, Array] = dataclasses.field(default_factory=dict)
    view: Any = None

    def under(self, name: str) -> "Aside":
        """Returns the same with each name below `name`."""
        below = {
            part: {f"{name}.{k}": v for k, v in getattr(self, part).items()} for part in ("losses", "metrics", "state")
        }
        return dataclasses.replace(self, **below)

    def __or__(self, other: "Aside") -> "Aside":
        """Returns what both say, without the views, which a container orders as it needs."""
        return Aside(
            losses=self.losses | other.losses, metrics=self.metrics | other.metrics, state=self.state | other.state
        )


def split_aside(result: Any) -> tuple[Array, Aside]:
    """Returns (array, aside) for a module that says something aside and for one that does not."""
    return result if isinstance(result, tuple) else (result, Aside())
