"""Attention over pages at the sizes of real models."""

from typing import Any

import jax.numpy as jnp

from cupola.kernels.attention.mask import CAUSAL
from cupola.kernels.example import Example, normal, products_in
from cupola.kernels.paged.api import PAGED_ATTEND
from cupola.kernels.paged.stored import store, stored_dtype

PAGE = 16


def _paged_attend(dtype: str, B: int, T: int, S: int, H: int, K: int, C: int) -> tuple[Any, ...]:
    """S keys stand before the T new ones of each sequence."""
    each = -(-(S + T) // PAGE)
    kept = stored_dtype(products_in(dtype))
    keys, values = store(normal(1, (B * each, K, C, PAGE)), kept), store(normal(2, (B * each, K, PAGE, C)), kept)
    table = jnp.arange(B * each, dtype=jnp.int32).reshape(B, each)
    return normal(0, (B, T, H, C)), keys, values, table, jnp.full((B,), S, jnp.int32), CAUSAL, C**-0.5


EXAMPLES = (
    Example(
        PAGED_ATTEND,
        _paged_attend,
        (
            *({"B": b, "T": 1, "S": s, "H": 9, "K": 3, "C": 64} for b in (1, 8, 32) for s in (240, 1000)),
            {"B": 1, "T": 128, "S": 512, "H": 9, "K": 3, "C": 64},
        ),
    ),
)
