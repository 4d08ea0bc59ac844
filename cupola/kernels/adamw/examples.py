"""Updates of the trees of real models: an embedding, and for all layers together a matrix and a vector."""

from typing import Any

import jax.numpy as jnp

from cupola.kernels.adamw.api import ADAMW, GLOBAL_NORM
from cupola.kernels.adamw.rule import Rule
from cupola.kernels.example import Example, normal

SIZES = (
    {"V": 8192, "L": 4, "D": 256, "F": 3072},
    {"V": 49152, "L": 30, "D": 576, "F": 6144},
)
"""Of 5 and of 134 million parameters."""


def _tree(dtype: str, seed: int, V: int, L: int, D: int, F: int) -> list[Any]:
    return [normal(seed, shape, dtype) for shape in ((V, D), (L, D, F), (L, D))]


def _adamw(dtype: str, **sizes: int) -> tuple[Any, ...]:
    params, gradients, means = (_tree(d, seed, **sizes) for seed, d in enumerate(("float32", dtype, "float32")))
    rule = Rule(multipliers=(1.0,) * 3, decays=(0.1, 0.1, 0.0), b1=0.9, b2=0.95, epsilon=1e-8)
    squares = [x * x for x in means]
    return params, gradients, means, squares, rule, jnp.float32(1e-3), jnp.int32(3), jnp.float32(0.5)


def _norm(dtype: str, **sizes: int) -> tuple[Any, ...]:
    return (_tree(dtype, 0, **sizes),)


EXAMPLES = (Example(ADAMW, _adamw, SIZES, tuned=False), Example(GLOBAL_NORM, _norm, SIZES))
