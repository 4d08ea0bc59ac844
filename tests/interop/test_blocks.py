import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gguf.quants import dequantize
from ggufs import finite

from cupola.core.dtype import FLOAT32
from cupola.interop.blocks import KINDS, grouped
from cupola.kernels.matmul import dot
from cupola.kernels.matmul.form import dense


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_blocks_are_to_the_last_bit_what_the_library_makes_of_them(kind):
    raw = finite(kind, 6, 768)
    form, expected = grouped(raw, kind), dequantize(raw, kind)
    assert len(np.unique(expected)) > 100
    np.testing.assert_array_equal(dense(form).T, expected)
    np.testing.assert_array_equal(jax.jit(dense)(form).T, expected)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 768)), jnp.float32)
    np.testing.assert_allclose(dot(x, form, FLOAT32), x @ expected.T, rtol=1e-4, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_any_bytes_are_some_numbers(kind):
    raw = np.random.default_rng(1).integers(0, 256, (5, KINDS[kind][0] * 4), dtype=np.uint8)
    with np.errstate(all="ignore"):
        form, expected = grouped(raw, kind), dequantize(raw, kind)
    sane = np.isfinite(expected)
    np.testing.assert_array_equal(np.where(sane, dense(form).T, 0), np.where(sane, expected, 0))


def test_four_bits_take_half_the_room_of_eight():
    sizes = {kind.name: grouped(finite(kind, 4, 256), kind).codes.nbytes for kind in KINDS}
    assert sizes["Q4_0"] == sizes["Q4_1"] == sizes["Q4_K"] == 4 * 128
    assert sizes["Q8_0"] == sizes["Q6_K"] == 4 * 256
