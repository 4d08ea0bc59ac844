"""Norms on a GPU: one read of each row forward, the statistics again from the row backward.

Nothing is kept but the rows themselves. Gradients of scale and offset are summed by each program over its own rows,
in order, and then over the programs, so that they are the same bits whenever they are computed.
Source: Hsu et al. 2024 (Liger-Kernel), section 3.1.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array, Float

from cupola.kernels.gpu import launch, power, refused_formats
from cupola.kernels.norm.casting import Casting

WIDEST = 65536
"""Numbers of a row; a program holds a whole row."""
BLOCK_NUMBERS = 2048
"""In a block of short rows, at least."""
PROGRAMS = 264
"""Backward, at most: two for each of an H100's 132 processors, each with a sum of its own."""


def rms_norm(
    x: Float[Array, "*N D"],
    scale: Float[Array, " D"],
    epsilon: float,
    offset: float = 0.0,
    casting: Casting = Casting.GEMMA,
) -> Float[Array, "*N D"]:
    """Returns x / sqrt(mean(x^2) + epsilon) * (offset + scale)."""
    return _norm(x, None, _by(x, scale, offset, casting), None, epsilon, casting)[0]


def layer_norm(
    x: Float[Array, "*N D"], scale: Float[Array, " D"], offset: Float[Array, " D"], epsilon: float
) -> Float[Array, "*N D"]:
    """Returns (x - mean) / sqrt(var + epsilon) * scale + offset."""
    return _norm(x, None, scale.astype(jnp.float32), offset.astype(jnp.float32), epsilon, Casting.GEMMA)[0]


def add_rms_norm(
    x: Float[Array, "*N D"],
    residual: Float[Array, "*N D"],
    scale: Float[Array, " D"],
    epsilon: float,
    offset: float = 0.0,
    casting: Casting = Casting.GEMMA,
) -> tuple[Float[Array, "*N D"], Float[Array, "*N D"]]:
    """Returns the norm of x + residual, and x + residual."""
    return _norm(x, residual, _by(x, scale, offset, casting), None, epsilon, casting)


def add_layer_norm(
    x: Float[Array, "*N D"],
    residual: Float[Array, "*N D"],
    scale: Float[Array, " D"],
    offset: Float[Array, " D"],
    epsilon: float,
) -> tuple[Float[Array, "*N D"], Float[Array, "*N D"]]:
    """Returns the norm of x + residual, and x + residual."""
    return _norm(x, residual, scale.astype(jnp.float32), offset.astype(jnp.float32), epsilon, Casting.GEMMA)


def refuses_rms_norm(x, scale, epsilon, offset=0.0, casting=Casting.GEMMA) -> list[str]:
    """Returns the dtypes, the width and the casting that there is no kernel for."""
    return _refused(x, x) + _refused_casting(x, casting)


def refuses_layer_norm(x, scale, offset, epsilon) -> list[str]:
    """Returns the dtypes and the width that there is no kernel for."""
    return _refused(x, x)


def refuses_add_rms_norm(x, residual, scale, epsilon, offset=0.0, casting=Casting.GEMMA) -> list[str]:
    """Returns the dtypes, the width and the casting that there is no kernel for."""
    return _refused(x, residual) + _refused_casting(x, casting)


def refuses_add_layer_norm(x, residual, scale, offset, epsilon) -> list[str]:
    """Returns the dtypes and the width that there is no kernel for."""
    return _refused(x, residual)


def _refused(x: Float[Array, "*N D"], residual: Float[Array, "*N D"]) -> list[str]:
    reasons = refused_formats(x=x.dtype)
    if residual.dtype != x.dtype:
        reasons.append(f"x is {x.dtype.name} and the residual {residual.dtype.name}")
    if x.shape[-1] > WIDEST:
        reasons.append(f"rows are {x.shape[-1]} wide, and it takes up to {WIDEST}")
    return reasons


def _refused_casting(x: Float[Array, "*N D"], casting: Casting) -> list[str]:
    wide = casting is not Casting.NONE or x.dtype == jnp.float32
    return [] if wide else [f"casting {casting.value!r} is computed in {x.dtype.name}, and it computes in float32"]


def _by(x: Float[Array, "*N D"], scale: Float[Array, " D"], offset: float, casting: Casting) -> Float[Array, " D"]:
    by = scale.astype(jnp.float32) + offset
    return by.astype(x.dtype).astype(jnp.float32) if casting is Casting.LLAMA else by


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _norm(x, residual, scale, offset, epsilon, casting):
    """Returns the norm and the sum; without a residual the sum is None, without an offset rows are not centred."""
    rows, width, block = _cut(x)
    whole, vector = pl.BlockSpec(block, lambda i: (i, 0)), pl.BlockSpec(block[1:], lambda i: (0,))
    arrays = [(x, whole), (residual, whole), (scale, vector), (offset, vector)]
    given = [(a.reshape(rows, width) if spec is whole else a, spec) for a, spec in arrays if a is not None]
    kernel = partial(_forward_kernel, residual is not None, offset is not None, (rows, width), epsilon, casting)
    made = launch(
        kernel,
        [jax.ShapeDtypeStruct((rows, width), x.dtype)] * (1 if residual is None else 2),
        [a for a, _ in given],
        grid=(pl.cdiv(rows, block[0]),),
        inputs=[spec for _, spec in given],
        outputs=[whole] * (1 if residual is None else 2),
        numbers=block[0] * block[1],
    )
    return made[0].reshape(x.shape), None if residual is None else made[1].reshape(x.shape)


def _cut(x: Float[Array, "*N D"]) -> tuple[int, int, tuple[int, int]]:
    """Returns the rows, their width and the size of a block."""
    width = x.shape[-1]
    wide = power(width, WIDEST)
    rows = x.size // max(width, 1)
    return rows, width, (power(rows, max(BLOCK_NUMBERS // wide, 1)), wide)


def _forward_kernel(adds, centred, sizes, epsilon, casting, *refs):
    (rows, width), (x_ref, *others) = sizes, refs
    high, wide = x_ref.shape
    within = (jnp.arange(wide) < width)[None]
    inside = within & ((pl.program_id(0) * high + jnp.arange(high)) < rows)[:, None]
    x = triton.load(x_ref, mask=inside, other=0)
    if adds:
        x = x + triton.load(others.pop(0), mask=inside, other=0)
    scale_ref = others.pop(0)
    unit, _ = _unit(x.astype(jnp.float32), inside, width, epsilon, centred)
    if casting is Casting.LLAMA:
        unit = unit.astype(x.dtype).astype(jnp.float32)
    out = unit * triton.load(scale_ref, mask=within[0], other=0)[None]
    if centred:
        out = out + triton.load(others.pop(0), mask=within[0], other=0)[None]
    triton.store(others.pop(0), out.astype(x.dtype), mask=inside)
    if adds:
        triton.store(others.pop(0), x, mask=inside)


def _unit(x: Float[Array, "R W"], inside, width: int, epsilon: float, centred: bool):
    """Returns rows of unit size and what they were multiplied by."""
    if centred:
        x = jnp.where(inside, x - jnp.sum(x, 1, keepdims=True) / width, 0)
    inverse = jax.lax.rsqrt(jnp.sum(x * x, 1, keepdims=True) / width + epsilon)
    return x * inverse, inverse


def _forward(x, residual, scale, offset, epsilon, casting):
    out, summed = _norm(x, residual, scale, offset, epsilon, casting)
    return (out, summed), (x if residual is None else summed, residual is not None, scale, offset is not None)


def _backward(epsilon, casting, kept, gradients):
    (x, adds, scale, centred), (gradient, besides) = kept, gradients
    rows, width, (high, wide) = _cut(x)
    turns = pl.cdiv(pl.cdiv(rows, high), PROGRAMS)
    programs = pl.cdiv(rows, high * turns) if rows else 0
    whole, vector = pl.BlockSpec((high * turns, wide), lambda i: (i, 0)), pl.BlockSpec((wide,), lambda i: (0,))
    given = [x, gradient, *([besides] if adds else [])]
    sums = 2 if centred else 1
    for_x, *others = launch(
        partial(_backward_kernel, adds, centred, (rows, width, high, turns), epsilon, casting),
        [jax.ShapeDtypeStruct((rows, width), x.dtype)] + [jax.ShapeDtypeStruct((programs, width), jnp.float32)] * sums,
        [*(a.reshape(rows, width) for a in given), scale],
        grid=(programs,),
        inputs=[whole] * len(given) + [vector],
        outputs=[whole] + [pl.BlockSpec((None, wide), lambda i: (i, 0))] * sums,
        numbers=high * wide,
    )
    for_x = for_x.reshape(x.shape)
    for_scale, for_offset = others[0].sum(0), others[1].sum(0) if centred else None
    return for_x, for_x if adds else None, for_scale, for_offset


def _backward_kernel(adds, centred, sizes, epsilon, casting, *refs):
    (rows, width, high, turns), (x_ref, gradient_ref, *others) = sizes, refs
    besides_refs = [others.pop(0)] if adds else []
    scale_ref, out_ref, *sum_refs = others
    within = (jnp.arange(x_ref.shape[1]) < width)[None]
    scale = triton.load(scale_ref, mask=within[0], other=0)[None]
    first = pl.program_id(0) * (high * turns)

    def turn(index, sums):
        at = pl.ds(index * high, high)
        inside = within & ((first + index * high + jnp.arange(high)) < rows)[:, None]
        x, gradient = (triton.load(ref.at[at], mask=inside, other=0) for ref in (x_ref, gradient_ref))
        given = gradient.astype(jnp.float32)
        unit, inverse = _unit(x.astype(jnp.float32), inside, width, epsilon, centred)
        by = given * scale
        drift = jnp.sum(by * unit, 1, keepdims=True) / width
        out = by - unit * drift
        if centred:
            out = out - jnp.sum(by, 1, keepdims=True) / width
        out = out * inverse
        for ref in besides_refs:
            out = out + triton.load(ref.at[at], mask=inside, other=0).astype(jnp.float32)
        triton.store(out_ref.at[at], out.astype(out_ref.dtype), mask=inside)
        if casting is Casting.LLAMA:
            unit = unit.astype(x.dtype).astype(jnp.float32)
        added = (jnp.sum(given * unit, 0), jnp.sum(given, 0))
        return tuple(old + new for old, new in zip(sums, added, strict=False))

    nothing = jnp.zeros(x_ref.shape[1], jnp.float32)
    sums = jax.lax.fori_loop(0, turns, turn, tuple(nothing for _ in sum_refs))
    for ref, total in zip(sum_refs, sums, strict=True):
        triton.store(ref, total, mask=within[0])


_norm.defvjp(_forward, _backward)
