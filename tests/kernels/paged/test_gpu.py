"""Attention over pages on a GPU, interpreted: the numbers of plain attention, a query's bits its own."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cupola.core.dtype import BFLOAT16, FLOAT32
from cupola.kernels.attention import CAUSAL, Mask
from cupola.kernels.gpu import interpreted
from cupola.kernels.paged import gpu, paged_attend, stored_dtype
from cupola.kernels.paged.stored import load, store

PAGES, GROUPS, WIDTH, SIZE, EACH = 70, 2, 24, 7, 30
WINDOW = Mask(causal=True, window=11)
START = jnp.asarray([0, 190])


@cache
def pool(precision):
    rng, dtype = np.random.default_rng(0), stored_dtype(precision)
    shapes = (PAGES, GROUPS, WIDTH, SIZE), (PAGES, GROUPS, SIZE, WIDTH)
    table = jnp.asarray(rng.permutation(PAGES)[: 2 * EACH].reshape(2, EACH), jnp.int32)
    query = jnp.asarray(rng.normal(size=(2, 5, 6, WIDTH)), jnp.float32)
    return query, *(store(jnp.asarray(rng.normal(size=s), jnp.float32), dtype) for s in shapes), table


def call(mask, implementation):
    """Returns the compiled operation."""
    return jax.jit(lambda *arrays: paged_attend(*arrays, mask=mask, implementation=implementation))


def equation(query, keys, values, table, start, mask):
    """Key by key, in float64."""
    keys, values = (np.asarray(load(x), np.float64) for x in (keys, values))
    out = np.zeros(query.shape)
    for b, t, h in np.ndindex(query.shape[:3]):
        at, group = int(start[b]) + t, h * GROUPS // query.shape[2]
        first = 0 if mask.window is None else max(0, at - mask.window + 1)
        places = [(int(table[b, s // SIZE]), s % SIZE) for s in range(first, at + 1)]
        key, value = (
            np.asarray(x) for x in zip(*((keys[p, group, :, z], values[p, group, z]) for p, z in places), strict=True)
        )
        scores = key @ np.asarray(query[b, t, h], np.float64) / np.sqrt(WIDTH)
        weights = np.exp(scores - scores.max())
        out[b, t, h] = weights @ value / weights.sum()
    return out


@pytest.mark.parametrize("mask", [CAUSAL, WINDOW], ids=["causal", "window"])
@pytest.mark.parametrize(
    "precision", [pytest.param(FLOAT32, marks=pytest.mark.slow), BFLOAT16], ids=["float32", "bf16"]
)
def test_matches_the_equation_over_splits(precision, mask, monkeypatch):
    monkeypatch.setattr(gpu, "SPLIT_TOKENS", 64)
    arrays = *pool(precision), START
    exact = equation(*arrays, mask)
    with interpreted():
        ours = np.abs(call(mask, "gpu")(*arrays) - exact).max()
    plain = np.abs(call(mask, "reference")(*arrays) - exact).max()
    assert ours <= 2 * plain + np.finfo(np.float32).eps * np.abs(exact).max()


def test_a_querys_bits_are_its_own():
    query, keys, values, table = pool(BFLOAT16)
    with interpreted():
        run = call(CAUSAL, "gpu")
        together = run(query, keys, values, table, START)
        alone = run(query[1:, 4:], keys, values, table[1:], START[1:] + 4)
    np.testing.assert_array_equal(together[1, 4], alone[0, 0])
