"""Many low-rank adapters in one batch: each token is multiplied with that of its own request.

The adapters of a matrix stand side by side in one pair of factors. A token passes the first factor
whole, all but its adapter's numbers are set to zero, and the second factor adds up the rest: two
products for all adapters together, and a token's result does not depend on who else is there.
Not here: the product (`kernels/matmul`). Invariant: a token without an adapter gives the bits of the base.
Source: Hu et al. 2021 (LoRA), equation 3; Chen et al. 2023 (Punica) for batches of many.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from cupola.core.module import Tree
from cupola.interop.peft import Factors as Factors
from cupola.interop.peft import by_layer
from cupola.kernels.matmul import Adapted, Packed, PackedGroups, Turned
from cupola.serve.errors import InvalidRequest, NotFound


class Adapters:
    """Places for adapters beside a model's weights.

    Args:
        places: how many adapters may be loaded at once.
        rank: the largest that one may have.
    """

    def __init__(self, places: int, rank: int):
        self.places, self.rank = places, rank
        self._loaded: dict[str, tuple[int, Factors]] = {}

    @property
    def numbers(self) -> dict[str, int]:
        """The number of each loaded adapter, from 1."""
        return {name: number for name, (number, _) in self._loaded.items()}

    def load(self, name: str, factors: Factors, params: Tree) -> None:
        """Puts an adapter into a free place; `attached` then has it.

        Raises:
            InvalidRequest: the name is taken, no place is free, or it fits no matrix of the model.
        """
        if name in self._loaded:
            raise InvalidRequest(f"an adapter {name!r} is loaded", where="lora_name", remedy="Unload it first.")
        taken = {number for number, _ in self._loaded.values()}
        free = [number for number in range(1, self.places + 1) if number not in taken]
        if not free:
            raise InvalidRequest(
                f"all {self.places} places are taken",
                where="lora_name",
                remedy=f"Unload one of {sorted(self._loaded)}.",
            )
        matrices = dict(_matrices(params))
        for path, (down, up) in factors.items():
            if path not in matrices:
                raise InvalidRequest(f"the model has no matrix {path}", where=name, remedy="It is of another model.")
            inputs, outputs = _base(matrices[path]).sizes
            if down.shape[0] != inputs or up.shape[1] != outputs or down.shape[1] != up.shape[0]:
                raise InvalidRequest(
                    f"{path} is {inputs} x {outputs}, its factors are {down.shape} and {up.shape}",
                    where=name,
                    remedy="It is of another model.",
                )
            if down.shape[1] > self.rank:
                raise InvalidRequest(
                    f"rank {down.shape[1]} of {path} is above {self.rank}",
                    where=name,
                    remedy=f"Start the server with --adapter-rank {down.shape[1]}.",
                )
        self._loaded[name] = free[0], factors

    def unload(self, name: str) -> None:
        """Frees an adapter's place.

        Raises:
            NotFound: there is none of that name.
        """
        if self._loaded.pop(name, None) is None:
            raise NotFound(
                f"no adapter {name!r} is loaded", where="lora_name", remedy=f"Loaded: {sorted(self._loaded)}."
            )

    def attached(self, params: Tree) -> Tree:
        """Returns the parameters with the loaded adapters beside each matrix, in place of any from before."""

        def attach(path: str, weight: Any) -> Any:
            base = _base(weight)
            inputs, outputs = base.sizes
            down = np.zeros((self.places, self.rank, inputs), np.float32)
            up = np.zeros((outputs, self.places, self.rank), np.float32)
            for number, factors in self._loaded.values():
                if path in factors:
                    first, second = factors[path]
                    down[number - 1, : first.shape[1]] = first.T
                    up[:, number - 1, : second.shape[0]] = second.T
            return Adapted(
                base=base,
                down=jnp.asarray(down.reshape(-1, inputs), base.dtype),
                up=jnp.asarray(up.reshape(outputs, -1), base.dtype),
                chosen=jnp.zeros((1, self.places * self.rank)),
                rank=self.rank,
            )

        return _map_matrices(attach, params)

    @staticmethod
    def chosen(params: Tree, adapters: Int[Array, " T"]) -> Tree:
        """Returns the parameters with each token's adapter chosen; those without adapters as they are."""

        def choose(weight: Any) -> Any:
            if not isinstance(weight, Adapted):
                return weight
            return weight.choosing(adapters)

        return jax.tree.map(choose, params, is_leaf=lambda x: isinstance(x, Adapted))


def _base(weight: Any) -> Turned | Packed | PackedGroups:
    return weight.base if isinstance(weight, Adapted) else weight


def _is_matrix(leaf: Any) -> bool:
    return isinstance(leaf, Turned | Packed | PackedGroups | Adapted)


def _matrices(params: Tree) -> Iterator[tuple[str, Any]]:
    return ((path, leaf) for path, leaf in by_layer(params, _is_matrix) if _is_adaptable(path, leaf))


def _is_adaptable(path: str, leaf: Any) -> bool:
    """Whether a leaf is a matrix of a layer: a table of embeddings may be packed too."""
    return _is_matrix(leaf) and path.partition(".")[0].isdigit()


def _map_matrices(function: Callable[[str, Any], Any], params: Tree) -> Tree:
    leaves = [
        function(path, leaf) if _is_adaptable(path, leaf) else leaf for path, leaf in by_layer(params, _is_matrix)
    ]
    return jax.tree.unflatten(jax.tree.structure(params, is_leaf=_is_matrix), leaves)
