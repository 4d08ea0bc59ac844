"""Partition rules: which dimension letter is split over which mesh axis.

Invariant: a rule that cannot hold (a size that does not divide) is an error with the remedy
computed, never a silent fall-back to a replica.
"""

from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cupola.config.suggest import did_you_mean
from cupola.config.value import Value
from cupola.core.dims import DIMS, letters
from cupola.core.errors import MeshError
from cupola.core.module import map_specs
from cupola.core.param import Param


class Rules(Value):
    """A table from dimension letters to mesh axes; letters not named are replicated.

    Args:
        table: (letter, axes) pairs; the first pair of a letter with an axis still free wins.

    Example:
        Rules(table=(("B", ("data", "fsdp")), ("D", ("fsdp",)), ("F", ("tensor",))))
    """

    table: tuple[tuple[str, tuple[str, ...]], ...] = (
        ("B", ("data", "fsdp")),
        ("T", ("sequence",)),
        ("E", ("expert",)),
        ("H", ("tensor",)),
        ("K", ("tensor",)),
        ("F", ("tensor",)),
        ("V", ("tensor",)),
        ("D", ("fsdp",)),
    )

    def check(self) -> None:
        for letter, _ in self.table:
            if letter not in DIMS:
                raise MeshError(f"{letter!r} is no dimension letter", where="table", remedy=did_you_mean(letter, DIMS))

    def spec(self, dims: str, shape: tuple[int, ...], mesh: Mesh, where: str = "") -> PartitionSpec:
        """Returns how an array with these dims is split over the mesh.

        Raises:
            MeshError: a rule names an axis that the mesh lacks, or a size does not divide.
        """
        used: set[str] = set()
        parts = []
        for letter, size in zip(letters(dims, len(shape)), shape, strict=True):
            axes = self._axes(letter, mesh, used)
            _check_divides(letter, size, axes, mesh, where)
            used.update(axes)
            parts.append(axes if len(axes) > 1 else axes[0] if axes else None)
        return PartitionSpec(*parts)

    def _axes(self, letter: str, mesh: Mesh, used: set[str]) -> tuple[str, ...]:
        for axes in (axes for named, axes in self.table if named == letter):
            for axis in axes:
                if axis not in mesh.shape:
                    raise MeshError(
                        f"{letter} is to be split over {axis!r}, which the mesh lacks",
                        where="rules",
                        remedy=did_you_mean(axis, mesh.shape),
                    )
            if free := tuple(a for a in axes if mesh.shape[a] > 1 and a not in used):
                return free
        return ()


def shardings(specs: Any, mesh: Mesh, rules: Rules) -> Any:
    """Returns the tree of shardings of a tree of Params.

    Raises:
        MeshError: a size does not divide over its axis; the message names the path and what would.
    """

    def one(path: str, param: Param) -> NamedSharding:
        return NamedSharding(mesh, rules.spec(param.dims, param.shape, mesh, where=path))

    return map_specs(one, specs)


def split(array: jax.Array, dims: str, mesh: Mesh, rules: Rules) -> jax.Array:
    """Tells the compiler how an activation with these dims is split; returns the same numbers."""
    return jax.lax.with_sharding_constraint(array, NamedSharding(mesh, rules.spec(dims, array.shape, mesh)))


def _check_divides(letter: str, size: int, axes: tuple[str, ...], mesh: Mesh, where: str) -> None:
    devices = 1
    for axis in axes:
        devices *= mesh.shape[axis]
    if size % devices == 0:
        return
    below, above = size // devices * devices, -(-size // devices) * devices
    sizes = f"{below} or {above}" if below else f"{above}"
    divisors = [str(n) for n in range(2, size + 1) if size % n == 0][:6]
    over = " x ".join(f"'{a}'" for a in axes)
    instead = f", or {over} of size {', '.join(divisors)}" if divisors else ""
    raise MeshError(
        f"{DIMS[letter]} {letter}={size} does not divide over mesh axis {over} ({devices} devices)",
        where=where,
        remedy=f"Each device must hold a whole share. Use {letter}={sizes}{instead}.",
    )
