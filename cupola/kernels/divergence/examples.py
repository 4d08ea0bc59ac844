"""Divergences between linear heads at the sizes of real models."""

from typing import Any

import jax.numpy as jnp

from cupola.kernels.divergence.api import LINEAR_DIVERGENCE
from cupola.kernels.divergence.measure import Kind, Measure
from cupola.kernels.example import Example, normal, products_in


def _divergence(dtype: str, B: int, T: int, D: int, V: int) -> tuple[Any, ...]:
    student, teacher = ((normal(seed, (B, T, D)), normal(seed + 1, (V, D))) for seed in (0, 2))
    weights = jnp.ones((B, T), jnp.float32)
    return *student, *teacher, weights, products_in(dtype), Measure(kind=Kind.JSD)


EXAMPLES = (
    Example(
        LINEAR_DIVERGENCE,
        _divergence,
        backward=({"B": 4, "T": 128, "D": 512, "V": 8192}, {"B": 1, "T": 256, "D": 576, "V": 49152}),
        differentiated=(0, 1),
    ),
)
