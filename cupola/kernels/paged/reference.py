"""Paged attention as plain attention over the gathered pages, in float32."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from cupola.core.dtype import FLOAT32
from cupola.kernels.attention import reference
from cupola.kernels.attention.mask import Mask
from cupola.kernels.paged.stored import Keys, Values, load


def refuses(query, keys, values, table, start, mask: Mask, scale: float) -> list[str]:
    """Returns why the mask cannot be honoured."""
    reasons = [] if mask.causal else ["only causal masks have pages"]
    if any(x is not None for x in (mask.query_segments, mask.start, mask.prefix)):
        reasons.append("the mask has segments, a start or a prefix, where the table and `start` decide")
    return reasons


def paged_attend(
    query: Float[Array, "B T H C"],
    keys: Keys,
    values: Values,
    table: Int[Array, "B N"],
    start: Int[Array, " B"],
    mask: Mask,
    scale: float,
) -> Float[Array, "B T H C"]:
    """Returns softmax(scale * query . key + mask) . value over each row's pages."""
    (_, groups, width, size), (rows, pages) = keys.shape, table.shape
    flat = (rows, pages * size, groups, width)
    key = jnp.transpose(load(keys[table]), (0, 1, 4, 2, 3)).reshape(flat)
    value = jnp.transpose(load(values[table]), (0, 1, 3, 2, 4)).reshape(flat)
    return reference.attend(query, key, value, mask.starting(start), scale, FLOAT32)
