"""Gates at the sizes of real models."""

from typing import Any

from cupola.kernels.example import Example, normal, products_in
from cupola.kernels.gated.activation import Activation
from cupola.kernels.gated.api import GATE


def _gate(dtype: str, N: int, F: int) -> tuple[Any, ...]:
    return normal(0, (N, F)), normal(1, (N, F)), Activation.SILU, products_in(dtype)


EXAMPLES = (
    Example(
        GATE,
        _gate,
        tuple({"N": n, "F": f} for f in (1536, 11008) for n in (1, 32, 512)),
        ({"N": 2048, "F": 1536},),
        (0, 1),
    ),
)
