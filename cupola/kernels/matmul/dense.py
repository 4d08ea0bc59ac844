"""Products with plain matrices in native code: operands are rounded and packed on the way, and their gradients as well.

The activations are packed once for all matrices that they are multiplied by, and their gradient is one sum over all of
them. Not here: what the code does (`dense.h`). Invariant: a row's bits are the same whatever other rows come with it.
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cupola.core.dtype import Precision
from cupola.kernels import product as compiled
from cupola.kernels.native.level import Level
from cupola.kernels.native.library import call

FORMATS = ("float32", "bfloat16")
MOST = 16
"""Matrices that are multiplied at once."""
PANEL, TILE = 32, 512


def dots(
    x: Float[Array, "..."],
    weights: tuple[Float[Array, "..."], ...],
    precision: Precision,
    contract: int,
    *,
    level: Level,
) -> tuple[Float[Array, "..."], ...]:
    """Returns x . weight for each weight."""
    kept, summed = x.shape[: x.ndim - contract], x.shape[x.ndim - contract :]
    flat = x.reshape(math.prod(kept), math.prod(summed))
    flats = tuple(w.reshape(flat.shape[1], math.prod(w.shape[contract:])) for w in weights)
    found = _products(flat, flats, precision.output, level)
    return tuple(out.reshape(*kept, *w.shape[contract:]) for out, w in zip(found, weights, strict=True))


def refuses(
    x: Float[Array, "..."],
    weights: tuple[Float[Array, "..."], ...],
    precision: Precision,
    contract: int,
    *,
    level: Level,
) -> list[str]:
    """Returns the level, the formats and the sizes that there is no kernel for."""
    given = {"x": x.dtype.name} | {f"weight {i}": w.dtype.name for i, w in enumerate(weights)}
    given["precision.output"] = precision.output.name
    reasons = [f"{what} is {d}, and it takes {' and '.join(FORMATS)}" for what, d in given.items() if d not in FORMATS]
    if level is not Level.AMX:
        reasons.append("it multiplies with tiles, which this level lacks")
    if precision.compute != jnp.bfloat16:
        reasons.append(f"it rounds to bfloat16, and precision.compute is {precision.compute.name}")
    if not 0 < len(weights) <= MOST:
        reasons.append(f"it takes 1 to {MOST} weights, and there are {len(weights)}")
    if not x.size or not all(w.size for w in weights):
        reasons.append("an operand is empty")
    return reasons


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _products(x: Float[Array, "N K"], weights: tuple[Array, ...], output: Any, level: Level) -> tuple[Array, ...]:
    results = [jax.ShapeDtypeStruct((x.shape[0], w.shape[1]), output) for w in weights]
    panels = sum(_panels(w.shape[1]) for w in weights)
    packed = jax.ShapeDtypeStruct((2 * TILE * panels * _panels(x.shape[1]),), jnp.bfloat16)
    return tuple(call("dense_forward", level, [*results, packed], x, *weights)[:-1])


def _forward(x, weights, output, level):
    return _products(x, weights, output, level), (x, weights)


def _backward(output, level, kept, gradients):
    x, weights = kept
    rows, inputs, outputs = _panels(x.shape[0]), _panels(x.shape[1]), sum(_panels(w.shape[1]) for w in weights)
    packed = 2 * TILE * (inputs * outputs + rows * inputs + rows * outputs)
    results = [jax.ShapeDtypeStruct(each.shape, each.dtype) for each in (x, *weights)]
    memory = jax.ShapeDtypeStruct((packed,), jnp.bfloat16)
    for_x, *for_weights = call("dense_backward", level, [*results, memory], x, *weights, *gradients)[:-1]
    return for_x, tuple(for_weights)


_products.defvjp(_forward, _backward)


def product(
    a: Float[Array, "..."],
    b: Float[Array, "..."],
    over: tuple[int, int],
    precision: Precision,
    *,
    level: Level,
    onto: Float[Array, "M F"] | None = None,
) -> Float[Array, "M F"]:
    """Returns the product of two matrices, summed over one dimension of each; by XLA where it is not of bfloat16.

    Args:
        onto: float32 that it is added to, in place where the compiler can.
    """
    if level is not Level.AMX or not a.dtype == b.dtype == jnp.bfloat16 or not a.size or not b.size:
        return compiled.product(a, b, over, precision, onto=onto)
    out = jax.ShapeDtypeStruct((a.shape[1 - over[0]], b.shape[1 - over[1]]), jnp.float32)
    memory = jax.ShapeDtypeStruct((2 * TILE * _panels(out.shape[1]) * _panels(a.shape[over[0]]),), jnp.bfloat16)
    held, aliases = (jnp.zeros((0,), jnp.float32), None) if onto is None else (onto, {2: 0})
    turned = {"a_turned": np.bool_(over[0] == 0), "b_turned": np.bool_(over[1] == 1)}
    return call("dense_product", level, [out, memory], a, b, held, aliases=aliases, **turned)[0]


def _panels(size: int) -> int:
    return -(-size // PANEL)
