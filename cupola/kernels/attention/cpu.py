"""Attention in native code: a block of scores at a time, in the processor's cache, and again for the gradient.

Not here: what the code does (`cpu.cc`). Invariant: which thread computes what changes no bit.
Source: Dao et al. 2022 (FlashAttention), section 3.1 and appendix B.2; our `top` and `total` are its m, l.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from cupola.core.dtype import Precision
from cupola.kernels.attention.mask import Mask
from cupola.kernels.native.level import Level
from cupola.kernels.native.library import call

FORMATS = (np.dtype("float32"), np.dtype(jnp.bfloat16))


def refuses(
    query: Float[Array, "B T H C"],
    key: Float[Array, "B S K C"],
    value: Float[Array, "B S K C"],
    mask: Mask,
    scale: float,
    precision: Precision,
    soft_cap: float | None = None,
    sinks: Float[Array, " H"] | None = None,
    *,
    level: Level,
) -> list[str]:
    """Returns the formats that there is no kernel for."""
    named = {"query": query.dtype, "key": key.dtype, "value": value.dtype, "precision.compute": precision.compute}
    reasons = [f"{n} is {d}, and it takes float32 and bfloat16" for n, d in named.items() if d not in FORMATS]
    if precision.accumulate != np.float32:
        reasons.append(f"precision.accumulate is {precision.accumulate}, and it sums in float32")
    return reasons


def attend(
    query: Float[Array, "B T H C"],
    key: Float[Array, "B S K C"],
    value: Float[Array, "B S K C"],
    mask: Mask,
    scale: float,
    precision: Precision,
    soft_cap: float | None = None,
    sinks: Float[Array, " H"] | None = None,
    *,
    level: Level,
) -> Float[Array, "B T H C"]:
    """Returns softmax(scale * query . key + mask) . value."""
    return _attend(query, key, value, sinks, mask, scale, precision, soft_cap, level)


@partial(jax.custom_vjp, nondiff_argnums=(5, 6, 7, 8))
def _attend(query, key, value, sinks, mask: Mask, scale: float, precision: Precision, soft_cap, level: Level):
    return _forward(query, key, value, sinks, mask, scale, precision, soft_cap, level)[0]


def _forward(query, key, value, sinks, mask, scale, precision, soft_cap, level):
    batch, queries, heads, _ = query.shape
    results = (
        jax.ShapeDtypeStruct(query.shape, query.dtype),
        # The top and the total of each query.
        jax.ShapeDtypeStruct((2, batch, heads, queries), jnp.float32),
    )
    arrays = (query, key, value, *_marks(mask, batch, sinks))
    out, kept = call("attend", level, results, *arrays, **_numbers(mask, scale, precision, soft_cap))
    return out, (query, key, value, sinks, mask, out, kept)


def _backward(scale, precision, soft_cap, level, held, gradient):
    query, key, value, sinks, mask, out, kept = held
    batch, queries, heads, width = query.shape
    keys, groups = key.shape[1:3]
    # Each query head has a gradient of its own for the keys that it shares; they are summed in one order.
    shares = heads != groups
    results = (
        jax.ShapeDtypeStruct(query.shape, query.dtype),
        *(jax.ShapeDtypeStruct((batch, keys, heads, width), jnp.float32 if shares else x.dtype) for x in (key, value)),
        jax.ShapeDtypeStruct((batch, heads, queries), jnp.float32),
    )
    arrays = (query, key, value, *_marks(mask, batch, sinks), out, kept, gradient)
    numbers = _numbers(mask, scale, precision, soft_cap)
    for_query, for_key, for_value, drift = call("attend_back", level, results, *arrays, **numbers)
    if shares:
        grouped = (batch, keys, groups, heads // groups, width)
        for_key, for_value = (
            x.reshape(grouped).sum(3).astype(of.dtype) for x, of in ((for_key, key), (for_value, value))
        )
    for_sinks = None
    if sinks is not None:
        top, total = kept
        unit = soft_cap or abs(scale) or 1.0  # of the kept tops
        share = jnp.exp((sinks.astype(jnp.float32)[None, :, None] / unit - top) * unit) / jnp.where(total > 0, total, 1)
        for_sinks = -jnp.sum(share * drift, (0, 2)).astype(sinks.dtype)
    return for_query, for_key, for_value, for_sinks, None


_attend.defvjp(_forward, _backward)


def _marks(mask: Mask, batch: int, sinks: Float[Array, " H"] | None) -> tuple[Array, ...]:
    """Returns the mask's arrays as the kernel takes them, empty where there are none, and the sinks."""
    empty = jnp.zeros((0,), jnp.int32)
    segments = (empty if x is None else x.astype(jnp.int32) for x in (mask.query_segments, mask.key_segments))
    held = empty.astype(jnp.float32) if sinks is None else sinks.astype(jnp.float32)
    return *segments, *(_per_row(x, batch) for x in (mask.start, mask.prefix)), held


def _per_row(x: Any, batch: int) -> Int[Array, " B"]:
    return jnp.zeros((batch,), jnp.int32) if x is None else jnp.broadcast_to(x, (batch,)).astype(jnp.int32)


def _numbers(mask: Mask, scale: float, precision: Precision, soft_cap: float | None) -> dict[str, Any]:
    return {
        "scale": np.float32(scale),
        "cap": np.float32(soft_cap or 0),
        "causal": np.int64(mask.causal),
        "window": np.int64(mask.window or 0),
        "rounds": np.int64(precision.compute != np.float32),
    }
