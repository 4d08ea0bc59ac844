"""Attention with grouped heads and masks as values.

Not here: projections and positions (`layers/attention.py`), caches (`layers/kv.py`).
Source: Vaswani et al. 2017; Ainslie et al. 2023 (grouped queries); Dao et al. 2022 (its gradient).
"""

import math

from jaxtyping import Array, Float

from cupola.core.dtype import FLOAT32, Precision
from cupola.core.errors import ConfigError, ShapeError
from cupola.kernels.attention import cpu, cudnn, gpu, reference, xla
from cupola.kernels.attention.mask import Mask
from cupola.kernels.choose import Implementation, Operation
from cupola.kernels.gpu import implementation as on_gpu
from cupola.kernels.native.library import implementations

ATTEND = Operation(
    "attend",
    (
        *implementations(cpu.attend, cpu.refuses),
        Implementation("xla", xla.attend),
        on_gpu(gpu.attend, gpu.refuses),
        Implementation("cudnn", cudnn.attend, cudnn.refuses),
        Implementation("reference", reference.attend),
    ),
)


def attend(
    query: Float[Array, "B T H C"],
    key: Float[Array, "B S K C"],
    value: Float[Array, "B S K C"],
    *,
    mask: Mask,
    scale: float | None = None,
    precision: Precision = FLOAT32,
    soft_cap: float | None = None,
    sinks: Float[Array, " H"] | None = None,
    implementation: str | None = None,
) -> Float[Array, "B T H C"]:
    """Returns softmax(scale * query . key + mask) . value, one distribution per query head.

    A row with every key masked gives zeros, and no gradient flows from it.

    Args:
        mask: which keys each query may see; every implementation honours all of it or refuses.
        scale: multiplies scores; None means 1/sqrt(C). muP models pass 1/C.
        soft_cap: bounds scores: soft_cap * tanh(score / soft_cap); None leaves them.
        sinks: a learned score of each head that takes its share of a distribution and gives nothing.
        precision: its `compute` is the dtype of the operands of both products.

    Raises:
        Unsupported: an implementation was named that cannot honour these arguments.
        ShapeError: H is not a multiple of K, or sinks are not one a head.
        ConfigError: the soft cap is not above 0.

    Cost: 4*B*T*S*H*C FLOPs, half of it where causal blocks are skipped.
    Numerics: scores and sums in float32, the result in query's dtype.
    """
    heads, width = query.shape[2:]
    groups = key.shape[2]
    if heads % groups:
        raise ShapeError(
            f"heads={heads} is not a multiple of key_heads={groups}",
            where="attend",
            remedy=f"Each key head serves the same number of query heads. Use a key_heads that divides {heads}.",
        )
    if sinks is not None and sinks.shape != (heads,):
        raise ShapeError(
            f"sinks have shape {sinks.shape} for heads={heads}", where="attend", remedy="Give one score a head."
        )
    if soft_cap is not None and not soft_cap > 0:
        raise ConfigError(
            f"soft_cap={soft_cap} bounds nothing", where="attend", remedy="Use a number above 0, or None."
        )
    scale = 1 / math.sqrt(width) if scale is None else scale
    return ATTEND(implementation, query, key, value, mask, scale, precision, soft_cap, sinks)
