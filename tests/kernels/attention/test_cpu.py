import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cupola.core.dtype import BFLOAT16, FLOAT32, Precision
from cupola.core.errors import Unsupported
from cupola.kernels.attention import CAUSAL, Mask, attend
from cupola.kernels.native.level import Level
from cupola.kernels.native.library import reasons

LEVELS = [
    pytest.param(f"cpu/{level.value}", marks=pytest.mark.skipif(bool(why), reason="; ".join(why)))
    for level in Level
    for why in [reasons(level)]
]
native = pytest.mark.parametrize("level", LEVELS)


def normal(*shape, seed=0, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng([seed, *shape]).normal(size=shape), dtype)


def both(level, query, key, value, mask=CAUSAL, precision=FLOAT32):
    """Returns value and gradients."""
    out, back = jax.vjp(lambda *x: attend(*x, mask=mask, precision=precision, implementation=level), query, key, value)
    return out, *back(jnp.ones_like(out))


@native
def test_other_formats_are_refused_by_name(level):
    x = jnp.ones((1, 2, 1, 4), jnp.float16)
    with pytest.raises(Unsupported, match="query is float16, and it takes float32 and bfloat16"):
        attend(x, x, x, mask=CAUSAL, implementation=level)
    wide = Precision(accumulate=np.dtype("float64"), compute=np.dtype("float16"))
    with pytest.raises(Unsupported, match=r"precision.compute is float16.*it sums in float32"):
        attend(*[x.astype(jnp.float32)] * 3, mask=CAUSAL, precision=wide, implementation=level)


@native
@pytest.mark.parametrize(("batch", "queries", "keys"), [(0, 3, 3), (2, 0, 3), (2, 3, 0), (2, 0, 0)])
def test_what_is_empty_gives_zeros(level, batch, queries, keys):
    query, key = normal(batch, queries, 2, 4), normal(batch, keys, 1, 4)
    for result, like in zip(both(level, query, key, key, Mask()), (query, query, key, key), strict=True):
        assert result.shape == like.shape
        assert (result == 0).all()


@native
@pytest.mark.parametrize("precision", [FLOAT32, BFLOAT16], ids=["float32", "bfloat16"])
def test_a_head_alone_has_the_bits_that_it_has_among_others(level, precision):
    """Tasks are cut by heads and by queries: how many there are, and who computes them, changes nothing."""
    query, key, value = normal(3, 200, 4, 16), normal(3, 200, 2, 16, seed=1), normal(3, 200, 2, 16, seed=2)
    together = both(level, query, key, value, precision=precision)
    alone = both(level, query[1:2, :, 2:], key[1:2, :, 1:], value[1:2, :, 1:], precision=precision)
    for every, one, first in zip(together, alone, (2, 2, 1, 1), strict=True):
        np.testing.assert_array_equal(every[1:2, :, first:], one)


@native
@pytest.mark.parametrize("precision", [FLOAT32, BFLOAT16], ids=["float32", "bfloat16"])
def test_the_same_bits_from_run_to_run(level, precision):
    arrays = normal(2, 150, 4, 24), normal(2, 150, 2, 24, seed=1), normal(2, 150, 2, 24, seed=2)
    first = both(level, *arrays, precision=precision)
    for _ in range(5):
        jax.tree.map(np.testing.assert_array_equal, first, both(level, *arrays, precision=precision))


@native
def test_a_skipped_block_and_a_hidden_one_give_the_same_bits(level):
    """A document of its own in the middle sees nothing of its neighbours, in blocks of theirs or out of them."""
    query, key, value = (normal(1, 300, 2, 16, seed=i) for i in range(3))
    segments = jnp.asarray([[1] * 100 + [2] * 130 + [0] * 70])
    mask = CAUSAL.within(segments, segments)
    first = both(level, query, key, value, mask)
    outside = (segments != 2)[:, :, None, None]
    changed = both(level, *(jnp.where(outside, 7 * x, x) for x in (query, key, value)), mask)
    for one, other in zip(first, changed, strict=True):
        np.testing.assert_array_equal(one[:, 100:230], other[:, 100:230])
        assert (one[:, 230:] == 0).all()


@native
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_activations_of_both_formats(level, dtype):
    arrays = [normal(2, 70, h, 20, seed=i, dtype=dtype) for i, h in enumerate((4, 2, 2))]
    results = both(level, *arrays, precision=dataclasses.replace(BFLOAT16, output=np.dtype(dtype)))
    for result, like, true in zip(results, (arrays[0], *arrays), both("reference", *arrays), strict=True):
        assert result.dtype == like.dtype
        assert result.shape == like.shape
        assert float(jnp.abs(result - true).max()) <= 8 * float(jnp.finfo(jnp.bfloat16).eps) * float(
            jnp.abs(true).max()
        )


@native
def test_a_window_and_a_start_beyond_32_bits_of_sum(level):
    """Positions near the largest 32-bit number: no sum of a window wraps around."""
    query, key = normal(1, 3, 1, 4), normal(1, 5, 1, 4)
    far = Mask(causal=True, window=2**31 - 1, start=jnp.asarray([2**31 - 8]))
    np.testing.assert_array_equal(both(level, query, key, key, far)[0].shape, query.shape)
    near = Mask(causal=True, window=2, start=jnp.asarray([2**31 - 8]))
    assert (both(level, query, key, key, near)[0] == 0).all()
