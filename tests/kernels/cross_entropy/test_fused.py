import jax
import jax.numpy as jnp
import pytest

from cupola.core import host
from cupola.core.dtype import BFLOAT16, FLOAT32
from cupola.kernels.cross_entropy import linear_cross_entropy
from cupola.kernels.cross_entropy.api import LINEAR_CROSS_ENTROPY

VOCABULARY, WIDTH = 131_072, 512
NAMES = ["xla", "cpu"]


def plain(x, head, targets, weights, precision):
    operands = x.astype(precision.compute), head.astype(precision.compute)
    logits = jnp.einsum("btd,vd->btv", *operands, preferred_element_type=jnp.float32)
    return -jnp.sum(weights * jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], -1)[..., 0])


def held(loss, rows):
    """Returns the bytes that a step holds beside its arguments and results; nothing is run."""
    floats = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((1, rows, WIDTH), (VOCABULARY, WIDTH), (1, rows))]
    x, head, weights = floats
    targets = jax.ShapeDtypeStruct((1, rows), jnp.int32)
    step = jax.jit(jax.value_and_grad(loss, (0, 1)), compiler_options=host.compiler_options())
    return step.lower(x, head, targets, weights).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("precision", [FLOAT32, BFLOAT16], ids=["float32", "bf16"])
@pytest.mark.parametrize("rows", [512, 2048])
def test_a_large_vocabulary_takes_a_fifth_of_the_plain_forms_memory(rows, precision, name):
    if name == "cpu" and all(i.refuses(*[None] * 4, precision) for i in LINEAR_CROSS_ENTROPY.implementations[:4]):
        pytest.skip("the native library is not there")

    def ours(x, head, targets, weights):
        return linear_cross_entropy(x, head, targets, weights, precision=precision, implementation=name)

    assert 5 * held(ours, rows) <= held(lambda *given: plain(*given, precision), rows)
