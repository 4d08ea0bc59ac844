"""Forms in which a weight may be stored; layers never ask which.

A form is a leaf of the parameter tree that stands for one matrix. Not here: products (`api.py`).
Invariant: `dense(form)` is the matrix that a product with the form multiplies by.
"""

import dataclasses
from functools import singledispatch
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from jaxtyping import Int8 as Int8Array

from cupola.core.record import record

Weight = Any
"""An array, or one of the forms below."""


@record
class Int8:
    """A matrix of int8 numbers with one float32 scale per output: values * scales.

    Source: Dettmers et al. 2022, section 2.1 (absmax quantization by vector).
    """

    values: Int8Array[Array, "*K F"]
    scales: Float[Array, " F"]

    @classmethod
    def quantize(cls, weight: Float[Array, "K F"]) -> "Int8":
        """Returns the nearest int8 form; the error is at most half a scale per number."""
        top = jnp.max(jnp.abs(weight), axis=0)
        scales = jnp.where(top > 0, top, 1).astype(jnp.float32) / 127
        values = jnp.round(weight / scales[None, :]).astype(jnp.int8)
        return cls(values=values, scales=scales)


@record
class LowRank:
    """A base in any form plus an adapter of low rank: base + scale * down . up.

    Source: Hu et al. 2021 (LoRA), equation 3; our down, up, scale are its A, B, alpha / r.
    """

    base: Weight
    down: Float[Array, "K R"]
    up: Float[Array, "R F"]
    scale: float = dataclasses.field(default=1.0, metadata={"static": True})


@singledispatch
def dense(weight: Weight) -> Float[Array, "..."]:
    """Returns the matrix that a form stands for."""
    return weight


@dense.register
def _(weight: Int8) -> Float[Array, "..."]:
    return weight.values.astype(jnp.float32) * jax.lax.broadcast_in_dim(
        weight.scales, weight.values.shape, (weight.values.ndim - 1,)
    )


@dense.register
def _(weight: LowRank) -> Float[Array, "..."]:
    return dense(weight.base) + weight.scale * jnp.dot(weight.down, weight.up, precision=jax.lax.Precision.HIGHEST)
