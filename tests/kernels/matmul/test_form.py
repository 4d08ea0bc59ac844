import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cupola.core.dtype import FLOAT32
from cupola.core.errors import ShapeError
from cupola.kernels.matmul import Int8, LowRank, dot
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
