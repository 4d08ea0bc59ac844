"""Attention by NVIDIA's own library, for the masks that it has.

Not here: other masks (`gpu.py`, `xla.py`). It cannot be interpreted: where there is no GPU it is refused.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cupola.core.dtype import Precision
from cupola.kernels.attention.mask import Mask

WIDEST = 128
"""Numbers of a head; they are a multiple of 8."""


def refuses(
    query: Float[Array, "B T H C"],
    key: Float[Array, "B S K C"],
    value: Float[Array, "B S K C"],
    mask: Mask,
    scale: float,
    precision: Precision,
    soft_cap: float | None = None,
    sinks: Float[Array, " H"] | None = None,
) -> list[str]:
    """Returns what the library has no kernel for."""
    width = query.shape[3]
    given = {
        f"it is for NVIDIA GPUs, and this device is a {jax.default_backend()}": jax.default_backend() != "gpu",
        f"products are of {precision.compute.name}, and its are bfloat16": precision.compute != jnp.bfloat16,
        f"heads are {width} wide, and it takes multiples of 8 up to {WIDEST}": width % 8 != 0 or width > WIDEST,
        "it has no soft cap": soft_cap is not None,
        "it has no sinks": sinks is not None,
        "it has no segments": mask.query_segments is not None,
        "it has no start among the keys": mask.start is not None,
        "it has no prefix": mask.prefix is not None,
        "causal, it takes as many keys as queries": mask.causal and query.shape[1] != key.shape[1],
    }
    return [reason for reason, holds in given.items() if holds]


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
    """Returns softmax(scale * query . key + mask) . value."""
    out = jax.nn.dot_product_attention(
        *(x.astype(precision.compute) for x in (query, key, value)),
        scale=scale,
        is_causal=mask.causal,
        local_window_size=None if mask.window is None else (mask.window - 1, 0),
        implementation="cudnn",
    )
    return out.astype(query.dtype)
