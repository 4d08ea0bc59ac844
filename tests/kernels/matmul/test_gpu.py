"""Products on a GPU, interpreted: experts of any number of rows, and weights in groups of any size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cupola.core.dtype import FLOAT32
from cupola.kernels.gpu import interpreted
from cupola.kernels.matmul import dot, dot_experts
from cupola.kernels.matmul.form import Grouped

EXPERTS, WIDTH, OUTPUTS, ROWS = 3, 33, 20, 75


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng([seed, *shape]).normal(size=shape), jnp.float32)


def far(ours, exact):
    return max(float(np.abs(np.asarray(a, np.float64) - b).max()) for a, b in zip(ours, exact, strict=True))


def exactly(x, weight, sizes, given):
    """The product and its gradients in float64, expert by expert."""
    x, weight, given = (np.asarray(each, np.float64) for each in (x, weight, given))
    ends = np.cumsum(sizes)
    out, for_x, for_weight = np.zeros(given.shape), np.zeros(x.shape), np.zeros(weight.shape)
    for expert, end in enumerate(ends):
        rows = slice(end - sizes[expert], end)
        out[rows] = x[rows] @ weight[expert]
        for_x[rows] = given[rows] @ weight[expert].T
        for_weight[expert] = x[rows].T @ given[rows]
    return out, for_x, for_weight


@pytest.mark.parametrize(
    "sizes",
    [pytest.param([3, 0, 66], marks=pytest.mark.slow), pytest.param([0, 0, 0], marks=pytest.mark.slow), [70, 1, 4]],
)
def test_each_expert_multiplies_its_rows_and_no_others(sizes):
    x, weight, given = normal(ROWS, WIDTH), normal(EXPERTS, WIDTH, OUTPUTS), normal(ROWS, OUTPUTS, seed=1)

    def both(implementation, x, weight):
        counts = jnp.asarray(sizes, jnp.int32)
        out, back = jax.vjp(lambda x, w: dot_experts(x, w, counts, FLOAT32, implementation=implementation), x, weight)
        return out, *back(given)

    exact = exactly(x, weight, sizes, given)
    with interpreted():
        ours = far(jax.jit(both, static_argnums=0)("gpu", x, weight), exact)
    plain = far(jax.jit(both, static_argnums=0)("reference", x, weight), exact)
    assert ours <= 2 * plain + np.finfo(np.float32).eps * np.abs(exact[0]).max()


@pytest.mark.slow
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(("rows", "inputs", "outputs", "group"), [(1, 64, 5, 32), (17, 192, 70, 32), (3, 96, 33, 16)])
def test_groups_are_made_numbers_on_the_way(bits, rows, inputs, outputs, group):
    codes = jnp.asarray(np.random.default_rng(0).integers(0, 256, (outputs, inputs * bits // 8)), jnp.uint8)
    scales = normal(outputs, inputs // group)
    weight = Grouped(codes, scales, scales * 3, shape=(inputs, outputs), bits=bits, zero=3)
    x = normal(rows, inputs)
    with interpreted():
        ours = dot(x, weight, FLOAT32, implementation="gpu")
    plain = dot(x, weight, FLOAT32, implementation="reference")
    # Either is within the rounding of a sum of so many terms, one unit for each, of their sizes' sum.
    most = np.abs(np.asarray(x)) @ np.abs(np.asarray(dot(jnp.eye(inputs), weight, FLOAT32, implementation="reference")))
    assert (np.abs(ours - plain) <= 2 * np.finfo(np.float32).eps * np.sqrt(inputs) * most).all()
