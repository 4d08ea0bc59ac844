"""Parameters as declarations: shape, dims, initializer, fans, role.

Not here: the arrays. Everything that concerns a parameter (initial values, shardings, optimizer
groups, learning-rate multipliers, counts, manifests) is derived from its `Param`.
Source: roles and fans follow Tensor Programs V (Yang et al. 2022), table 8.
"""

import dataclasses
import enum
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from cupola.config.value import Value
from cupola.core.dims import letters
from cupola.core.errors import ShapeError


class Role(enum.Enum):
    """What a parameter is when widths grow (muP): which of its fans grow with them."""

    INPUT = "input"
    """Maps something of fixed size to the width: embeddings."""
    HIDDEN = "hidden"
    """Maps width to width."""
    OUTPUT = "output"
    """Maps the width to something of fixed size: an untied head."""
    SCALAR = "scalar"
    """Has no growing matrix fan: norm scales, biases, gates."""
    STATE = "state"
    """Moved by no gradient: running statistics, whose next values a call says in its `Aside` (`core/state.py`)."""


class Initializer(Value):
    """Draws the first value of a parameter."""

    def draw(self, key: Key[Array, ""], param: "Param") -> Array:
        raise NotImplementedError


class Constant(Initializer):
    """Every element is `value`."""

    value: float = 0.0

    def draw(self, key: Key[Array, ""], param: "Param") -> Array:
        return jnp.full(param.shape, self.value, param.dtype)


class Normal(Initializer):
    """Gaussian of standard deviation `std`."""

    std: float

    def draw(self, key: Key[Array, ""], param: "Param") -> Array:
        return (self.std * jax.random.normal(key, param.shape, jnp.float32)).astype(param.dtype)


class FanIn(Initializer):
    """Gaussian of standard deviation scale / sqrt(fan_in), which keeps the size of activations."""

    scale: float = 1.0

    def draw(self, key: Key[Array, ""], param: "Param") -> Array:
        return Normal(std=self.scale / math.sqrt(param.fan_in)).draw(key, param)


@dataclasses.dataclass(frozen=True)
class Param:
    """One parameter: what it is, not its value.

    Args:
        shape: its sizes.
        dims: one letter per size (`core/dims.py`), such as "D F".
        init: draws its first value.
        role: what it is when widths grow.
        inputs: how many leading dims a product sums over; they make up fan_in, the rest fan_out.
            Negative counts from the end: -1 for a head stored as "V D".
        stacked: how many leading dims are stacks of equal parameters (layers), part of no fan.
        dtype: format in which it is kept; None takes the precision policy's `param`.
    """

    shape: tuple[int, ...]
    dims: str
    init: Initializer = FanIn()
    role: Role = Role.HIDDEN
    inputs: int = 1
    stacked: int = 0
    dtype: Any = None

    def __post_init__(self):
        letters(self.dims, len(self.shape))
        for letter, size in zip(self.dims.split(), self.shape, strict=True):
            if not isinstance(size, int | np.integer) or size < 1:
                raise ShapeError(f"dimension {letter} has size {size!r}", remedy="Sizes are whole numbers from 1.")

    @property
    def fan_in(self) -> int:
        """How many inputs each output sums over."""
        return math.prod(self.shape[self.stacked :][self._summed])

    @property
    def fan_out(self) -> int:
        """How many outputs each input reaches."""
        return self.size // math.prod(self.shape[: self.stacked]) // self.fan_in

    @property
    def _summed(self) -> slice:
        return slice(None, self.inputs) if self.inputs > 0 else slice(self.inputs, None)

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)

    @property
    def is_matrix(self) -> bool:
        """Whether, stacks apart, it has two dims or more."""
        return len(self.shape) - self.stacked >= 2

    def stack(self, letter: str, size: int) -> "Param":
        """Returns the parameter with a leading stacked dimension, such as layers."""
        shape, dims = (size, *self.shape), f"{letter} {self.dims}"
        return dataclasses.replace(self, shape=shape, dims=dims, stacked=self.stacked + 1)

    @property
    def abstract(self) -> jax.ShapeDtypeStruct:
        """Its shape and dtype, for tracing without arrays."""
        return jax.ShapeDtypeStruct(self.shape, self.dtype)
