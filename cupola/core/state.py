"""Parameters that no gradient moves: running statistics, held in the tree beside what is learned.

A module declares them with `Role.STATE`; a call in training says their next values in `Aside.state`,
by path. Not here: when they are written (the learner's). Invariant: a tree keeps its form, and what
is learned is never written here.
"""

import jax
from jaxtyping import Array

from cupola.config.suggest import did_you_mean
from cupola.core.context import Aside
from cupola.core.errors import ConfigError, ShapeError
from cupola.core.module import Tree, flat_specs, map_specs
from cupola.core.param import Role


def with_state(params: Tree, aside: Aside, specs: Tree) -> Tree:
    """Returns the parameters with what a call said of their state written into them.

    Args:
        params: arrays, in the form of `specs`.
        aside: of a call in training; where the batch came in parts, the mean of what each part said.
        specs: the tree of `Param`s.

    Raises:
        ConfigError: a path is none of a parameter of Role.STATE; the message names the nearest.
        ShapeError: a value has another shape than its parameter.
    """
    known = {path: param for path, param in flat_specs(specs) if param.role is Role.STATE}
    for path, value in aside.state.items():
        if path not in known:
            raise ConfigError(
                "state is said of it, but the model has no such parameter of Role.STATE",
                where=path,
                remedy=did_you_mean(path, known),
            )
        if value.shape != known[path].shape:
            raise ShapeError(
                f"state of shape {value.shape} for a parameter of {known[path].shape}",
                where=path,
                remedy="A module says it for the whole batch, and `Repeat` stacks it on L.",
            )

    def written(path: str, now: Array) -> Array:
        return aside.state[path].astype(now.dtype) if path in aside.state else now

    return jax.tree.map(written, map_specs(lambda path, _: path, specs), params)


def learned(tree: Tree, specs: Tree) -> Tree:
    """Returns a tree of the form of `specs` without what is state: None stands in its place."""
    return jax.tree.map(lambda param, leaf: None if param.role is Role.STATE else leaf, specs, tree)


def rejoined(part: Tree, whole: Tree) -> Tree:
    """Returns `part`, what `learned` left, with the state of `whole` in its place again."""
    return jax.tree.map(lambda now, new: now if new is None else new, whole, part, is_leaf=lambda x: x is None)
