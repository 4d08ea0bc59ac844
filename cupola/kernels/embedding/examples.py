"""Looking up rows at the sizes of real models."""

from typing import Any

import jax
import jax.numpy as jnp

from cupola.kernels.embedding.api import LOOK_UP
from cupola.kernels.example import Example, normal


def _look_up(dtype: str, N: int, V: int, D: int) -> tuple[Any, ...]:
    return normal(0, (V, D), dtype), jax.random.randint(jax.random.key(1), (N,), 0, V, jnp.int32)


EXAMPLES = (
    Example(
        LOOK_UP,
        _look_up,
        ({"N": 32, "V": 49152, "D": 576},),
        ({"N": 1024, "V": 8192, "D": 512}, {"N": 1024, "V": 32768, "D": 512}),
    ),
)
