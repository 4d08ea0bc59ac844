"""Attention over pages: the numbers of plain attention, and the same bits however it is asked."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from judge import DRAWS, SLACK

from cupola.core.dtype import BFLOAT16, FLOAT32
from cupola.core.errors import ShapeError, Unsupported
from cupola.kernels.attention import CAUSAL, Mask
from cupola.kernels.native.level import Level
from cupola.kernels.native.library import reasons
from cupola.kernels.paged import paged_attend, stored_dtype, write_pages, write_tokens
from cupola.kernels.paged.stored import load, store

HEADS, GROUPS, WIDTH, SIZE, PAGES = 6, 2, 16, 8, 200
WINDOW = Mask(causal=True, window=37)
ALL = [*(f"cpu/{level.value}" for level in Level), "xla", "reference"]
EXACT = ALL[:-1]
"""Those that the server may choose: a query's bits are its own."""


def runnable(name):
    """Returns the name, or skips the test with the reason why that level cannot be called here."""
    found = [level for level in Level if name == f"cpu/{level.value}"]
    if found and reasons(found[0]):
        pytest.skip(reasons(found[0])[0])
    return name


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


@pytest.fixture(scope="module")
def expected(pool):
    """Returns what the equation gives for the pool, once for all implementations."""
    pages = [np.asarray(load(x)) for x in pool]
    return cache(lambda queries, start, mask: equation(asked(queries), *pages, table_of(4), start, mask))


def asked(queries):
    return normal(4, queries, HEADS, WIDTH)


def equation(query, keys, values, table, start, mask):
    """Key by key, in float64."""
    out, size = np.zeros(query.shape), keys.shape[3]
    for b, t, h in np.ndindex(query.shape[:3]):
        at, group = int(start[b]) + t, h // (query.shape[2] // keys.shape[1])
        first = 0 if mask.window is None else max(0, at - mask.window + 1)
        places = [(int(table[b, s // size]), s % size) for s in range(first, at + 1)]
        key = np.asarray([keys[p, group, :, z] for p, z in places], np.float64)
        value = np.asarray([values[p, group, z] for p, z in places], np.float64)
        scores = key @ np.asarray(query[b, t, h], np.float64) / np.sqrt(query.shape[3])
        weights = np.exp(scores - scores.max())
        out[b, t, h] = weights @ value / weights.sum()
    return out


@pytest.mark.parametrize("mask", [CAUSAL, WINDOW], ids=["causal", "window"])
@pytest.mark.parametrize("implementation", ALL)
@pytest.mark.parametrize(("queries", "start"), [(1, (0, 5, 300, 127)), (5, (128, 3, 0, 260)), (16, (240, 0, 16, 120))])
def test_matches_the_equation(pool, expected, mask, implementation, queries, start):
    how = {"mask": mask, "implementation": runnable(implementation)}
    got = paged_attend(asked(queries), *pool, table_of(4), jnp.asarray(start), **how)
    assert np.allclose(got, expected(queries, start, mask), atol=2e-6)


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


SHAPES = {
    "typical": (2, 7, (9, 3), 64, 16, 45),
    "one number": (1, 1, (1, 1), 1, 1, 0),
    "odd sizes": (3, 5, (5, 5), 7, 3, 130),
    "one key head, wide, pages longer than a block": (2, 3, (4, 1), 130, 160, 301),
    "odd width, whole pages": (1, 37, (6, 2), 35, 16, 91),
    "many queries": (1, 150, (3, 1), 8, 4, 70),
    "no sequence": (0, 4, (2, 1), 8, 4, 0),
    "no query": (2, 0, (2, 1), 8, 4, 0),
}


@cache
def judged(shape, asked, precision):
    """Returns what is given, what comes out of it in float64, and how far from that one may be, as `judge.py` has it:
    twice what the plain formula errs by on some nearby inputs, and the last place of the largest number.
    """
    rows, queries, (heads, groups), width, size, start = SHAPES[shape]
    length = -(-(start + queries) // size) or 1
    starts = np.asarray([max(start - 11 * row, 0) for row in range(rows)], np.int32)
    table = np.random.default_rng(1).permutation(rows * length).reshape(rows, length).astype(np.int32)
    truths, errors = [], []
    for draw in range(DRAWS):
        one, two, three = 1 + np.random.default_rng(draw).uniform(-0.1, 0.1, 3) * bool(draw)
        query = (normal(rows, queries, heads, width) * one).astype(asked)
        numbers = normal(rows * length, groups, width, size) * two, normal(rows * length, groups, size, width) * three
        held = [store(x, stored_dtype(precision)) for x in numbers]
        plain = paged_attend(
            query.astype(jnp.float32),
            *held,
            jnp.asarray(table),
            jnp.asarray(starts),
            mask=WINDOW,
            implementation="reference",
        )
        with jax.enable_x64(True):
            wide = [np.asarray(load(x), np.float64) for x in held]
            true = equation(np.asarray(query, np.float64), *wide, table, starts, WINDOW)
        truths.append((query, held, true))
        errors.append(np.abs(np.asarray(plain, np.float64) - true).max(initial=0))
    query, held, true = truths[0]
    allowed = 2 * max(errors) + SLACK * float(jnp.finfo(asked).eps) * np.abs(true).max(initial=0)
    held, nothing = [np.array(x) for x in held], np.array(store(jnp.float32(np.nan), held[0].dtype))
    for row, place in np.ndindex(rows, length * size):
        if place >= starts[row] + queries:
            page = table[row, place // size]
            held[0][page, :, :, place % size] = held[1][page, :, place % size] = nothing
    return (query, *map(jnp.asarray, (*held, table, starts))), true, allowed


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("asked", [jnp.float32, jnp.bfloat16], ids=["float32 queries", "bf16 queries"])
@pytest.mark.parametrize("implementation", ALL[:4])
def test_any_shape_is_as_exact_as_the_plain_formula(shape, asked, implementation):
    """What stands past a sequence's end is NaN, and is not seen."""
    for precision in (FLOAT32, BFLOAT16):
        given, true, allowed = judged(shape, asked, precision)
        got = paged_attend(*given, mask=WINDOW, implementation=runnable(implementation))
        assert got.dtype == asked
        assert (np.abs(np.asarray(got, np.float64) - true) <= allowed).all()


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
