"""Attention by NVIDIA's library: what it has no kernel for, and that it is asked for as it should be."""

import jax
import jax.numpy as jnp
import pytest

from cupola.core.dtype import BFLOAT16, FLOAT32
from cupola.core.errors import Unsupported
from cupola.kernels.attention import CAUSAL, Mask, attend, cudnn
from cupola.kernels.gpu import interpreted

HEADS = jnp.zeros((1, 16, 2, 8))


def reasons(query=HEADS, key=HEADS, mask=CAUSAL, precision=BFLOAT16, soft_cap=None, sinks=None):
    return cudnn.refuses(query, key, key, mask, 1.0, precision, soft_cap, sinks)[1:]  # the first: there is no GPU


ROW = jnp.zeros(1, jnp.int32)
MARKS = jnp.ones((1, 16), jnp.int32)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"precision": FLOAT32}, "products are of float32"),
        ({"query": jnp.zeros((1, 16, 2, 6)), "key": jnp.zeros((1, 16, 2, 6))}, "heads are 6 wide"),
        ({"soft_cap": 1.0}, "no soft cap"),
        ({"sinks": jnp.zeros(2)}, "no sinks"),
        ({"mask": CAUSAL.within(MARKS, MARKS)}, "no segments"),
        ({"mask": CAUSAL.starting(ROW)}, "no start"),
        ({"mask": Mask(causal=True, prefix=ROW)}, "no prefix"),
        ({"key": jnp.zeros((1, 9, 2, 8))}, "as many keys as queries"),
    ],
)
def test_what_the_library_lacks_is_refused(given, reason):
    (found,) = reasons(**given)
    assert reason in found


def test_what_it_has_is_refused_only_where_there_is_no_gpu():
    assert reasons() == []
    with interpreted(), pytest.raises(Unsupported, match="it is for NVIDIA GPUs, and this device is a cpu"):
        attend(HEADS, HEADS, HEADS, mask=CAUSAL, precision=BFLOAT16, implementation="cudnn")


def test_heads_wider_than_a_program_holds_are_refused():
    wide = jnp.zeros((1, 4, 1, 512))
    with interpreted(), pytest.raises(Unsupported, match="heads are 512 wide, and it takes up to 256"):
        attend(wide, wide, wide, mask=CAUSAL, implementation="gpu")


def test_it_is_lowered_for_cuda():
    def call(x):
        return cudnn.attend(x, x, x, Mask(causal=True, window=4), 1.0, BFLOAT16)

    try:
        text = jax.jit(call).trace(HEADS).lower(lowering_platforms=("cuda",)).as_text()
    except RuntimeError as error:
        pytest.skip(f"it asks for the library already here: {error}")
    assert "cudnn" in text
