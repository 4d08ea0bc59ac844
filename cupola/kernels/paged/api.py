"""Attention of new tokens to sequences whose keys and values lie in pages of a pool.

Not here: who owns which page (the server), writing (`write.py`).
Invariant: a query's result depends on its own sequence alone, bit for bit: not on the other rows,
on how many queries come with it, nor on which pages hold its keys.
Source: Kwon et al. 2023 (PagedAttention), section 4.1; our page size Z = their block size B.
"""

import math

from jaxtyping import Array, Float, Int

from cupola.core.errors import ShapeError
from cupola.kernels.attention.mask import Mask
from cupola.kernels.choose import Implementation, Operation
from cupola.kernels.gpu import implementation as on_gpu
from cupola.kernels.native.library import implementations
from cupola.kernels.paged import cpu, gpu, reference, xla
from cupola.kernels.paged.stored import Keys, Values

PAGED_ATTEND = Operation(
    "paged_attend",
    (
        *implementations(cpu.paged_attend, cpu.refuses),
        Implementation("xla", xla.paged_attend, xla.refuses),
        on_gpu(gpu.paged_attend, gpu.refuses),
        Implementation("reference", reference.paged_attend, reference.refuses),
    ),
)


def paged_attend(
    query: Float[Array, "B T H C"],
    keys: Keys,
    values: Values,
    table: Int[Array, "B N"],
    start: Int[Array, " B"],
    *,
    mask: Mask,
    scale: float | None = None,
    implementation: str | None = None,
) -> Float[Array, "B T H C"]:
    """Returns what each query gathers from the keys that stand at its position or before.

    Args:
        query: T new tokens of each of B sequences, their own keys and values written already.
        keys: of the whole pool; numbers of a head come before places in a page, because scores of
            neighbouring places are computed side by side.
        values: of the whole pool.
        table: the pages of each sequence in order; those past its end may be any page.
        start: position of the first query of each sequence.
        mask: causal, with or without a window.
        scale: multiplies scores; None means 1/sqrt(C).

    Raises:
        Unsupported: a mask with segments or positions of its own, or one that is not causal.
        ShapeError: H is not a multiple of K.

    Cost: 4*B*T*H*C FLOPs for each key that is seen, whose page is read once for up to about 192 queries of a key
    head; in XLA's form, for each key up to the longest sequence, and a copy of those keys and values.
    Numerics: sums in float32, of keys and values as the pool keeps them (`stored.py`); products too, but where both
    query and pool are bfloat16 the weights of keys may be rounded to 16 bits; the result in query's dtype.
    """
    heads, groups = query.shape[2], keys.shape[1]
    if heads % groups:
        raise ShapeError(
            f"heads={heads} is not a multiple of key_heads={groups}",
            where="paged_attend",
            remedy=f"Each key head serves the same number of query heads. Use a key_heads that divides {heads}.",
        )
    scale = 1 / math.sqrt(query.shape[3]) if scale is None else scale
    return PAGED_ATTEND(implementation, query, keys, values, table, start, mask, scale)
