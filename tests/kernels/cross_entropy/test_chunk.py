import jax.numpy as jnp
import numpy as np
import pytest

from cupola.kernels.cross_entropy.chunk import (
    BLOCK_CLASSES,
    CACHED_TOKENS,
    CHUNK_TOKENS,
    LEAST_CLASSES,
    add_block,
    block_count,
    block_of,
    chunk_tokens,
    chunks,
    local,
    whole,
)


@pytest.mark.parametrize("vocabulary", [1, 2, 511, 4096, 4097, 8190, 8192, 32_000, 50_257, 65_537, 128_256, 131_072])
def test_blocks_divide_a_vocabulary_or_are_the_whole(vocabulary):
    count = block_count(vocabulary)
    assert vocabulary % count == 0
    assert count == 1 or LEAST_CLASSES <= vocabulary // count <= BLOCK_CLASSES
    assert (count > 1) == (vocabulary not in (1, 2, 511, 4096, 4097, 8190, 8192, 65_537))


@pytest.mark.parametrize("rows", [1, 127, 128, 512, 513, 1024, 100_000])
def test_a_chunk_is_never_more_than_its_most(rows):
    assert 0 < chunk_tokens(rows, 1) <= chunk_tokens(rows, 2) <= CHUNK_TOKENS
    assert chunk_tokens(rows, 1) <= CACHED_TOKENS


@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (3, 127), (300, 2), (2, 5, 3)])
def test_chunks_are_undone(shape):
    x = jnp.arange(np.prod(shape)).reshape(shape)
    assert all((whole(chunks(x, blocks), *shape[:2]) == x).all() for blocks in (1, 2))


def test_each_class_is_in_one_block():
    matrix = jnp.arange(12.0).reshape(6, 2)
    rows = [block_of(matrix, 3, jnp.asarray(i)) for i in range(3)]
    assert [r[:, 0].tolist() for r in rows] == [[0, 6], [2, 8], [4, 10]]
    added = add_block(matrix, 3, jnp.asarray(1), jnp.ones((2, 2)))
    assert (added - matrix).sum(1).tolist() == [0, 2, 0, 0, 2, 0]
    assert [local(jnp.asarray([4, 1, 5]), 3, jnp.asarray(i)).tolist() for i in range(3)] == [
        [-1, -1, -1],
        [1, 0, -1],
        [-1, -1, 1],
    ]
