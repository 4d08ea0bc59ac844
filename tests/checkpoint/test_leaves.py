"""What is taken from a tree shares no memory with it."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from cupola.checkpoint.leaves import taken


def places(array):
    if isinstance(array, np.ndarray):
        return {array.ctypes.data}
    return {shard.data.unsafe_buffer_pointer() for shard in array.addressable_shards}


def test_copies_share_no_memory_and_keep_their_layout(key):
    split = NamedSharding(jax.make_mesh((8,), ("x",)), PartitionSpec("x"))
    tree = {
        "whole": jax.random.normal(key, (64,)),
        "split": jax.device_put(jnp.arange(64), split),
        "third": jax.device_put(jnp.ones(3, jnp.bfloat16), jax.devices()[3]),
        "host": np.arange(5),
    }
    leaves, arrays = taken(tree)
    assert [leaf.path for leaf in leaves] == sorted(tree) == sorted(arrays)
    for path, array in tree.items():
        assert not places(array) & places(arrays[path])
        assert places(array) & places(array), "the measure finds memory that is shared"
        assert type(array) is type(arrays[path])
        assert np.array_equal(np.asarray(array), np.asarray(arrays[path]))
    assert arrays["split"].sharding == split
    assert arrays["third"].devices() == {jax.devices()[3]}
