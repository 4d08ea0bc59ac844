"""Calls of an operation at real sizes: what is measured, and what a choice is explained by.

Not here: hostile inputs (the tests have them), measuring (`tune.py`).
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cupola.core.dtype import Precision
from cupola.core.errors import Unsupported
from cupola.kernels.choose import Operation

Sizes = Mapping[str, int]
"""By the letters that dims have everywhere (`core/dims.py`)."""
FLOATS = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class Example:
    """How an operation is called, and the sizes at which it is measured.

    Args:
        make: (dtype, **sizes) -> the arguments of an implementation; the dtype is that of activations where the
            operation takes no precision, and of products where it does.
        forward: sizes at which the result alone is measured: what a server computes.
        backward: sizes at which the gradient is measured with it: what a trainer computes.
        differentiated: which arguments have a gradient.
        tuned: whether an implementation is chosen by what these calls take. Not where results are written over
            arguments, which a call that is repeated cannot give away; nor where all sizes need the same one.
    """

    operation: Operation
    make: Callable[..., tuple[Any, ...]]
    forward: tuple[Sizes, ...] = ()
    backward: tuple[Sizes, ...] = ()
    differentiated: tuple[int, ...] = (0,)
    tuned: bool = True

    def sizes(self, changes: Sizes) -> dict[str, int]:
        """Returns the first sizes with some of them changed.

        Raises:
            Unsupported: the operation has no such dim, or a size is below 1.
        """
        known = dict((self.forward + self.backward)[0])
        if wrong := [name for name, size in changes.items() if name not in known or size < 1]:
            raise Unsupported(
                f"{self.operation.name} has no size {wrong[0]}={changes[wrong[0]]}",
                remedy=f"It has {', '.join(f'{name}={size}' for name, size in known.items())}; each is 1 or more.",
            )
        return known | dict(changes)


def normal(seed: int, shape: tuple[int, ...], dtype: str = "float32") -> Float[Array, "..."]:
    """Returns an array of random numbers, always the same."""
    return jax.random.normal(jax.random.key(seed), shape, jnp.float32).astype(dtype)


def products_in(dtype: str) -> Precision:
    """Returns the policy that computes products in a dtype and keeps all else in float32."""
    return Precision(compute=jnp.dtype(dtype))
