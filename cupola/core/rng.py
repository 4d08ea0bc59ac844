"""Named random streams: a key for a name, so that adding a layer never changes another's numbers.

Invariant: a stream depends on the root key and the names on the way to it, on nothing else.
"""

import zlib

import jax
from jaxtyping import Array, Key


def stream(key: Key[Array, ""], name: str) -> Key[Array, ""]:
    """Returns the key of the stream `name` under `key`; names may hold dots."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()))
