"""Matrix products at the sizes of real models, with a weight in each form that is multiplied."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from cupola.kernels.example import Example, normal, products_in
from cupola.kernels.matmul.api import DOT, DOT_EXPERTS, DOTS
from cupola.kernels.matmul.form import Grouped, Int8, Turned, Weight
from cupola.kernels.matmul.packed import Packed, pack_groups

GROUP = 32
ROWS = (1, 8, 32, 128)
SERVED = tuple({"M": m, "K": k, "F": f} for k, f in ((576, 1536), (2048, 2048), (4096, 4096)) for m in ROWS)
STEPS = tuple({"M": 2048, "K": k, "F": f} for k, f in ((256, 256), (256, 640), (640, 256), (512, 512), (512, 1536)))
TRAINED = ({"M": 2048, "K": 512, "F": 1536}, {"M": 2048, "K": 1536, "F": 512})


def _dense(dtype: str, K: int, F: int) -> Weight:
    return normal(1, (K, F))


def _turned(dtype: str, K: int, F: int) -> Weight:
    return Turned(values=normal(1, (F, K), dtype), shape=(K, F))


def _int8(dtype: str, K: int, F: int) -> Weight:
    return Int8.quantize(normal(1, (K, F)))


def _grouped(bits: int, dtype: str, K: int, F: int) -> Weight:
    codes = jax.random.bits(jax.random.key(1), (F, K * bits // 8), jnp.uint8)
    return Grouped(codes, normal(2, (F, -(-K // GROUP))), shape=(K, F), bits=bits, zero=2 ** (bits - 1))


def _packed(dtype: str, K: int, F: int) -> Weight:
    return Packed.pack(normal(1, (K, F)))


def _packed_groups(bits: int, dtype: str, K: int, F: int) -> Weight:
    return pack_groups(_grouped(bits, dtype, K, F))


def _dot(weight: Callable[..., Weight], dtype: str, M: int, K: int, F: int) -> tuple[Any, ...]:
    return normal(0, (M, K)), weight(dtype, K, F), products_in(dtype), 1


def _dot_experts(dtype: str, M: int, E: int, K: int, F: int) -> tuple[Any, ...]:
    # As many rows for each as there can be, the last ones one row more.
    sizes = (M + jnp.arange(E, dtype=jnp.int32)) // E
    return normal(0, (M, K)), normal(1, (E, K, F)), sizes, products_in(dtype)


def _dot_packed_experts(dtype: str, M: int, E: int, K: int, F: int) -> tuple[Any, ...]:
    x, weight, *rest = _dot_experts(dtype, M, E, K, F)
    return x, Packed.pack(weight, stacked=1), *rest


def _dots(weights: int, dtype: str, M: int, K: int, F: int) -> tuple[Any, ...]:
    return normal(0, (M, K)), tuple(normal(1 + i, (K, F)) for i in range(weights)), products_in(dtype), 1


def _dots_of_bf16(weights: int, dtype: str, M: int, K: int, F: int) -> tuple[Any, ...]:
    # Activations that other products have handed on in it.
    x, matrices, precision, contract = _dots(weights, dtype, M, K, F)
    return x.astype(jnp.bfloat16), matrices, precision, contract


FORMS: tuple[Callable[..., Weight], ...] = (_turned, _int8, *(partial(_grouped, bits) for bits in (4, 8)))
PACKED: tuple[Callable[..., Weight], ...] = (_packed, *(partial(_packed_groups, bits) for bits in (4, 8)))
"""What a server multiplies by, whose rows have to be the same bits whatever other rows come with them."""
EXPERTS = tuple({"M": m, "E": 8, "K": 512, "F": 1024} for m in (8, 64, 512))
EXAMPLES = (
    Example(DOT, partial(_dot, _dense), SERVED, TRAINED, (0, 1)),
    *(Example(DOTS, partial(_dots, weights), SERVED, STEPS, (0, 1)) for weights in (1, 2, 3)),
    *(Example(DOTS, partial(_dots_of_bf16, weights), (), STEPS, (0, 1)) for weights in (1, 2, 3)),
    *(Example(DOT, partial(_dot, form), SERVED) for form in FORMS),
    *(Example(DOT, partial(_dot, form), SERVED, tuned=False) for form in PACKED),
    Example(DOT_EXPERTS, _dot_experts, EXPERTS, ({"M": 2048, "E": 8, "K": 512, "F": 1024},), (0, 1)),
    Example(DOT_EXPERTS, _dot_packed_experts, EXPERTS, tuned=False),
)
