"""Parameters in the forms that a server multiplies fastest with.

Not here: the forms (`kernels/matmul/form.py`), quantized files (`interop/`).
Invariant: what is not a matrix stays as it is; the matrices are those of the model, rounded to the dtype
in which the precision policy multiplies, and quantized ones the numbers of their files. Of what is packed
or turned a row's result is the same bits whatever other rows come with it.
"""

from typing import Any

import jax
from jaxtyping import Array

from cupola.core.module import Module, Tree
from cupola.core.param import Param, Role
from cupola.kernels.matmul import Grouped, Packed, Turned, group_of, is_for, pack_groups
from cupola.layers.repeat import unstacked
from cupola.models.decoder import Decoder

_turn = jax.jit(Turned.turn, static_argnums=(1, 2))
"""Made once: what it compiles for one layer serves the others."""

_pack = jax.jit(Packed.pack, static_argnums=1)
_pack_groups = jax.jit(pack_groups)


def for_serving(model: Decoder, params: Tree) -> Tree:
    """Returns the parameters cut into layers, matrices packed for the native kernels; where there are none, turned."""
    formed = _formed(model, unstacked(model, params))
    if is_for(model.precision):
        # The head's matrix is the largest that a step reads; tokens can be looked up in the packed one too.
        name = "embedding" if model.head is None else "head"
        formed[name] = {**formed[name], "table": _pack(formed[name]["table"].T, 1)}
    return formed


def _formed(module: Module, p: Any) -> Tree:
    if isinstance(p, tuple):  # The layers of a Repeat.
        return tuple(_formed(module, layer) for layer in p)
    formed = {}
    for name, held in p.items():
        own = module.params().get(name)
        if own is not None:
            formed[name] = _leaf(own, held, module)
            continue
        child = getattr(module, name)
        if isinstance(child, tuple):
            formed[name] = tuple(_formed(c, q) for c, q in zip(child, held, strict=True))
        else:
            formed[name] = _formed(child, held)
    return formed


def _leaf(param: Param, held: Any, module: Module) -> Any:
    if isinstance(held, Grouped) and is_for(module.precision) and group_of(held) is not None:
        return _pack_groups(held)
    if not isinstance(held, Array) or not param.is_matrix:
        return held
    dtype = module.precision.compute
    if param.role is Role.HIDDEN:
        return _pack(held, param.inputs) if is_for(module.precision) else _turn(held, dtype, param.inputs)
    return held.astype(dtype)
