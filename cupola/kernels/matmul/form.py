"""Forms in which a weight may be stored; layers never ask which.

A form is a leaf of the parameter tree that stands for one matrix. Not here: products (`api.py`).
Invariant: `dense(form)` is the matrix that a product with the form multiplies by.
"""

import dataclasses
import math
from collections.abc import Sequence
from functools import singledispatch
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8
from jaxtyping import Int8 as Int8Array

from cupola.core.errors import ShapeError, Unsupported
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
class Grouped:
    """A matrix of small whole numbers, in groups along the inputs that share a scale and an offset.

    Element k, f is scales[f, g] * (code - zero) + offsets[f, g], where g = k // group. The outputs come
    first, as in files of llama.cpp, so that a row is what one output reads. Two codes of 4 bits share a
    byte: the first half of a group stands in the low halves of its bytes, the second in the high ones.
    It may be stacked: `shape` is that of one matrix.

    Args:
        codes: K codes a row, in bytes.
        scales: one a group.
        offsets: one a group; None: all are zero.
        shape: of the matrix that this stands for, [K, F], where each may be several dims.
        bits: of a code, 4 or 8.
        zero: the code that stands for zero, offsets apart.
    """

    codes: UInt8[Array, "*L F N"]
    scales: Float[Array, "*L F G"]
    offsets: Float[Array, "*L F G"] | None = None
    shape: tuple[int, ...] = dataclasses.field(kw_only=True, metadata={"static": True})
    bits: int = dataclasses.field(kw_only=True, metadata={"static": True})
    zero: int = dataclasses.field(default=0, kw_only=True, metadata={"static": True})

    def column(self, index: Int[Array, "..."]) -> Float[Array, "... K"]:
        """Returns the weights of some outputs of one matrix: rows of a table of embeddings that is the head too."""
        flat = index.reshape(-1)
        offsets = None if self.offsets is None else self.offsets[flat]
        shape = (self.codes.shape[-1] * 8 // self.bits, len(flat))
        found = dataclasses.replace(
            self, codes=self.codes[flat], scales=self.scales[flat], offsets=offsets, shape=shape
        )
        return _rows(found).reshape(*index.shape, -1)


@record
class Turned:
    """A dense matrix with its outputs first: what a server keeps of weights that no longer change.

    On a CPU a product with few rows then runs nearly twice as fast, and a row's result is the same bits
    whatever other rows come with it; with inputs first neither holds.

    Args:
        values: the transposed matrix, in the dtype in which it is multiplied.
        shape: of the matrix that this stands for, [K, F], where each may be several dims.
    """

    values: Float[Array, "F K"]
    shape: tuple[int, ...] = dataclasses.field(kw_only=True, metadata={"static": True})

    @classmethod
    def turn(cls, weight: Float[Array, "..."], dtype: jnp.dtype, inputs: int = 1) -> "Turned":
        """Returns the form of a matrix whose first `inputs` dims are summed over."""
        flat = weight.reshape(math.prod(weight.shape[:inputs]), -1)
        return cls(values=flat.astype(dtype).T, shape=tuple(weight.shape))

    @property
    def sizes(self) -> tuple[int, int]:
        """How many numbers K and F are."""
        outputs, inputs = self.values.shape
        return inputs, outputs

    @property
    def dtype(self) -> jnp.dtype:
        """In which it is multiplied."""
        return self.values.dtype


@record
class LowRank:
    """A base in any form plus an adapter of low rank: base + scale * down . up.

    Source: Hu et al. 2021 (LoRA), equation 3; our down, up, scale are its A, B, alpha / r.
    """

    base: Weight
    down: Float[Array, "K R"]
    up: Float[Array, "R F"]
    scale: float = dataclasses.field(default=1.0, metadata={"static": True})


@record
class Adapted:
    """A base and several adapters of low rank, of which each row of a product chooses one or none.

    Row t multiplies by base + down[chosen].T . up[chosen].T; the factors of all adapters stand side by
    side, outputs first, with their scales multiplied in.

    Args:
        base: in any form.
        down: first factors, `rank` lines an adapter.
        up: second factors.
        chosen: 1 for the lines of each row's adapter, 0 elsewhere.
        rank: lines of one adapter.
    """

    base: Weight
    down: Float[Array, "R K"]
    up: Float[Array, "F R"]
    chosen: Float[Array, "T R"]
    rank: int = dataclasses.field(kw_only=True, metadata={"static": True})

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the matrix, [K, F], where each may be several dims."""
        return self.base.shape

    def choosing(self, adapters: Int[Array, " T"]) -> "Adapted":
        """Returns the form for a product whose row t uses adapter adapters[t], from 1; 0 is none."""
        owner = 1 + jnp.arange(self.down.shape[0]) // self.rank
        return dataclasses.replace(self, chosen=(adapters[:, None] == owner[None]).astype(jnp.float32))


def form_of(weight: Weight) -> str:
    """Returns what a weight is kept as, in a word for people."""
    return "an array" if isinstance(weight, jax.Array | np.ndarray) else type(weight).__name__


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
def _(weight: Grouped) -> Float[Array, "..."]:
    matrix = jnp.swapaxes(_rows(weight), -1, -2)
    return matrix.reshape(*matrix.shape[:-2], *weight.shape)


def _rows(weight: Grouped) -> Float[Array, "*L F K"]:
    """Returns one row for each output."""
    groups = weight.scales.shape
    codes = weight.codes.reshape(*groups, -1)
    if weight.bits == 4:
        codes = jnp.concatenate([codes & 15, codes >> 4], axis=-1)
    values = (codes.astype(jnp.float32) - weight.zero) * weight.scales.astype(jnp.float32)[..., None]
    if weight.offsets is not None:
        values = values + weight.offsets.astype(jnp.float32)[..., None]
    return values.reshape(*groups[:-1], -1)


@dense.register
def _(weight: Turned) -> Float[Array, "..."]:
    return weight.values.T.reshape(weight.shape)


@dense.register
def _(weight: Adapted) -> Float[Array, "..."]:
    raise Unsupported(
        "a weight with an adapter for each row is no single matrix",
        where="dense",
        remedy="Use dot, or dense(weight.base) for the matrix without adapters.",
    )


@dense.register
def _(weight: LowRank) -> Float[Array, "..."]:
    return dense(weight.base) + weight.scale * jnp.dot(weight.down, weight.up, precision=jax.lax.Precision.HIGHEST)


def reshape(weight: Weight, shape: tuple[int, ...]) -> Weight:
    """Returns the same weight with its inputs or outputs split into other dims, such as heads.

    Raises:
        ShapeError: the sizes do not multiply to the same, or inputs would mix with outputs.
    """
    if not isinstance(weight, Grouped):
        return weight.reshape(shape)
    inputs = weight.codes.shape[-1] * 8 // weight.bits
    outputs = weight.codes.shape[-2]
    leading = [math.prod(shape[:i]) for i in range(len(shape) + 1)]
    if inputs not in leading or math.prod(shape) != inputs * outputs:
        raise ShapeError(
            f"a weight of {inputs} inputs and {outputs} outputs cannot have the shape {shape}",
            where="reshape",
            remedy="Split inputs and outputs, each into sizes that multiply to them.",
        )
    return dataclasses.replace(weight, shape=tuple(shape))


def joined(weights: Sequence[Grouped]) -> Grouped | None:
    """Returns one matrix with the outputs of several that multiply the same activations; None if they are not alike."""
    first = weights[0]
    for other in weights[1:]:
        same = (other.bits, other.zero, other.codes.shape[1:], other.scales.shape[1:], other.offsets is None)
        if same != (first.bits, first.zero, first.codes.shape[1:], first.scales.shape[1:], first.offsets is None):
            return None
    shape = (first.codes.shape[1] * 8 // first.bits, sum(len(each.codes) for each in weights))
    alike = [dataclasses.replace(each, shape=shape) for each in weights]
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), *alike)
