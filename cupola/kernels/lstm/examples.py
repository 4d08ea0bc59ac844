"""Recurrent states at the sizes of real models."""

from typing import Any

from cupola.kernels.example import Example, normal, products_in
from cupola.kernels.lstm.api import LSTM


def _lstm(dtype: str, B: int, T: int, W: int) -> tuple[Any, ...]:
    recurrent = normal(1, (W, 4 * W)) / W**0.5
    return normal(0, (B, T, 4 * W)), recurrent, normal(2, (B, W)), normal(3, (B, W)), products_in(dtype)


EXAMPLES = (
    Example(
        LSTM,
        _lstm,
        ({"B": 1, "T": 128, "W": 512},),
        ({"B": 16, "T": 64, "W": 512}, {"B": 16, "T": 64, "W": 1024}),
        (0, 1, 2, 3),
    ),
)
