"""How a batch and a vocabulary are cut, so that their logits are never whole in memory.

Positions are cut into chunks along T, the vocabulary into blocks of every so-many-th token: a batch
split over devices has its share in every chunk, and a vocabulary that is split has it in every block.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

CHUNK_TOKENS = 512
"""Positions whose logits are held at once, over the whole batch, at most."""
CACHED_TOKENS = 256
"""The same where the vocabulary is one block: its logits are then still in the cache when they are used again."""
LEAST_TOKENS = 128
"""Fewer are no faster to multiply, and read the head more often."""
SHARE = 4
"""A batch of few positions is cut into this many chunks: else one chunk would be the whole."""
BLOCK_CLASSES = 8192
"""Classes whose logits are one block, at most: one block needs no copies, and many hold little beside the logits."""
LEAST_CLASSES = 512
"""Of a block; a vocabulary that no number divides into such blocks is one block."""


def chunk_tokens(rows: int, blocks: int) -> int:
    """Returns how many of so many positions are a chunk, where the vocabulary is so many blocks."""
    most = CACHED_TOKENS if blocks == 1 else CHUNK_TOKENS
    return min(most, max(LEAST_TOKENS, -(-rows // SHARE)))


def block_count(vocabulary: int) -> int:
    """Returns into how many blocks a vocabulary is cut."""
    for count in range(-(-vocabulary // BLOCK_CLASSES), vocabulary // LEAST_CLASSES + 1):
        if count and vocabulary % count == 0:
            return count
    return 1


def block_of(matrix: Float[Array, "V ..."], blocks: int, index: jax.Array) -> Float[Array, "U ..."]:
    """Returns the rows index, index + blocks, index + 2 blocks, ..."""
    if blocks == 1:
        return matrix
    cut = matrix.reshape(matrix.shape[0] // blocks, blocks, *matrix.shape[1:])
    return jax.lax.dynamic_index_in_dim(cut, index, 1, keepdims=False)


def add_block(
    matrix: Float[Array, "V D"], blocks: int, index: jax.Array, added: Float[Array, "U D"]
) -> Float[Array, "V D"]:
    """Returns the matrix with something added to the rows that `block_of` returns, in place where it can."""
    if blocks == 1:
        return matrix + added
    cut = matrix.reshape(-1, blocks, matrix.shape[1])
    old = jax.lax.dynamic_index_in_dim(cut, index, 1)
    return jax.lax.dynamic_update_index_in_dim(cut, old + added[:, None], index, 1).reshape(matrix.shape)


def local(targets: jax.Array, blocks: int, index: jax.Array) -> jax.Array:
    """Returns the row of each target in a block, -1 where it is in another one."""
    return jnp.where(targets % blocks == index, targets // blocks, -1).astype(jnp.int32)


def chunks(x: jax.Array, blocks: int) -> jax.Array:
    """Cuts [B, T, ...] along T into [chunks, B * T / chunks, ...], padded with zeros at the end.

    Args:
        blocks: into which the vocabulary is cut: the chunks are the longer for many.
    """
    batch, length = x.shape[:2]
    width = max(1, min(length, chunk_tokens(batch * length, blocks) // max(1, batch)))
    count = -(-length // width)
    padded = jnp.pad(x, ((0, 0), (0, count * width - length), *((0, 0),) * (x.ndim - 2)))
    cut = jnp.moveaxis(padded.reshape(batch, count, width, *x.shape[2:]), 1, 0)
    return cut.reshape(count, batch * width, *x.shape[2:])


def whole(cut: jax.Array, batch: int, length: int) -> jax.Array:
    """Undoes `chunks`."""
    if not batch * length:
        return jnp.zeros((batch, length, *cut.shape[2:]), cut.dtype)
    count, rows = cut.shape[:2]
    apart = jnp.moveaxis(cut.reshape(count, batch, rows // batch, *cut.shape[2:]), 0, 1)
    return apart.reshape(batch, count * rows // batch, *cut.shape[2:])[:, :length]
