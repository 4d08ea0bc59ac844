"""Draws at the sizes of real vocabularies, by the settings that many requests have."""

from typing import Any

import jax.numpy as jnp

from cupola.kernels.example import Example, normal
from cupola.kernels.sample.api import DRAW, LOG_SUM

SIZES = tuple({"R": r, "V": v} for v in (49152, 131072) for r in (1, 8, 32))


def _draw(dtype: str, R: int, V: int) -> tuple[Any, ...]:
    seed, position = jnp.zeros((R, 2), jnp.uint32), jnp.arange(R, dtype=jnp.int32)
    cuts = jnp.full((R,), 40, jnp.int32), jnp.full((R,), 0.95), jnp.zeros(R)
    return normal(0, (R, V), dtype), jnp.full((R,), 0.8), *cuts, seed, position, V


def _log_sum(dtype: str, R: int, V: int) -> tuple[Any, ...]:
    return normal(0, (R, V), dtype), V


EXAMPLES = (Example(DRAW, _draw, SIZES), Example(LOG_SUM, _log_sum, SIZES))
