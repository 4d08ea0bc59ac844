"""Rotary embedding at the sizes of real models."""

from typing import Any

from cupola.kernels.example import Example, normal
from cupola.kernels.rotary.api import ROTATE
from cupola.kernels.rotary.pairing import Pairing


def _rotate(dtype: str, B: int, T: int, H: int, C: int) -> tuple[Any, ...]:
    angles = (1, T, C // 2)
    return normal(0, (B, T, H, C), dtype), normal(1, angles), normal(2, angles), Pairing.HALVES


EXAMPLES = (
    Example(
        ROTATE,
        _rotate,
        tuple({"B": b, "T": t, "H": 9, "C": 64} for b, t in ((1, 1), (32, 1), (1, 512))),
        ({"B": 8, "T": 256, "H": 8, "C": 64},),
    ),
)
