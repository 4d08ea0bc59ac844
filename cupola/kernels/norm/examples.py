"""Norms at the sizes of real models."""

from typing import Any

from cupola.kernels.example import Example, normal
from cupola.kernels.norm.api import ADD_LAYER_NORM, ADD_RMS_NORM, LAYER_NORM, RMS_NORM

FORWARD = tuple({"N": n, "D": d} for d in (576, 4096) for n in (1, 32, 512))
BACKWARD = ({"N": 2048, "D": 512}, {"N": 2048, "D": 2048})


def _rms_norm(dtype: str, N: int, D: int) -> tuple[Any, ...]:
    return normal(0, (N, D), dtype), normal(1, (D,)), 1e-6


def _layer_norm(dtype: str, N: int, D: int) -> tuple[Any, ...]:
    return normal(0, (N, D), dtype), normal(1, (D,)), normal(2, (D,)), 1e-6


def _add_rms_norm(dtype: str, N: int, D: int) -> tuple[Any, ...]:
    return normal(0, (N, D), dtype), normal(3, (N, D), dtype), normal(1, (D,)), 1e-6


def _add_layer_norm(dtype: str, N: int, D: int) -> tuple[Any, ...]:
    return normal(0, (N, D), dtype), normal(3, (N, D), dtype), normal(1, (D,)), normal(2, (D,)), 1e-6


EXAMPLES = (
    Example(RMS_NORM, _rms_norm, FORWARD, BACKWARD, (0, 1)),
    Example(LAYER_NORM, _layer_norm, FORWARD, BACKWARD, (0, 1, 2)),
    Example(ADD_RMS_NORM, _add_rms_norm, FORWARD, BACKWARD, (0, 1, 2)),
    Example(ADD_LAYER_NORM, _add_layer_norm, FORWARD, BACKWARD, (0, 1, 2, 3)),
)
