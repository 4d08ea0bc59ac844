import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cupola.core.dtype import FLOAT32
from cupola.core.errors import ShapeError
from cupola.kernels.matmul import Grouped, Int8, LowRank, dot, reshape
from cupola.kernels.matmul.api import shape_of
from cupola.kernels.matmul.form import dense

EPS = np.finfo(np.float32).eps


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.mark.parametrize(
    "weight",
    [
        normal(129, 7),
        normal(5, 3) * jnp.asarray([[1e-20, 1.0, 1e20]]),
        normal(1, 4),
        jnp.asarray([[0.0, 2.0], [0.0, -1.0]]),
    ],
    ids=["odd sizes", "outputs of all sizes", "one row", "an output of zeros"],
)
def test_int8_errs_by_half_a_scale_at_most(weight):
    form = Int8.quantize(weight)
    # Beside the half: value / scale is rounded once, and so is the product that is measured.
    allowed = (0.5 + 127 * 2 * EPS) * form.scales[None]
    assert (jnp.abs(dense(form) - weight) <= allowed).all()
    assert jnp.isfinite(dense(form)).all()
    assert (jnp.abs(form.values.astype(int)).max(0) == jnp.where(weight.any(0), 127, 0)).all()


def groups(codes, bits, *, zero=0, offsets=None, shape=None):
    """Two outputs of eight inputs in two groups."""
    codes = np.asarray(codes, np.uint8).reshape(2, 2, 4)
    packed = codes if bits == 8 else codes[..., :2] | codes[..., 2:] << 4
    scales = jnp.asarray([[1.0, 2.0], [0.5, 4.0]])
    offsets = None if offsets is None else jnp.asarray(offsets, jnp.float32)
    return Grouped(jnp.asarray(packed.reshape(2, -1)), scales, offsets, shape=shape or (8, 2), bits=bits, zero=zero)


def test_groups_are_codes_times_scales_plus_offsets():
    form = groups(range(16), 4, zero=8, offsets=[[0, 1], [2, 3]])
    expected = [[-8, -7, -6, -5, -7, -5, -3, -1], [2, 2.5, 3, 3.5, 19, 23, 27, 31]]
    np.testing.assert_array_equal(dense(form).T, expected)
    np.testing.assert_array_equal(
        dense(groups([*range(8), *range(248, 256)], 8))[:, 1], [124, 124.5, 125, 125.5, *range(1008, 1024, 4)]
    )


def test_groups_are_split_into_heads_and_stacked_and_cut_like_arrays():
    form = groups(range(16), 4)
    matrix = dense(form)
    for shape, contract in (((8, 1, 2), 1), ((2, 4, 2), 2), ((8, 2), 1)):
        split = reshape(form, shape)
        assert shape_of(split) == shape
        np.testing.assert_array_equal(dense(split), matrix.reshape(shape))
        x = normal(3, *shape[:contract])
        np.testing.assert_allclose(
            dot(x, split, FLOAT32, contract=contract), jnp.tensordot(x, dense(split), contract), rtol=1e-5, atol=1e-5
        )
    stacked = jax.tree.map(lambda *each: jnp.stack(each), form, groups(range(16)[::-1], 4))
    assert dense(stacked).shape == (2, 8, 2)
    np.testing.assert_array_equal(dense(jax.tree.map(lambda leaf: leaf[0], stacked)), matrix)
    assert reshape(normal(8, 6), (8, 2, 3)).shape == (8, 2, 3)


@pytest.mark.parametrize("shape", [(4, 4), (4, 2, 2, 2), (8, 3), (16,), (2, 8, 1)])
def test_inputs_do_not_mix_with_outputs(shape):
    with pytest.raises(ShapeError, match=r"8 inputs and 2 outputs cannot have the shape"):
        reshape(groups(range(16), 4), shape)


def test_low_rank_is_its_dense_matrix():
    form = LowRank(base=normal(6, 4), down=normal(6, 2, seed=1), up=normal(2, 4, seed=2), scale=0.5)
    expected = np.float64(form.base) + 0.5 * np.float64(form.down) @ np.float64(form.up)
    np.testing.assert_allclose(dense(form), expected, atol=4 * EPS * np.abs(expected).max())


@pytest.mark.parametrize("implementation", ["xla", "reference"])
def test_a_new_adapter_changes_nothing_and_learns_over_any_base(implementation):
    base = Int8.quantize(normal(6, 4))
    x, down = normal(3, 6, seed=3), normal(6, 2, seed=1)

    def loss(adapter):
        form = LowRank(base=base, down=adapter["down"], up=adapter["up"], scale=2.0)
        return (dot(x, form, FLOAT32, implementation=implementation) ** 2).sum() / 2

    new = {"down": down, "up": jnp.zeros((2, 4))}
    before = dot(x, base, FLOAT32, implementation=implementation)
    assert loss(new) == (before**2).sum() / 2
    grads = jax.grad(loss)(new)
    assert not grads["down"].any()
    expected = 2.0 * (np.float64(x) @ np.float64(down)).T @ np.float64(before)
    np.testing.assert_allclose(grads["up"], expected, atol=16 * EPS * np.abs(expected).max())
    assert loss({"down": down, "up": -0.001 * grads["up"]}) < loss(new)


@pytest.mark.parametrize("implementation", ["xla", "reference"])
def test_a_frozen_base_is_given_no_gradient(implementation):
    form = LowRank(base=Int8.quantize(normal(6, 4)), down=normal(6, 2), up=normal(2, 4))
    grads = jax.grad(lambda f: dot(normal(3, 6), f, FLOAT32, implementation=implementation).sum(), allow_int=True)(form)
    assert grads.base.values.dtype == jax.dtypes.float0
    assert grads.up.any()


def test_forms_are_trees_that_jit_takes():
    form = LowRank(base=Int8.quantize(normal(6, 4)), down=normal(6, 2), up=normal(2, 4), scale=0.5)
    assert len(jax.tree.leaves(form)) == 4
    assert jax.jit(lambda f: f)(form).scale == 0.5
    assert shape_of(form) == (6, 4)
    assert shape_of(normal(6, 2, 4)) == (6, 2, 4)


@pytest.mark.parametrize(
    ("x", "weight", "contract", "message"),
    [
        (
            (2, 5),
            normal(6, 4),
            1,
            r"^dot: activations end in \(5,\), but the weight begins with \(6,\)\nPass .* are \(6,\)",
        ),
        ((2, 6), Int8.quantize(normal(5, 4)), 1, r"the weight begins with \(5,\)"),
        ((2, 3, 5), normal(3, 4, 7), 2, r"end in \(3, 5\), but the weight begins with \(3, 4\)\nPass .* last 2 dims"),
    ],
    ids=["array", "int8", "two dims"],
)
def test_dims_that_disagree_are_refused(x, weight, contract, message):
    with pytest.raises(ShapeError, match=message):
        dot(jnp.ones(x), weight, FLOAT32, contract=contract)
