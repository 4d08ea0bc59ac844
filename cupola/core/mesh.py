"""Meshes of devices: named axes and their sizes.

Invariant: a mesh is made only when its axes multiply to a number of devices that exist.
"""

import math

import jax
import numpy as np

from cupola.config.value import Value
from cupola.core.errors import MeshError


class MeshShape(Value):
    """Sizes of the mesh axes; an axis of 1 costs nothing.

    Args:
        data: copies of the model, each with its share of the batch.
        fsdp: parameters and optimizer state split; the batch too.
        expert: experts split.
        sequence: positions split.
        tensor: heads, feed-forward width and vocabulary split.
    """

    data: int = 1
    fsdp: int = 1
    expert: int = 1
    sequence: int = 1
    tensor: int = 1

    def sizes(self) -> dict[str, int]:
        """Returns {axis: devices}, outermost first."""
        return {a: getattr(self, a) for a in ("data", "fsdp", "expert", "sequence", "tensor")}

    def check(self) -> None:
        for axis, size in self.sizes().items():
            if size < 1:
                raise MeshError(f"axis has size {size}", where=axis, remedy="Sizes are whole numbers from 1.")

    def build(self, devices: list[jax.Device] | None = None) -> jax.sharding.Mesh:
        """Returns the mesh over the first devices that it needs.

        Raises:
            MeshError: it needs more devices than there are.
        """
        have = jax.devices() if devices is None else devices
        need = math.prod(self.sizes().values())
        asked = " x ".join(f"{a}={n}" for a, n in self.sizes().items() if n > 1) or "data=1"
        if need > len(have):
            raise MeshError(
                f"{asked} needs {need} devices, but there are {len(have)} ({have[0].platform})",
                where="mesh",
                remedy=f"Use sizes that multiply to at most {len(have)}, such as mesh.data={len(have)}.",
            )
        grid = np.asarray(have[:need]).reshape(tuple(self.sizes().values()))
        return jax.sharding.Mesh(grid, tuple(self.sizes()))
