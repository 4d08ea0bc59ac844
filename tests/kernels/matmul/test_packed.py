import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cupola.core.dtype import FLOAT32
from cupola.core.errors import ShapeError, Unsupported
from cupola.kernels.matmul import Grouped, Int8, Packed, dot, dot_experts, group_of, pack_groups
from cupola.kernels.matmul.form import dense
from cupola.kernels.matmul.packed import as_multiplied


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def groups(inputs, outputs, *, group, bits, offsets=True, dtype=jnp.float32, shape=None):
    draw = np.random.default_rng(inputs * outputs)
    codes = draw.integers(0, 2**bits, (outputs, inputs // group, group), dtype=np.uint8)
    packed = codes if bits == 8 else codes[..., : group // 2] | codes[..., group // 2 :] << 4
    scales, added = (jnp.asarray(draw.normal(size=(outputs, inputs // group)), dtype) for _ in range(2))
    how = {"shape": shape or (inputs, outputs), "bits": bits, "zero": 2 ** (bits - 1)}
    return Grouped(jnp.asarray(packed.reshape(outputs, -1)), scales, added if offsets else None, **how)


@pytest.mark.parametrize(
    ("shape", "inputs", "stacked"),
    [((1, 1), 1, 0), ((33, 17), 1, 0), ((64, 48), 1, 0), ((2, 5, 3, 7), 2, 0), ((4, 31, 16), 1, 1), ((0, 3), 1, 0)],
)
def test_packed_is_the_matrix_rounded_to_bf16(shape, inputs, stacked):
    weight = normal(*shape)
    packed = jax.jit(Packed.pack, static_argnums=(1, 2))(weight, inputs, stacked)
    np.testing.assert_array_equal(dense(packed), weight.astype(jnp.bfloat16))
    assert packed.shape == shape[stacked:]
    assert not packed.values.shape[-3] % 16
    if shape[0] and not stacked:
        assert (packed.values == 0).sum() >= packed.values.size - weight.size


def test_outputs_are_looked_up_in_a_packed_table():
    table = normal(50, 33)
    packed = Packed.pack(table.T)
    index = jnp.asarray([[0, 49, 17], [3, 16, 15]])
    np.testing.assert_array_equal(packed.column(index), table[index].astype(jnp.bfloat16))


@pytest.mark.parametrize(
    "weight",
    [
        groups(64, 5, group=32, bits=4),
        groups(48, 33, group=16, bits=8, offsets=False, dtype=jnp.float16),
        groups(32, 12, group=8, bits=4, dtype=jnp.float16, shape=(4, 8, 3, 4)),
    ],
    ids=["4 bits", "8 bits", "heads"],
)
def test_packed_groups_are_the_same_numbers(weight):
    np.testing.assert_array_equal(dense(pack_groups(weight)), dense(weight))


def test_int8_is_packed_as_the_same_numbers():
    form = Int8.quantize(normal(72, 5))
    packed = pack_groups(form)
    assert packed.group == 8
    np.testing.assert_array_equal(dense(packed), dense(form))


@pytest.mark.parametrize(
    "weight",
    [groups(12, 4, group=4, bits=8), groups(24, 3, group=12, bits=4), Int8.quantize(normal(7, 3))],
    ids=["8 bits", "4 bits", "int8"],
)
def test_groups_that_fill_no_register_are_refused(weight):
    assert not isinstance(weight, Grouped) or group_of(weight) is None
    with pytest.raises(Unsupported, match=r"^pack_groups: groups of a weight .* cannot be packed\nGroups must be"):
        pack_groups(weight)


def test_a_stack_of_groups_is_cut_first():
    stacked = jax.tree.map(lambda x: jnp.stack([x, x]), groups(32, 3, group=8, bits=4))
    with pytest.raises(Unsupported, match="a stack cut into its matrices"):
        pack_groups(stacked)


def test_activations_err_by_half_a_step_of_their_group():
    x = normal(9, 64) * jnp.exp(normal(9, 64, seed=1))
    packed = pack_groups(groups(64, 3, group=16, bits=8))
    far = jnp.abs(as_multiplied(x, packed) - x).reshape(9, 4, 16)
    step = jnp.abs(x).reshape(9, 4, 16).max(-1, keepdims=True) / 127
    assert (far <= step * (0.5 + 127 * 2 * np.finfo(np.float32).eps)).all()
    np.testing.assert_array_equal(jax.grad(lambda x: as_multiplied(x, packed).sum())(x), jnp.ones_like(x))


@pytest.mark.parametrize(
    "sizes", [[3, 0, 4], [0, 0, 0], [0, 7, 0], [1, 1, 1]], ids=["some", "none", "one", "rows left over"]
)
@pytest.mark.parametrize("implementation", ["xla", "reference"])
def test_each_row_is_multiplied_by_the_matrix_of_its_expert(sizes, implementation):
    x, weight = normal(7, 5), normal(3, 5, 4, seed=1)
    out = dot_experts(x, weight, jnp.asarray(sizes), FLOAT32, implementation=implementation)
    at = 0
    for size, matrix in zip(sizes, weight, strict=True):
        expected = np.float64(x[at : at + size]) @ np.float64(matrix)
        plain = dot(x[at : at + size], matrix, FLOAT32, implementation="reference")
        allowed = 2 * np.abs(plain - expected).max(initial=0) + np.finfo(np.float32).eps * np.abs(expected).max(
            initial=0
        )
        assert (np.abs(out[at : at + size] - expected) <= allowed).all()
        at += size
    assert not out[at:].any()


@pytest.mark.parametrize(("x", "sizes"), [((7, 6), (3,)), ((7, 5), (2,))])
def test_experts_that_do_not_fit_are_refused(x, sizes):
    with pytest.raises(ShapeError, match=r"^dot_experts: .* do not go with 3 matrices of 5 inputs\nPass"):
        dot_experts(jnp.zeros(x), jnp.zeros((3, 5, 4)), jnp.zeros(sizes, int), FLOAT32)
