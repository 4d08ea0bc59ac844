"""Sampling in native code: a row is read once to find its peak, once for its weights, and those once for each round."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int32, UInt32

from cupola.kernels.native.level import Level
from cupola.kernels.native.library import call

DTYPES = ("float32", "bfloat16")


def draw(
    logits: Float[Array, "R V"],
    temperature: Float32[Array, " R"],
    top_k: Int32[Array, " R"],
    top_p: Float32[Array, " R"],
    min_p: Float32[Array, " R"],
    seed: UInt32[Array, "R 2"],
    position: Int32[Array, " R"],
    vocabulary: int,
    *,
    level: Level,
) -> Int32[Array, " R"]:
    """Returns a token of each row."""
    result, size = jax.ShapeDtypeStruct(logits.shape[:1], jnp.int32), np.int64(vocabulary)
    settings = (temperature, top_k, top_p, min_p, seed, position)
    return call("draw", level, result, logits, *settings, vocabulary=size)


def log_sum(logits: Float[Array, "R V"], vocabulary: int, *, level: Level) -> Float32[Array, " R"]:
    """Returns the logarithm of the sum of the exponentials of each row."""
    result = jax.ShapeDtypeStruct(logits.shape[:1], jnp.float32)
    return call("log_sum", level, result, logits, vocabulary=np.int64(vocabulary))


def refuses(logits: Float[Array, "R V"], *_: Any, level: Level) -> list[str]:
    """Returns the dtypes that there is no kernel for."""
    name = logits.dtype.name
    return [] if name in DTYPES else [f"logits are {name}, and it takes {' and '.join(DTYPES)}"]
