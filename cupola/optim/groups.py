"""Groups of parameters, each with an optimizer of its own.

Invariant: every parameter belongs to exactly one group, the first that matches it, and no group is
empty.
"""

import enum
import fnmatch
from collections.abc import Iterator

import jax
from jaxtyping import Array, Float

from cupola.config.suggest import did_you_mean
from cupola.config.value import Value
from cupola.core.errors import ConfigError
from cupola.core.module import Tree, flat_specs
from cupola.core.param import Param, Role
from cupola.optim.optimizer import Optimizer


class Rank(enum.Enum):
    """What a parameter is, stacks apart."""

    MATRIX = "matrix"
    """Two dims or more."""
    VECTOR = "vector"
    """One dim or none."""


class Group(Value):
    """Parameters that match, and what moves them.

    Args:
        match: a role, a rank, or a pattern for the path, in which `*` stands for any text, dots too.
        optimizer: moves them.

    Example:
        Group(match=Role.HIDDEN, optimizer=Muon(rate=0.02))
        Group(match="*.attention.*", optimizer=AdamW(rate=1e-3))
    """

    match: str | Role | Rank
    optimizer: Optimizer

    @property
    def name(self) -> str:
        """How metrics and the assignment call it."""
        return self.match if isinstance(self.match, str) else self.match.value

    def matches(self, path: str, param: Param) -> bool:
        """Returns whether a parameter is meant; an earlier group may have it already."""
        if isinstance(self.match, Role):
            return param.role is self.match
        if isinstance(self.match, Rank):
            return param.is_matrix == (self.match is Rank.MATRIX)
        return fnmatch.fnmatchcase(path, self.match)


class Grouped(Optimizer):
    """Moves each parameter with the optimizer of the first group that matches it.

    Its state is a tuple: one state for each group, then that of the rest.

    Args:
        groups: asked in this order.
        rest: moves what no group matches.

    Example:
        Grouped(groups=(Group(match=Role.HIDDEN, optimizer=Muon(rate=0.02)),), rest=AdamW(rate=3e-3))
    """

    groups: tuple[Group, ...]
    rest: Optimizer

    def init(self, params: Tree, specs: Tree) -> Tree:
        arrays = _by_path(params, specs)
        return tuple(
            optimizer.init({path: arrays[path] for path in part}, part) for _, optimizer, part in self.parts(specs)
        )

    def update(
        self,
        grads: Tree,
        state: Tree,
        params: Tree,
        specs: Tree,
        progress: Float[Array, ""],
        scale: Float[Array, ""] | float = 1.0,
    ) -> tuple[Tree, Tree]:
        arrays, gradients = _by_path(params, specs), _by_path(grads, specs)
        states: list[Tree] = []
        for (_, optimizer, part), held in zip(self.parts(specs), state, strict=True):
            own, own_gradients = ({path: tree[path] for path in part} for tree in (arrays, gradients))
            moved, after = optimizer.update(own_gradients, held, own, part, progress, scale)
            arrays |= moved
            states.append(after)
        return jax.tree.unflatten(jax.tree.structure(specs), arrays.values()), tuple(states)

    def rates(self, progress: Float[Array, ""]) -> dict[str, Float[Array, ""]]:
        """Returns the learning rate of each group: {"rate.hidden": 0.02, "rate.rest": 0.003}."""
        named = [(group.name, group.optimizer) for group in self.groups] + [("rest", self.rest)]
        return {f"{key}.{name}": rate for name, optimizer in named for key, rate in optimizer.rates(progress).items()}

    def assignment(self, specs: Tree) -> dict[str, str]:
        """Returns the group and the optimizer of each parameter, by path: {"stack.block.up": "hidden: Muon"}."""
        found = {
            path: f"{name}: {kind}"
            for name, optimizer, part in self.parts(specs)
            for path, kind in optimizer.assignment(part).items()
        }
        return {path: found[path] for path, _ in flat_specs(specs)}

    def parts(self, specs: Tree) -> Iterator[tuple[str, Optimizer, dict[str, Param]]]:
        """Yields (name, optimizer, its parameters by path) for each group, then for the rest.

        Raises:
            ConfigError: a group is left with no parameter; the message names the known paths.
        """
        known = dict(flat_specs(specs))
        left = dict(known)
        for i, group in enumerate(self.groups):
            part = {path: param for path, param in left.items() if group.matches(path, param)}
            if not part:
                raise self._empty(i, known)
            left = {path: param for path, param in left.items() if path not in part}
            yield group.name, group.optimizer, part
        yield "rest", self.rest, left

    def _empty(self, i: int, known: dict[str, Param]) -> ConfigError:
        group = self.groups[i]
        taken = [path for path, param in known.items() if group.matches(path, param)]
        where, paths = f"groups.{i}", f"Known paths: {', '.join(known)}."
        if taken:
            return ConfigError(
                f"earlier groups take all that {group.name!r} matches: {', '.join(taken)}",
                where=where,
                remedy=f"Move it before them, or leave it out. {paths}",
            )
        near = did_you_mean(group.name, known) if isinstance(group.match, str) else ""
        remedy = f"{near} {paths}" if near.startswith("Did") else paths
        return ConfigError(f"{group.name!r} matches no parameter", where=where, remedy=remedy)


def _by_path(tree: Tree, specs: Tree) -> dict[str, Array]:
    return {path: leaf for (path, _), leaf in zip(flat_specs(specs), jax.tree.leaves(tree), strict=True)}
