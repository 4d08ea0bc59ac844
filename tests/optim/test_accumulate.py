import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cupola.core.errors import ShapeError
from cupola.optim.accumulate import accumulated


@pytest.fixture
def batch(key):
    x, y = jax.random.normal(key, (2, 8, 5, 3))
    # The weights fall unequally, and some examples have none: a mean of means would be wrong.
    weights = jnp.arange(40.0).reshape(8, 5) % 7 * (jnp.arange(8) != 3)[:, None]
    return {"x": x, "y": y, "weights": weights}


@pytest.fixture
def params(key):
    return {"w": jax.random.normal(key, (3, 3))}


def total(params, batch):
    errors = jnp.sum((jnp.tanh(batch["x"] @ params["w"]) - batch["y"]) ** 2, -1)
    correct = jnp.sum((errors < 2) * batch["weights"])
    return jnp.sum(errors * batch["weights"]), (jnp.sum(batch["weights"]), {"near": correct})


def graded(params):
    return lambda part, number: jax.value_and_grad(total, has_aux=True)(params, part)


@pytest.mark.parametrize("micro_batches", [1, 2, 4, 8])
def test_equals_the_whole_batch(params, batch, micro_batches):
    (value, (weight, means)), gradient = jax.jit(lambda p, b: accumulated(graded(p), b, micro_batches))(params, batch)

    def mean(p):
        summed, (weights, _) = total(p, batch)
        return summed / weights

    expected, expected_gradient = jax.jit(jax.value_and_grad(mean))(params)
    # Sums of 40 terms in another order: 40 roundings of the largest.
    np.testing.assert_allclose(value, expected, rtol=40 * 6e-8)
    np.testing.assert_allclose(
        gradient["w"], expected_gradient["w"], atol=40 * 6e-8 * float(jnp.abs(expected_gradient["w"]).max())
    )
    assert weight == batch["weights"].sum()
    np.testing.assert_allclose(means["near"], total(params, batch)[1][1]["near"] / weight, rtol=1e-6)


def test_a_mean_of_means_would_differ(params, batch):
    parts = [jax.tree.map(lambda x, i=i: x[i::2], batch) for i in range(2)]
    means = [summed / weight for summed, (weight, _) in (jax.jit(total)(params, part) for part in parts)]
    (value, _), _ = jax.jit(lambda p, b: accumulated(graded(p), b, 2))(params, batch)
    assert abs(sum(means) / 2 - value) > 1e-3


def test_a_batch_of_no_weight_gives_zeros(params, batch):
    empty = batch | {"weights": jnp.zeros((8, 5))}
    (value, (weight, _)), gradient = jax.jit(lambda p, b: accumulated(graded(p), b, 4))(params, empty)
    assert value == weight == 0
    assert not gradient["w"].any()


def test_each_part_is_told_its_number(batch):
    def numbered(part, number):
        return (number.astype(jnp.float32), (jnp.float32(1), {})), {}

    (value, _), _ = accumulated(numbered, batch, 4)
    assert value == (0 + 1 + 2 + 3) / 4


def test_gradients_of_low_precision_are_summed_in_float32(batch):
    def low(part, number):
        return (jnp.float32(0), (jnp.float32(1), {})), jnp.where(number == 0, 256, 1).astype(jnp.bfloat16)

    _, gradient = accumulated(low, batch, 4)
    assert gradient == (256 + 3) / 4


@pytest.mark.parametrize("micro_batches", [1, 4])
def test_of_what_else_is_said_the_mean_is_returned_whatever_the_weights(batch, micro_batches):
    def said(part, number):
        others = {"mean": jnp.mean(part["x"]), "count": jnp.int32(7), "low": jnp.bfloat16(0.5)}
        return (jnp.float32(0), (jnp.float32(number), {}, others)), {}

    (_, (_, _, others)), _ = accumulated(said, batch, micro_batches)
    assert {name: x.dtype for name, x in others.items()} == {"mean": "float32", "count": "int32", "low": "bfloat16"}
    assert (others["count"], others["low"]) == (7, 0.5)
    x = np.asarray(batch["x"], np.float64)
    np.testing.assert_allclose(others["mean"], x.mean(), rtol=0, atol=120 * 6e-8 * np.abs(x).max())


@pytest.mark.parametrize("micro_batches", [0, 3, 16])
def test_refuses_parts_that_are_not_equal(params, batch, micro_batches):
    with pytest.raises(ShapeError, match="micro_batches=1, 2, 4, 8") as raised:
        accumulated(graded(params), batch, micro_batches)
    assert raised.value.where == "micro_batches"
