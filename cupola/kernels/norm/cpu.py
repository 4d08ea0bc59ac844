"""Norms in native code: each row is read once from memory, and from the cache after that.

Backward, the statistics are computed again from the row that is in the cache by then; nothing but it is kept.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

from cupola.kernels.native.level import Level
from cupola.kernels.native.library import call
from cupola.kernels.norm.casting import Casting

BLOCKS = 16
"""Blocks of rows, each with a sum of its own for the gradients of scale and offset, whatever the threads."""
DTYPES = ("float32", "bfloat16")


def rms_norm(
    x: Float[Array, "*N D"],
    scale: Float[Array, " D"],
    epsilon: float,
    offset: float = 0.0,
    casting: Casting = Casting.GEMMA,
    *,
    level: Level,
) -> Float[Array, "*N D"]:
    """Returns x / sqrt(mean(x^2) + epsilon) * (offset + scale)."""
    return _norm(
        x, _nothing(x), _by(x, scale, offset, casting), jnp.zeros((0,), jnp.float32), (epsilon, False, casting, level)
    )[0]


def layer_norm(
    x: Float[Array, "*N D"],
    scale: Float[Array, " D"],
    offset: Float[Array, " D"],
    epsilon: float,
    *,
    level: Level,
) -> Float[Array, "*N D"]:
    """Returns (x - mean) / sqrt(var + epsilon) * scale + offset."""
    vectors = scale.astype(jnp.float32), offset.astype(jnp.float32)
    return _norm(x, _nothing(x), *vectors, (epsilon, True, Casting.GEMMA, level))[0]


def add_rms_norm(
    x: Float[Array, "*N D"],
    residual: Float[Array, "*N D"],
    scale: Float[Array, " D"],
    epsilon: float,
    offset: float = 0.0,
    casting: Casting = Casting.GEMMA,
    *,
    level: Level,
) -> tuple[Float[Array, "*N D"], Float[Array, "*N D"]]:
    """Returns the norm of x + residual, and x + residual."""
    return _norm(
        x, residual, _by(x, scale, offset, casting), jnp.zeros((0,), jnp.float32), (epsilon, False, casting, level)
    )


def add_layer_norm(
    x: Float[Array, "*N D"],
    residual: Float[Array, "*N D"],
    scale: Float[Array, " D"],
    offset: Float[Array, " D"],
    epsilon: float,
    *,
    level: Level,
) -> tuple[Float[Array, "*N D"], Float[Array, "*N D"]]:
    """Returns the norm of x + residual, and x + residual."""
    vectors = scale.astype(jnp.float32), offset.astype(jnp.float32)
    return _norm(x, residual, *vectors, (epsilon, True, Casting.GEMMA, level))


def refuses_rms_norm(
    x: Float[Array, "*N D"],
    scale: Float[Array, " D"],
    epsilon: float,
    offset: float = 0.0,
    casting: Casting = Casting.GEMMA,
    *,
    level: Level,
) -> list[str]:
    """Returns the dtypes and the casting that there is no kernel for."""
    return _refused(x) + _refused_casting(x, casting)


def refuses_layer_norm(
    x: Float[Array, "*N D"], scale: Float[Array, " D"], offset: Float[Array, " D"], epsilon: float, *, level: Level
) -> list[str]:
    """Returns the dtypes that there is no kernel for."""
    return _refused(x)


def refuses_add_rms_norm(
    x: Float[Array, "*N D"],
    residual: Float[Array, "*N D"],
    scale: Float[Array, " D"],
    epsilon: float,
    offset: float = 0.0,
    casting: Casting = Casting.GEMMA,
    *,
    level: Level,
) -> list[str]:
    """Returns the dtypes and the casting that there is no kernel for."""
    return _refused(x, residual) + _refused_casting(x, casting)


def refuses_add_layer_norm(
    x: Float[Array, "*N D"],
    residual: Float[Array, "*N D"],
    scale: Float[Array, " D"],
    offset: Float[Array, " D"],
    epsilon: float,
    *,
    level: Level,
) -> list[str]:
    """Returns the dtypes that there is no kernel for."""
    return _refused(x, residual)


def _refused(x: Float[Array, "*N D"], residual: Float[Array, "*N D"] | None = None) -> list[str]:
    reasons = [] if x.dtype.name in DTYPES else [f"x is {x.dtype.name}, and it takes {' and '.join(DTYPES)}"]
    if residual is not None and residual.dtype != x.dtype:
        reasons.append(f"x is {x.dtype.name} and the residual {residual.dtype.name}")
    return reasons


def _refused_casting(x: Float[Array, "*N D"], casting: Casting) -> list[str]:
    wide = casting is not Casting.NONE or x.dtype == jnp.float32
    return [] if wide else [f"casting {casting.value!r} is computed in {x.dtype.name}, and it computes in float32"]


_Options = tuple[float, bool, Casting, Level]
"""Epsilon, whether rows are centred, casting, level."""


def _nothing(x: Float[Array, "*N D"]) -> Float[Array, " N"]:
    return jnp.zeros((0,), x.dtype)


def _by(x: Float[Array, "*N D"], scale: Float[Array, " D"], offset: float, casting: Casting) -> Float32[Array, " D"]:
    by = scale.astype(jnp.float32)
    by = by + offset if offset else by
    return by.astype(x.dtype).astype(jnp.float32) if casting is Casting.LLAMA else by


def _attributes(options: _Options) -> dict[str, Any]:
    epsilon, centred, casting, _ = options
    rounds = casting is Casting.LLAMA
    return {"epsilon": np.float32(epsilon), "centred": np.int32(centred), "rounds": np.int32(rounds)}


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _norm(x, residual, scale, offset, options):
    shapes = [jax.ShapeDtypeStruct(each.shape, x.dtype) for each in (x, residual)]
    return tuple(call("norm_forward", options[3], shapes, x, residual, scale, offset, **_attributes(options)))


def _forward(x, residual, scale, offset, options):
    out, summed = _norm(x, residual, scale, offset, options)
    return (out, summed), (summed if residual.size else x, residual, scale)


def _backward(options, kept, gradients):
    (x, residual, scale), (gradient, besides), centred = kept, gradients, options[1]
    rows = x.size // max(scale.size, 1)
    blocks = min(BLOCKS, max(rows, 1))
    sums = [jax.ShapeDtypeStruct((blocks if needed else 0, scale.size), jnp.float32) for needed in (True, centred)]
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype), *sums]
    own, scales, offsets = call(
        "norm_backward", options[3], shapes, x, gradient, besides, scale, **_attributes(options)
    )
    for_offset = offsets.sum(0) if centred else jnp.zeros((0,), jnp.float32)
    return own, own if residual.size else jnp.zeros_like(residual), scales.sum(0), for_offset


_norm.defvjp(_forward, _backward)
