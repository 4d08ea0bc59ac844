"""Paged attention in native code: each sequence's own pages are read once for all the queries of a key head.

Not here: the walk over pages (`cpu.cc`), the lanes of each level (`lanes.h`).
Invariant: a query's bits are decided by its position and its sequence; blocks of keys begin at fixed places.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from cupola.kernels.attention.mask import Mask
from cupola.kernels.native.level import Level
from cupola.kernels.native.library import call
from cupola.kernels.paged import reference
from cupola.kernels.paged.stored import Keys, Values

EVERYTHING = 2**62
"""The window of a mask that has none, in places."""


def refuses(query, keys, values, table, start, mask: Mask, scale: float, level: Level) -> list[str]:
    """Returns why the mask or the dtypes cannot be honoured."""
    reasons = reference.refuses(query, keys, values, table, start, mask, scale)
    if query.dtype not in (jnp.float32, jnp.bfloat16):
        reasons.append(f"queries are {query.dtype.name}, and it takes float32 and bfloat16")
    if keys.dtype != values.dtype or keys.dtype not in (jnp.float32, jnp.uint16):
        reasons.append(
            f"pages are {keys.dtype.name} and {values.dtype.name}, and it takes float32 and bits of bfloat16"
        )
    return reasons


def paged_attend(
    query: Float[Array, "B T H C"],
    keys: Keys,
    values: Values,
    table: Int[Array, "B N"],
    start: Int[Array, " B"],
    mask: Mask,
    scale: float,
    level: Level,
) -> Float[Array, "B T H C"]:
    """Returns the mixtures block by block, rescaled whenever a larger score is found."""
    return call(
        "paged_attend",
        level,
        jax.ShapeDtypeStruct(query.shape, query.dtype),
        query,
        keys,
        values,
        table.astype(jnp.int32),
        start.astype(jnp.int32),
        window=np.int64(EVERYTHING if mask.window is None else mask.window),
        scale=np.float32(scale),
    )
