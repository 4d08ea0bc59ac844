"""Attention over pages: the numbers of plain attention, and the same bits however it is asked."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from paged_cases import SHAPES, WINDOW, complaints, normal, standard

from cupola.core.dtype import BFLOAT16, FLOAT32
from cupola.core.errors import ShapeError, Unsupported
from cupola.kernels.attention import CAUSAL, Mask
from cupola.kernels.native.level import Level
from cupola.kernels.native.library import reasons
from cupola.kernels.paged import paged_attend, stored_dtype, write_pages, write_tokens
from cupola.kernels.paged.api import PAGED_ATTEND
from cupola.kernels.paged.stored import store

HEADS, GROUPS, WIDTH, SIZE, PAGES = 6, 2, 16, 8, 200
ALL = [*(f"cpu/{level.value}" for level in Level), "xla", "reference"]
EXACT = ALL[:-1]
"""Those that the server may choose: a query's bits are its own."""


def runnable(name):
    """Returns the name, or skips the test with the reason why that level cannot be called here."""
    found = [level for level in Level if name == f"cpu/{level.value}"]
    if found and reasons(found[0]):
        pytest.skip(reasons(found[0])[0])
    return name


@pytest.fixture(scope="module", params=[FLOAT32, BFLOAT16], ids=["float32", "bf16"])
def pool(request):
    dtype = stored_dtype(request.param)
    numbers = normal(PAGES, GROUPS, WIDTH, SIZE), normal(PAGES, GROUPS, SIZE, WIDTH, seed=1)
    return tuple(store(x, dtype) for x in numbers)


def table_of(rows, seed=0):
    """Different pages for each row, in no order."""
    return jnp.asarray(np.random.default_rng(seed).permutation(np.arange(1, PAGES))[: rows * 48].reshape(rows, 48))


@pytest.fixture(scope="module")
def expected(pool):
    """Returns the standard of some queries of the pool, once for all implementations."""
    return cache(lambda queries, start, mask: standard(asked(queries), *pool, table_of(4), jnp.asarray(start), mask))


def asked(queries):
    return normal(4, queries, HEADS, WIDTH)


@pytest.mark.parametrize("mask", [CAUSAL, WINDOW], ids=["causal", "window"])
@pytest.mark.parametrize("implementation", ALL)
@pytest.mark.parametrize(("queries", "start"), [(1, (0, 5, 300, 127)), (5, (128, 3, 0, 260)), (16, (240, 0, 16, 120))])
def test_matches_the_equation(pool, expected, mask, implementation, queries, start):
    how = {"mask": mask, "implementation": runnable(implementation)}
    got = paged_attend(asked(queries), *pool, table_of(4), jnp.asarray(start), **how)
    true, allowed = expected(queries, start, mask)
    assert np.abs(np.asarray(got, np.float64) - true).max() <= allowed


@pytest.mark.parametrize("mask", [CAUSAL, WINDOW], ids=["causal", "window"])
@pytest.mark.parametrize("implementation", EXACT)
def test_a_query_gives_the_same_bits_however_it_comes(pool, mask, implementation):
    attend = jax.jit(partial(paged_attend, mask=mask, implementation=runnable(implementation)))
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


@pytest.mark.parametrize("implementation", EXACT)
def test_what_stands_in_other_pages_is_never_read(pool, implementation):
    keys, values = pool
    attend = partial(paged_attend, mask=CAUSAL, implementation=runnable(implementation))
    query, table, start = normal(1, 4, HEADS, WIDTH), table_of(1), jnp.asarray([21])
    clean = attend(query, keys, values, table, start)
    own = np.isin(np.arange(PAGES), np.asarray(table[0, :4]))
    dirty = [jnp.where(own[:, None, None, None], x, store(jnp.float32(1e30), x.dtype)) for x in pool]
    assert np.array_equal(attend(query, *dirty, table, start), clean)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("asked", [jnp.float32, jnp.bfloat16], ids=["float32 queries", "bf16 queries"])
@pytest.mark.parametrize("implementation", ALL[:4])
def test_any_shape_is_as_exact_as_the_plain_formula(shape, asked, implementation):
    found = [i for i in PAGED_ATTEND.implementations if i.name == runnable(implementation)]
    assert [complaints(shape, asked, i.function) for i in found] == [[]]


def rounded(x):
    return x.astype(jnp.bfloat16).astype(x.dtype)


BROKEN = {
    "the window is ignored": lambda q, k, v, table, start, mask, scale: (q, k, v, table, start, CAUSAL, scale),
    "the window is one less": lambda *given: (*given[:5], Mask(causal=True, window=WINDOW.window - 1), given[6]),
    "a query sees the next key": lambda q, k, v, table, start, *rest: (q, k, v, table, start + 1, *rest),
    "a query does not see its own key": lambda q, k, v, table, start, *rest: (q, k, v, table, start - 1, *rest),
    "all sequences start alike": lambda *given: (*given[:4], jnp.full_like(given[4], given[4].min()), *given[5:]),
    "pages of another sequence": lambda q, k, v, table, *rest: (q, k, v, table[::-1], *rest),
    "pages in another order": lambda q, k, v, table, *rest: (q, k, v, table[:, ::-1], *rest),
    "another key head": lambda q, k, v, *rest: (q, k[:, ::-1], v[:, ::-1], *rest),
    "the scale is ignored": lambda *given: (*given[:6], 1.0),
    "bf16 where float32 was asked": lambda q, *rest: (rounded(q), *rest),
}
"""By what is wrong: what is given instead of what was asked."""


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_one_is_caught(broken):
    runnable(ALL[0])
    assert complaints("typical", jnp.float32, lambda *given: PAGED_ATTEND("cpu", *BROKEN[broken](*given)))


@pytest.mark.parametrize("implementation", EXACT)
def test_pages_that_do_not_exist_are_not_read(pool, implementation):
    attend = partial(paged_attend, mask=CAUSAL, implementation=runnable(implementation))
    query, table = normal(2, 3, HEADS, WIDTH), table_of(2)
    wild = table.at[:, 4:].set(jnp.asarray([10**9, -5])[:, None])
    start = jnp.asarray([20, 3])
    assert np.array_equal(attend(query, *pool, wild, start), attend(query, *pool, table, start))


@pytest.mark.parametrize("implementation", ALL[:4])
def test_nothing_is_hidden_of_numbers_that_are_none(pool, implementation):
    attend = partial(paged_attend, mask=CAUSAL, implementation=runnable(implementation))
    query = normal(1, 3, HEADS, WIDTH).at[0, 1, 2, 3].set(np.nan)
    out = np.asarray(attend(query, *pool, table_of(1), jnp.asarray([70])))
    assert np.isnan(out[0, 1, 2]).all()
    assert np.isfinite(np.delete(out.reshape(-1, WIDTH), HEADS + 2, 0)).all()


@pytest.mark.parametrize("implementation", ALL[:4])
def test_vmap_is_the_same_as_one_after_another(pool, implementation):
    attend = partial(paged_attend, mask=CAUSAL, implementation=runnable(implementation))
    query, table, start = normal(3, 2, 4, HEADS, WIDTH), table_of(2), jnp.asarray([100, 7])
    mapped = jax.jit(jax.vmap(lambda q: attend(q, *pool, table, start)))(query)
    assert np.array_equal(mapped, jnp.stack([attend(q, *pool, table, start) for q in query]))


def test_dtypes_that_native_code_does_not_take_are_refused(pool):
    runnable(ALL[0])
    query = normal(1, 1, HEADS, WIDTH).astype(jnp.float16)
    with pytest.raises(Unsupported, match="float16"):
        paged_attend(query, *pool, table_of(1), jnp.asarray([0]), mask=CAUSAL, implementation="cpu")


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
