"""Attention as the equation, in float32 and whole.

Source: Vaswani et al. 2017, section 3.2.1; grouped heads from Ainslie et al. 2023.
"""

import jax.numpy as jnp
from jax.lax import Precision as DotPrecision
from jaxtyping import Array, Float, Int

from cupola.core.dtype import Precision
from cupola.kernels.attention.mask import Mask


def attend(
    query: Float[Array, "B T H C"],
    key: Float[Array, "B S K C"],
    value: Float[Array, "B S K C"],
    mask: Mask,
    scale: float,
    precision: Precision,
    soft_cap: float | None = None,
    sinks: Float[Array, " H"] | None = None,
) -> Float[Array, "B T H C"]:
    """Returns softmax(scale * query . key + mask) . value in float32."""
    batch, queries, heads, width = query.shape
    keys, groups = key.shape[1:3]
    q = unpadded(query, mask.query_segments).astype(jnp.float32)
    q = q.reshape(batch, queries, groups, heads // groups, width)
    k, v = (unpadded(x, mask.key_segments).astype(jnp.float32) for x in (key, value))
    scores = scale * jnp.einsum("btkgc,bskc->bkgts", q, k, precision=DotPrecision.HIGHEST)
    if soft_cap is not None:
        scores = soft_cap * jnp.tanh(scores / soft_cap)
    seen = mask.visible(queries, keys)[:, None, None]
    scores = jnp.where(seen, scores, -jnp.inf)
    top = jnp.max(scores, -1, keepdims=True, initial=-jnp.inf)
    if sinks is not None:
        sink = sinks.astype(jnp.float32).reshape(1, groups, heads // groups, 1, 1)
        top = jnp.maximum(top, sink)
    top = jnp.where(jnp.isfinite(top), top, 0)
    weights = jnp.where(seen, jnp.exp(scores - top), 0)
    total = jnp.sum(weights, -1, keepdims=True)
    if sinks is not None:
        total = total + jnp.exp(sink - top)
    shares = weights / jnp.where(total > 0, total, 1)
    out = jnp.einsum("bkgts,bskc->btkgc", shares, v, precision=DotPrecision.HIGHEST)
    return out.reshape(query.shape).astype(query.dtype)


def unpadded(x: Float[Array, "B T H C"], segments: Int[Array, "B T"] | None) -> Float[Array, "B T H C"]:
    """Returns x with padding set to zero, so that what it holds (NaN too) cannot leak."""
    return x if segments is None else jnp.where(segments[:, :, None, None] != 0, x, 0)
