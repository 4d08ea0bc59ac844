"""Parameters in the forms that are multiplied fastest once they no longer change.

Not here: the forms (`kernels/matmul/form.py`), quantized files (`interop/`).
Invariant: what is not a matrix stays as it is; the matrices are those of the model, rounded to the dtype
in which the precision policy multiplies, and quantized ones the numbers of their files, beside which activations are
rounded to 8 bits where that is faster. Of what is packed or turned a row's result is the same bits whatever other rows
come with it.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from cupola.core.dtype import Precision
from cupola.core.module import Module, Tree
from cupola.core.param import Param, Role
from cupola.kernels.matmul import (
    Grouped,
    Packed,
    PackedGroups,
    Turned,
    activations_for,
    group_of,
    is_for,
    joined,
    pack_groups,
)
from cupola.kernels.matmul.form import dense
from cupola.layers.linear import JOINED
from cupola.layers.repeat import unstacked

_turn = jax.jit(Turned.turn, static_argnums=(1, 2))
"""Made once: what it compiles for one layer serves the others."""

_pack = jax.jit(Packed.pack, static_argnums=1)
_pack_groups = jax.jit(pack_groups, static_argnums=1)


@jax.jit
def _pack_joined(matrices: list[Array]) -> Packed:
    return Packed.pack(jnp.concatenate([x.reshape(x.shape[0], -1).astype(jnp.bfloat16) for x in matrices], axis=1))


def formed(module: Module, params: Tree, *, join: bool = True) -> Tree:
    """Returns the parameters cut into layers, matrices packed for the native kernels; where there are none, turned.

    Args:
        join: whether packed matrices that multiply the same activations become one, which adapters cannot stand beside.
    """
    return _formed(module, unstacked(module, params), join)


def formed_head(table: Any, precision: Precision) -> Any:
    """Returns a table as the matrix that gives logits; tokens can be looked up in its packed forms too.

    Args:
        table: [V, D], or a quantized form of its transpose.
    """
    if isinstance(table, PackedGroups):
        return table
    matrix = dense(table) if isinstance(table, Grouped) else table.T
    return _pack(matrix, 1) if is_for(precision) else matrix.T


def _formed(module: Module, p: Any, join: bool) -> Tree:
    if isinstance(p, tuple):  # The layers of a Repeat.
        return tuple(_formed(module, layer, join) for layer in p)
    made: dict[str, Any] = {}
    beside = [p[name] for name in module.beside]
    one = _joined(beside) if join and beside and is_for(module.precision) else None
    if one is not None:
        made[JOINED] = one
        p = {name: held for name, held in p.items() if name not in module.beside}
    for name, held in p.items():
        own = module.params().get(name)
        if own is not None:
            made[name] = _leaf(own, held, module)
            continue
        child = getattr(module, name)
        if isinstance(child, tuple):
            made[name] = tuple(_formed(c, q, join) for c, q in zip(child, held, strict=True))
        else:
            made[name] = _formed(child, held, join)
    return made


def _joined(beside: list[Any]) -> Packed | PackedGroups | None:
    """Returns one matrix for some that multiply the same activations; None where their forms are not alike."""
    if all(isinstance(held, Array) for held in beside):
        return _pack_joined(beside)
    whole = joined(beside) if all(isinstance(held, Grouped) for held in beside) else None
    return None if whole is None or group_of(whole) is None else _pack_groups(whole, activations_for())


def _leaf(param: Param, held: Any, module: Module) -> Any:
    if isinstance(held, Grouped) and is_for(module.precision) and group_of(held) is not None:
        return _pack_groups(held, activations_for())
    if not isinstance(held, Array) or not param.is_matrix:
        return held
    dtype = module.precision.compute
    if param.role is Role.HIDDEN:
        return _pack(held, param.inputs) if is_for(module.precision) else _turn(held, dtype, param.inputs)
    return held.astype(dtype)
