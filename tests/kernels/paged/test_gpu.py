"""Attention over pages on a GPU, interpreted: the numbers of plain attention, a query's bits its own."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from paged_cases import standard

from cupola.core.dtype import BFLOAT16, FLOAT32
from cupola.kernels.attention import CAUSAL, Mask
from cupola.kernels.gpu import interpreted
from cupola.kernels.paged import gpu, paged_attend, stored_dtype
from cupola.kernels.paged.stored import store

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


@pytest.mark.parametrize("mask", [CAUSAL, WINDOW], ids=["causal", "window"])
@pytest.mark.parametrize(
    "precision", [pytest.param(FLOAT32, marks=pytest.mark.slow), BFLOAT16], ids=["float32", "bf16"]
)
def test_matches_the_equation_over_splits(precision, mask, monkeypatch):
    monkeypatch.setattr(gpu, "SPLIT_TOKENS", 64)
    arrays = *pool(precision), START
    true, allowed = standard(*arrays, mask)
    with interpreted():
        assert np.abs(call(mask, "gpu")(*arrays) - true).max() <= allowed


def test_a_querys_bits_are_its_own():
    query, keys, values, table = pool(BFLOAT16)
    with interpreted():
        run = call(CAUSAL, "gpu")
        together = run(query, keys, values, table, START)
        alone = run(query[1:, 4:], keys, values, table[1:], START[1:] + 4)
    np.testing.assert_array_equal(together[1, 4], alone[0, 0])
