"""The rotation on a GPU: angles are read once for all heads of a block; its gradient turns the other way."""

from functools import partial

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array, Float

from cupola.kernels.gpu import launch, power, refused_formats
from cupola.kernels.rotary import xla
from cupola.kernels.rotary.pairing import Pairing

BLOCK_NUMBERS = 2048
"""Pairs that a program turns."""
BLOCK_HEADS = 16
"""That a program turns, at most."""
WIDEST = 2048
"""Pairs of a head."""


def rotate(
    x: Float[Array, "B T H C"], cos: Float[Array, "#B T R"], sin: Float[Array, "#B T R"], pairing: Pairing
) -> Float[Array, "B T H C"]:
    """Returns (a cos - b sin, b cos + a sin) for each pair (a, b)."""
    return _rotate(x, cos.astype(jnp.float32), sin.astype(jnp.float32), pairing)


def refuses(x, cos, sin, pairing: Pairing) -> list[str]:
    """Returns the dtypes and widths that there is no kernel for."""
    pairs = cos.shape[-1]
    wide = [f"heads are of {pairs} pairs, and it takes up to {WIDEST}"] if pairs > WIDEST else []
    return refused_formats(x=x.dtype) + wide


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _rotate(x, cos, sin, pairing):
    return _turn(x, cos, sin, pairing)


def _forward(x, cos, sin, pairing):
    return _rotate(x, cos, sin, pairing), (x, cos, sin)


def _backward(pairing, kept, gradient):
    x, cos, sin = kept
    # What the angles get is compiled only where somebody asks for it.
    _, pull = jax.vjp(lambda cos, sin: xla.rotate(x, cos, sin, pairing), cos, sin)
    return _turn(gradient, cos, -sin, pairing), *pull(gradient)


_rotate.defvjp(_forward, _backward)


def _turn(x, cos, sin, pairing):
    batch, length, heads, width = x.shape
    pairs, halves = width // 2, pairing is Pairing.HALVES
    wide, high = power(pairs, WIDEST), power(heads, BLOCK_HEADS)
    long = power(length, max(BLOCK_NUMBERS // (wide * high), 1))
    apart = (batch, length, heads, 2, pairs) if halves else (batch, length, heads, pairs, 2)
    block = (None, long, high, 2, wide) if halves else (None, long, high, wide, 2)
    spec = pl.BlockSpec(block, lambda i, j, k: (i, j, k, 0, 0))
    # One table of angles may serve all rows.
    angles = pl.BlockSpec((None, long, wide), lambda i, j, k: (i if cos.shape[0] > 1 else 0, j, 0))
    out = launch(
        partial(_kernel, (length, heads, pairs), halves),
        jax.ShapeDtypeStruct(apart, x.dtype),
        [x.reshape(apart), cos, sin],
        grid=(batch, pl.cdiv(length, long), pl.cdiv(heads, high)),
        inputs=[spec, angles, angles],
        outputs=spec,
        numbers=long * high * wide,
    )
    return out.reshape(x.shape)


def _kernel(sizes, halves, x_ref, cos_ref, sin_ref, out_ref):
    (length, heads, pairs), (long, wide), high = sizes, cos_ref.shape, x_ref.shape[1]
    at = pl.program_id(1) * long + jnp.arange(long)
    head, pair = pl.program_id(2) * high + jnp.arange(high), jnp.arange(wide)
    known = (at < length)[:, None] & (pair < pairs)[None]
    inside = known[:, None] & (head < heads)[None, :, None]
    cos, sin = (triton.load(ref, mask=known, other=0)[:, None] for ref in (cos_ref, sin_ref))
    each, whole = (jnp.int32(0), jnp.int32(1)), slice(None)
    places = [(whole, whole, *((i, whole) if halves else (whole, i))) for i in each]
    a, b = (triton.load(x_ref.at[place], mask=inside, other=0).astype(jnp.float32) for place in places)
    for place, turned in zip(places, (a * cos - b * sin, b * cos + a * sin), strict=True):
        triton.store(out_ref.at[place], turned.astype(out_ref.dtype), mask=inside)
