"""Matrix products in native code, with weights in the packed forms.

Not here: the forms (`packed.py`), products with other forms (`xla.py`).
Invariant: at one level of instructions a row's bits are the same whatever other rows come with it.
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from cupola.core.dtype import Precision
from cupola.kernels.matmul import xla
from cupola.kernels.matmul.form import Adapted, LowRank, Weight, dense, form_of
from cupola.kernels.matmul.packed import DEPTH, Activations, Packed, PackedGroups, as_multiplied
from cupola.kernels.native.level import Level
from cupola.kernels.native.library import call, reasons

NATIVE_BF16 = (Level.AVX512_BF16, Level.AMX)
"""Levels that multiply bfloat16 without making it float32 first."""
FORMATS = ("float32", "bfloat16")


def dot(
    x: Float[Array, "..."], weight: Weight, precision: Precision, contract: int, *, level: Level
) -> Float[Array, "..."]:
    """Returns x . weight, the base of an adapted weight by the native kernel and its adapter by the compiler."""
    kept, summed = x.shape[: x.ndim - contract], x.shape[x.ndim - contract :]
    flat = x.reshape(math.prod(kept), math.prod(summed))
    base = _base(weight)
    out = _product(base, flat, precision, level)
    if base is not weight:
        out = out + xla.adapter(weight, flat, precision)
    return out.astype(precision.output).reshape(*kept, *base.shape[contract:])


def refuses(x: Float[Array, "..."], weight: Weight, precision: Precision, contract: int, *, level: Level) -> list[str]:
    """Returns why the native kernel cannot multiply so."""
    base = _base(weight)
    if not isinstance(base, Packed | PackedGroups):
        return [f"the weight is kept as {form_of(base)}, and it takes Packed and PackedGroups"]
    found = _formats(x, precision)
    as_given = isinstance(base, PackedGroups) and base.activations is Activations.AS_GIVEN
    if as_given and precision.compute != jnp.bfloat16:
        found.append(f"compute is {precision.compute.name}, and codes are made bfloat16 beside activations as given")
    if base.inputs != contract:
        found.append(f"the weight sums over {base.inputs} dims, and {contract} are asked for")
    return found


def is_for(precision: Precision) -> bool:
    """Returns whether packed weights are what this machine multiplies fastest with, under a policy that rounds to theirs."""
    return precision.compute == jnp.bfloat16 and any(not reasons(level) for level in Level)


def activations_for() -> Activations:
    """Returns how activations are multiplied fastest by quantized weights here.

    Tiles multiply bfloat16 as fast as it can be had. Elsewhere products of 8-bit numbers are twice as fast as those of
    bfloat16, and ask for less work on 4-bit codes.
    """
    return Activations.INT8 if reasons(Level.AMX) else Activations.AS_GIVEN


def _formats(x: Float[Array, "..."], precision: Precision) -> list[str]:
    """Returns what is wrong with number formats."""
    given = {"x": x.dtype.name, "compute": precision.compute.name}
    allowed = " and ".join(FORMATS)
    return [f"{what} is {name}, and it takes {allowed}" for what, name in given.items() if name not in FORMATS]


def _base(weight: Weight) -> Weight:
    return weight.base if isinstance(weight, Adapted | LowRank) else weight


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _product(weight: Packed | PackedGroups, x: Float[Array, "N K"], precision: Precision, level: Level) -> Array:
    """Returns the product with the weight's matrix, [N, F]."""
    if isinstance(weight, PackedGroups):
        return _group_product(weight, x, level)
    all_rows = jnp.full((1,), x.shape[0], jnp.int32)
    return native_product(weight.values[None], x, all_rows, weight.sizes[1], precision, level)


def _group_product(weight: PackedGroups, x: Float[Array, "N K"], level: Level) -> Float[Array, "N F"]:
    rows, groups = x.shape[0], weight.scales.shape[1]
    offsets = jnp.zeros((0,), weight.scales.dtype) if weight.offsets is None else weight.offsets
    arrays = (x, weight.codes, weight.scales, offsets)
    codes: dict[str, Any] = {"bits": np.int32(weight.bits), "zero": np.int32(weight.zero)}
    out = jax.ShapeDtypeStruct((rows, weight.sizes[1]), jnp.float32)
    if weight.activations is Activations.AS_GIVEN:
        held = jax.ShapeDtypeStruct((rows, -(-x.shape[1] // DEPTH) * DEPTH), _held(level))
        return call("dot_unpacked", level, (out, held), *arrays, **codes)[0]
    results = (
        out,
        # Memory for x as it is multiplied: whole numbers, and three numbers about each group.
        jax.ShapeDtypeStruct(x.shape, jnp.int8 if level in NATIVE_BF16 else jnp.int16),
        jax.ShapeDtypeStruct((rows, groups, 3), jnp.int32),
    )
    return call("dot_grouped", level, results, *arrays, **codes)[0]


def _held(level: Level) -> np.dtype:
    """Returns the dtype in which activations of a bfloat16 policy are held while they are multiplied."""
    return jnp.dtype(jnp.bfloat16 if level in NATIVE_BF16 else jnp.float32)


def native_product(
    values: Float[Array, "E N P 16 2"],
    x: Float[Array, "M K"],
    sizes: Int[Array, " E"],
    outputs: int,
    precision: Precision,
    level: Level,
) -> Float[Array, "M F"]:
    """Returns rows times packed matrices: `sizes` rows by each in turn."""
    rounded = precision.compute == jnp.bfloat16
    held = _held(level) if rounded else jnp.dtype(jnp.float32)
    results = (
        jax.ShapeDtypeStruct((x.shape[0], outputs), jnp.float32),
        # Memory for x as it is multiplied: XLA has it at hand, the kernel would have to ask the system.
        jax.ShapeDtypeStruct((x.shape[0], 2 * values.shape[2]), held),
    )
    return call("dot_packed", level, results, x, values, sizes, rounded=np.bool_(rounded))[0]


def _forward(weight, x, precision, level):
    return _product(weight, x, precision, level), (weight, x)


def _backward(precision, level, kept, gradient):
    def plain(weight: Weight, x: Array) -> Array:
        return xla.matrix_product(as_multiplied(x, weight), dense(weight).reshape(weight.sizes), precision)

    return jax.vjp(plain, *kept)[1](gradient)


_product.defvjp(_forward, _backward)


def dot_experts(
    x: Float[Array, "N K"], weight: Packed, sizes: Int[Array, " E"], precision: Precision, *, level: Level
) -> Float[Array, "N F"]:
    """Returns each row times the packed matrix of its group."""
    return _expert_product(weight, x, sizes.astype(jnp.int32), precision, level).astype(precision.output)


def refuses_experts(
    x: Float[Array, "N K"], weight: Weight, sizes: Int[Array, " E"], precision: Precision, *, level: Level
) -> list[str]:
    """Returns why the native kernel cannot multiply so."""
    if not isinstance(weight, Packed) or weight.values.ndim != 5:
        return [f"the weights are kept as {form_of(weight)}, and it takes a stack of Packed"]
    return _formats(x, precision)


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _expert_product(
    weight: Packed, x: Float[Array, "N K"], sizes: Int[Array, " E"], precision: Precision, level: Level
) -> Float[Array, "N F"]:
    return native_product(weight.values, x, sizes, weight.sizes[1], precision, level)


def _experts_forward(weight, x, sizes, precision, level):
    return _expert_product(weight, x, sizes, precision, level), (weight, x, sizes)


def _experts_backward(precision, level, kept, gradient):
    *differentiated, sizes = kept

    def plain(weight: Weight, x: Array) -> Array:
        # Sizes that a program is compiled for come back as a numpy array.
        return xla.dot_experts(x, weight, jnp.asarray(sizes), precision)

    return *jax.vjp(plain, *differentiated)[1](gradient.astype(precision.output)), None


_expert_product.defvjp(_experts_forward, _experts_backward)
