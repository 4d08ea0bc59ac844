"""Attention at the sizes of real models."""

from typing import Any

from cupola.kernels.attention.api import ATTEND
from cupola.kernels.attention.mask import CAUSAL
from cupola.kernels.example import Example, normal, products_in


def _attend(dtype: str, B: int, T: int, H: int, K: int, C: int) -> tuple[Any, ...]:
    key, value = (normal(seed, (B, T, K, C)) for seed in (1, 2))
    return normal(0, (B, T, H, C)), key, value, CAUSAL, C**-0.5, products_in(dtype)


EXAMPLES = (
    Example(
        ATTEND,
        _attend,
        tuple({"B": 1, "T": t, "H": 9, "K": 3, "C": 64} for t in (128, 1024)),
        ({"B": 8, "T": 256, "H": 8, "K": 8, "C": 32}, {"B": 2, "T": 1024, "H": 8, "K": 8, "C": 64}),
        (0, 1, 2),
    ),
)
