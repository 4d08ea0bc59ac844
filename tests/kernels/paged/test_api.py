"""Attention over pages: the numbers of plain attention, and the same bits however it is asked."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cupola.core.dtype import BFLOAT16, FLOAT32
from cupola.core.errors import ShapeError, Unsupported
from cupola.kernels.attention import CAUSAL, Mask
from cupola.kernels.paged import paged_attend, stored_dtype, write_pages, write_tokens
from cupola.kernels.paged.stored import load, store

HEADS, GROUPS, WIDTH, SIZE, PAGES = 6, 2, 16, 8, 200
WINDOW = Mask(causal=True, window=37)


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng([seed, *shape]).normal(size=shape), jnp.float32)


@pytest.fixture(scope="module", params=[FLOAT32, BFLOAT16], ids=["float32", "bf16"])
def pool(request):
    dtype = stored_dtype(request.param)
    numbers = normal(PAGES, GROUPS, WIDTH, SIZE), normal(PAGES, GROUPS, SIZE, WIDTH, seed=1)
    return tuple(store(x, dtype) for x in numbers)


def table_of(rows, seed=0):
    """Different pages for each row, in no order."""
    return jnp.asarray(np.random.default_rng(seed).permutation(np.arange(1, PAGES))[: rows * 48].reshape(rows, 48))


def exact(query, keys, values, table, start, mask):
    """The equation, key by key, in float64."""
    out = np.zeros(query.shape)
    for b, t, h in np.ndindex(query.shape[:3]):
        at, group = int(start[b]) + t, h // (HEADS // GROUPS)
        first = 0 if mask.window is None else max(0, at - mask.window + 1)
        places = [(int(table[b, s // SIZE]), s % SIZE) for s in range(first, at + 1)]
        key = np.asarray([keys[p, group, :, z] for p, z in places], np.float64)
        value = np.asarray([values[p, group, z] for p, z in places], np.float64)
        scores = key @ np.asarray(query[b, t, h], np.float64) / np.sqrt(WIDTH)
        weights = np.exp(scores - scores.max())
        out[b, t, h] = weights @ value / weights.sum()
    return out


@pytest.mark.parametrize("mask", [CAUSAL, WINDOW], ids=["causal", "window"])
@pytest.mark.parametrize("implementation", ["cpu", "xla", "reference"])
@pytest.mark.parametrize(("queries", "start"), [(1, (0, 5, 300, 127)), (5, (128, 3, 0, 260)), (16, (240, 0, 16, 120))])
def test_matches_the_equation(pool, mask, implementation, queries, start):
    query, table, start = normal(4, queries, HEADS, WIDTH), table_of(4), jnp.asarray(start)
    got = paged_attend(query, *pool, table, start, mask=mask, implementation=implementation)
    assert np.allclose(got, exact(query, *map(np.asarray, map(load, pool)), table, start, mask), atol=2e-6)


@pytest.mark.parametrize("mask", [CAUSAL, WINDOW], ids=["causal", "window"])
def test_a_query_gives_the_same_bits_however_it_comes(pool, mask):
    attend = jax.jit(lambda *x: paged_attend(*x, mask=mask))
    query, table = normal(1, 48, HEADS, WIDTH), table_of(4)
    whole = np.asarray(attend(query, *pool, table[:1], jnp.asarray([64])))
    for at in (0, 1, 17, 47):
        alone = attend(query[:, at : at + 1], *pool, table[:1], jnp.asarray([64 + at]))
        others = jnp.concatenate([normal(3, 1, HEADS, WIDTH), query[:, at : at + 1]])
        beside = attend(others, *pool, table[jnp.asarray([3, 1, 2, 0])], jnp.asarray([350, 0, 7, 64 + at]))
        assert np.array_equal(alone[0, 0], whole[0, at])
        assert np.array_equal(beside[3, 0], whole[0, at])
    for width in (4, 16):
        parts = [attend(query[:, i : i + width], *pool, table[:1], jnp.asarray([64 + i])) for i in range(0, 48, width)]
        assert np.array_equal(np.concatenate(parts, 1), whole)


def test_what_stands_in_other_pages_is_never_read(pool):
    keys, values = pool
    query, table, start = normal(1, 4, HEADS, WIDTH), table_of(1), jnp.asarray([21])
    clean = paged_attend(query, keys, values, table, start, mask=CAUSAL)
    own = np.isin(np.arange(PAGES), np.asarray(table[0, :4]))
    dirty = [jnp.where(own[:, None, None, None], x, store(jnp.float32(1e30), x.dtype)) for x in pool]
    assert np.array_equal(paged_attend(query, *dirty, table, start, mask=CAUSAL), clean)


@pytest.mark.parametrize("write", [write_tokens, write_pages])
def test_writing_puts_each_token_in_its_place(pool, write):
    table, start = table_of(2), jnp.asarray([16, 0])
    key, value = normal(2, 16, GROUPS, WIDTH), normal(2, 16, GROUPS, WIDTH, seed=1)
    keys, values = write(*pool, key, value, table, start)
    key, value = (store(x, keys.dtype) for x in (key, value))
    touched = set()
    for b, t in np.ndindex(2, 16):
        page, place = int(table[b, (int(start[b]) + t) // SIZE]), (int(start[b]) + t) % SIZE
        assert np.array_equal(keys[page, :, :, place], key[b, t])
        assert np.array_equal(values[page, :, place], value[b, t])
        touched.add(page)
    kept = [page for page in range(PAGES) if page not in touched]
    assert np.array_equal(keys[np.asarray(kept)], pool[0][np.asarray(kept)])


def test_tokens_may_begin_anywhere(pool):
    table, start = table_of(1), jnp.asarray([13])
    key = normal(1, 5, GROUPS, WIDTH)
    keys, _ = write_tokens(*pool, key, key, table, start)
    key = store(key, keys.dtype)
    assert np.array_equal(keys[table[0, 1], :, :, 5], key[0, 0])
    assert np.array_equal(keys[table[0, 2], :, :, 1], key[0, 4])


@pytest.mark.parametrize("mask", [Mask(), CAUSAL.starting(jnp.zeros(1, jnp.int32))], ids=["all", "start"])
def test_masks_that_pages_cannot_honour_are_refused(pool, mask):
    with pytest.raises(Unsupported, match="causal|start"):
        paged_attend(normal(1, 1, HEADS, WIDTH), *pool, table_of(1), jnp.asarray([0]), mask=mask)


def test_heads_that_do_not_share_evenly_are_refused(pool):
    with pytest.raises(ShapeError, match="divides 5"):
        paged_attend(normal(1, 1, 5, WIDTH), *pool, table_of(1), jnp.asarray([0]), mask=CAUSAL)
