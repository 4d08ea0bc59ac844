import jax.numpy as jnp
import numpy as np
import pytest

from cupola.core.dtype import BFLOAT16, FLOAT32
from cupola.kernels.paged.stored import load, store, stored_dtype

NUMBERS = jnp.asarray([0.0, -0.0, 1.0, 1.00390625, -3.3e38, 1e-40, np.inf, -np.inf, np.nan])


@pytest.mark.parametrize("precision", [FLOAT32, BFLOAT16], ids=["float32", "bf16"])
def test_what_is_taken_out_is_what_was_kept_rounded_once(precision):
    kept = store(NUMBERS, stored_dtype(precision))
    assert np.array_equal(load(kept), NUMBERS.astype(precision.compute).astype(jnp.float32), equal_nan=True)
    assert np.array_equal(store(load(kept), kept.dtype), kept, equal_nan=precision is FLOAT32)


def test_bf16_takes_half_the_memory():
    assert stored_dtype(BFLOAT16).itemsize * 2 == stored_dtype(FLOAT32).itemsize
