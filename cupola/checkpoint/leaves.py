"""Between a tree of state and what is stored: named arrays, and numbers that stand in the manifest.

Leaves are jax arrays, typed random keys, numpy arrays, or Python numbers; None is no leaf.
Invariant: what `taken` returns shares no host memory with the tree, so once arrays on other devices
have been brought to the host too, the tree's buffers may be donated or overwritten.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from cupola.checkpoint.manifest import Leaf
from cupola.core.errors import CheckpointError
from cupola.core.module import path_text

Tree = Any
"""Nested containers whose leaves may be saved."""

NUMBERS = (bool, int, float)
ROOT = "state"
"""The path of a tree that is one leaf."""


def flat(tree: Tree) -> list[tuple[str, Any]]:
    """Returns (path, leaf) in the order of the tree.

    Raises:
        CheckpointError: two leaves have the same path.
    """
    leaves = [(path_text(keys) or ROOT, leaf) for keys, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]]
    seen: set[str] = set()
    for path, _ in leaves:
        if path in seen:
            raise CheckpointError("two leaves have this path", where=path, remedy="Use names without dots.")
        seen.add(path)
    return leaves


def taken(tree: Tree) -> tuple[tuple[Leaf, ...], dict[str, Any]]:
    """Returns a description of every leaf, and the arrays that have elements.

    Arrays in host memory are copied, because numpy's view of them would show what is written there
    next; those of other devices are copied on their way to the host.

    Raises:
        CheckpointError: a leaf that cannot be saved.
    """
    leaves, arrays = [], {}
    for path, held in flat(tree):
        leaf = described(path, held)
        leaves.append(leaf)
        if leaf.value is None and 0 not in leaf.shape:
            arrays[path] = jax.random.key_data(held) if leaf.key else held
    on_host = {path: array for path, array in arrays.items() if isinstance(array, jax.Array) and _is_on_host(array)}
    copies = jax.device_put(on_host, {path: a.sharding for path, a in on_host.items()}, may_alias=False)
    copies |= {path: np.array(a) for path, a in arrays.items() if not isinstance(a, jax.Array)}
    return tuple(leaves), arrays | jax.block_until_ready(copies)


def described(path: str, held: Any) -> Leaf:
    """Returns what the manifest says of a leaf; `held` may be a jax.ShapeDtypeStruct.

    Raises:
        CheckpointError: it is nothing that can be saved.
    """
    if type(held) in NUMBERS:
        return Leaf(path=path, shape=(), dtype=type(held).__name__, value=held)
    if not isinstance(held, jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct) or held.dtype == object:
        raise CheckpointError(
            f"a {type(held).__name__} cannot be saved as a leaf",
            where=path,
            remedy="Leaves are arrays, random keys and numbers; give text and settings as `extra`.",
        )
    key = str(jax.random.key_impl(held)) if is_key(held) and isinstance(held, jax.Array) else ""
    return Leaf(path=path, shape=tuple(held.shape), dtype=str(held.dtype), key=key)


def is_key(held: Any) -> bool:
    """Returns whether an array, or the shape and dtype of one, holds typed random keys."""
    return jnp.issubdtype(held.dtype, jax.dtypes.prng_key)


def target(like: Any) -> Any:
    """Returns what is to be read for one leaf: a struct with the sharding, or a numpy array to fill.

    Without a sharding the leaf is read as numpy, so that it stays free to follow other arrays to
    their devices.
    """
    sharding = like.sharding if isinstance(like, jax.ShapeDtypeStruct) else None
    if isinstance(like, jax.Array) and like.committed:
        sharding = like.sharding
    data = jax.ShapeDtypeStruct(like.shape, like.dtype)
    if is_key(like):
        data = jax.eval_shape(jax.random.key_data, data)
        sharding = _of_key_data(sharding)
    if sharding is None:
        return np.empty(data.shape, data.dtype)
    return jax.ShapeDtypeStruct(data.shape, data.dtype, sharding=sharding)


def rebuilt(leaf: Leaf, like: Any, array: Any) -> Any:
    """Returns one leaf in the form of `like`, from the array that was read for it.

    Raises:
        CheckpointError: 64-bit numbers are asked for as a jax array that cannot hold them.
    """
    if leaf.value is not None:
        return leaf.value
    if isinstance(like, np.ndarray | np.generic):
        return array
    held = array if isinstance(array, jax.Array) else jnp.array(array)
    if held.dtype != array.dtype:
        raise CheckpointError(
            f"{array.dtype} does not fit a jax array while 64-bit numbers are off",
            where=leaf.path,
            remedy='Put a numpy array there in `like`, or call jax.config.update("jax_enable_x64", True).',
        )
    return jax.random.wrap_key_data(held, impl=leaf.key) if leaf.key else held


def _is_on_host(array: jax.Array) -> bool:
    devices: set[Any] = array.sharding.device_set
    return any(device.platform == "cpu" for device in devices) or "host" in (array.sharding.memory_kind or "")


def _of_key_data(sharding: Any) -> Any:
    """The data of a key has trailing dims; a partition spec leaves them whole, other shardings do not know them."""
    if isinstance(sharding, NamedSharding):
        return NamedSharding(sharding.mesh, PartitionSpec(*sharding.spec), memory_kind=sharding.memory_kind)
    return sharding
