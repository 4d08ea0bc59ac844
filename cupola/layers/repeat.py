"""The same block many times over, with parameters stacked on a leading dimension L.

Invariant: scanned or unrolled, rematerialized or not, the numbers are the same and so is the tree
of parameters; only time and memory differ.
"""

import dataclasses
import enum
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cupola.core.context import Aside, Context
from cupola.core.module import Module, Tree, map_specs


class Form(enum.Enum):
    """How the repetition is compiled."""

    SCAN = "scan"
    """One loop: compiled once whatever the depth; what accelerators and deep models want."""
    UNROLL = "unroll"
    """Every layer by itself: the fastest step on a CPU, and a longer compilation."""


class Remat(enum.Enum):
    """What of a block's forward pass is kept for the backward pass; the rest is computed again."""

    NOTHING = "nothing"
    """Only the residual stream between blocks is kept."""
    DOTS = "dots"
    """Results of products with weights are kept."""
    BRANCHES = "branches"
    """What attention and feed-forward add is kept."""
    EVERYTHING = "everything"
    """All is kept: no rematerialization."""


class Repeat(Module):
    """`layers` copies of `block` in a row, each with parameters of its own.

    Args:
        layers: how many.
        block: called with (p, x, view=, context=, and what `Repeat` is given), returns (x, Aside).
        form: one loop or every layer by itself.
        remat: what is kept for the backward pass.
    """

    layers: int
    block: Module
    form: Form = Form.SCAN
    remat: Remat = Remat.EVERYTHING

    @property
    def blocks(self) -> tuple[Module, ...]:
        """The block of each layer, in order."""
        return (self.block,) * self.layers

    def specs(self) -> Tree:
        """Returns the block's parameters, each with a leading dimension L."""
        return {"block": map_specs(lambda _, param: param.stack("L", self.layers), self.block.specs())}

    def __call__(
        self, p: Tree, x: Float[Array, "B T D"], *, view: Any = None, context: Context, **shared: Any
    ) -> tuple[Float[Array, "B T D"], Aside]:
        """Returns what the last block returns; what the blocks say aside comes stacked on L.

        A tree that was cut into layers before (`unstacked`) is taken as it is, and unrolled: inside a
        compiled step, cutting copies every weight. So are views in a tuple, one a layer.
        """

        def layer(x: Array, inputs: tuple[Tree, Any, Array]) -> tuple[Array, Aside]:
            p_layer, view_layer, index = inputs
            return self.block(p_layer, x, view=view_layer, context=context.at(index), **shared)

        layer = _rematerialized(layer, self.remat)
        cut = isinstance(p["block"], tuple)
        if self.form is Form.SCAN and not cut and not isinstance(view, tuple):
            x, said = jax.lax.scan(layer, x, (p["block"], view, jnp.arange(self.layers)))
            return x, said.under("block")
        asides = []
        for index, p_layer in enumerate(p["block"] if cut else unstack(p["block"], self.layers)):
            x, said = layer(x, (p_layer, None if view is None else view[index], jnp.asarray(index)))
            asides.append(said)
        views = None if view is None else tuple(said.view for said in asides)
        bare = [dataclasses.replace(said, view=None) for said in asides]
        said = jax.tree.map(lambda *each: jnp.stack(each), *bare)
        return x, dataclasses.replace(said.under("block"), view=views)

    def empty_view(self, batch: int, capacity: int) -> Any:
        """Returns the layers' views: stacked on L where they are scanned, a tuple where not."""
        views = tuple(self.block.empty_view(batch, capacity) for _ in range(self.layers))
        return jax.tree.map(lambda *each: jnp.stack(each), *views) if self.form is Form.SCAN else views

    def flops(self, batch: int, length: int) -> int:
        """Returns the block's FLOPs times the layers."""
        return self.layers * self.block.flops(batch, length)


def _rematerialized(layer: Any, remat: Remat) -> Any:
    policies = jax.checkpoint_policies
    match remat:
        case Remat.EVERYTHING:
            return layer
        case Remat.NOTHING:
            return jax.checkpoint(layer, policy=policies.nothing_saveable)
        case Remat.DOTS:
            return jax.checkpoint(layer, policy=policies.dots_with_no_batch_dims_saveable)
        case Remat.BRANCHES:
            return jax.checkpoint(layer, policy=policies.save_only_these_names("attention", "feed_forward"))


def unstacked(module: Module, p: Tree) -> Tree:
    """Returns the parameters of a module with those of each `Repeat` inside it in a tuple, one tree a layer.

    A `Repeat` takes either form; of the one cut into layers a compiled step copies nothing.
    """
    return _converted(module, p, lambda repeat, block: _slices(block, repeat.layers), tuple)


def stacked(module: Module, p: Tree) -> Tree:
    """Returns the parameters of a module as its `specs` have them: undoes `unstacked`."""

    def join(_: Repeat, block: Any) -> Tree:
        return jax.tree.map(lambda *each: jnp.stack(each), *block)

    return _converted(module, p, join, dict)


def _converted(module: Module, p: Tree, convert: Any, done: type) -> Tree:
    """Rebuilds a tree of parameters with each Repeat's block converted, unless it is `done` already."""
    if isinstance(module, Repeat):
        return {"block": p["block"] if isinstance(p["block"], done) else convert(module, p["block"])}
    inner = dict(p)
    for name in p:
        match getattr(module, name, None):
            case Module() as child:
                inner[name] = _converted(child, p[name], convert, done)
            case tuple() as children:
                inner[name] = tuple(_converted(c, q, convert, done) for c, q in zip(children, p[name], strict=True))
    return inner


def unstack(tree: Tree, layers: int) -> tuple[Tree, ...]:
    """Returns one tree for each index of the leading dimension of every leaf.

    The gradient stacks the layers' gradients in one pass, where that of slicing would add up
    `layers` arrays of the whole stack's size.
    """
    return _unstack(tree, layers)


def _slices(tree: Tree, layers: int) -> tuple[Tree, ...]:
    return tuple(jax.tree.map(lambda leaf, i=i: leaf[i], tree) for i in range(layers))


_unstack = jax.custom_vjp(_slices, nondiff_argnums=(1,))
_unstack.defvjp(
    lambda tree, layers: (_slices(tree, layers), None),
    lambda layers, _, gradients: (jax.tree.map(lambda *each: jnp.stack(each), *gradients),),
)
