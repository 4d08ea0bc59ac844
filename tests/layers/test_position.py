import jax.numpy as jnp
import numpy as np
import plain
import pytest
from plain import normal

from cupola.core.errors import ConfigError
from cupola.layers import position
from cupola.layers.position import LinearScaling, Llama3Scaling, Rope

LLAMA3 = Llama3Scaling(factor=8.0, original_length=64)


@pytest.mark.parametrize("max_length", [1000, 1024, 1025, 5000, 131072])
def test_turns_as_the_formula_does_at_any_length(max_length):
    rope = Rope(head_width=8, max_length=max_length, base=1e6)
    positions = np.asarray([[0, 1, max_length // 2, max_length - 2, max_length - 1]])
    x = normal(1, 5, 2, 8)
    ours = rope(x, jnp.asarray(positions))
    exact = plain.rotated(np.asarray(x, np.float64), positions, rope)
    assert np.abs(ours - exact).max() <= 8 * plain.EPS * np.abs(exact).max()
    beside = plain.rotated(np.asarray(x, np.float64), positions + 1, rope)
    assert np.abs(ours - beside).max() > 0.1


def test_a_long_model_keeps_small_tables(monkeypatch):
    kept = []
    look_up = Rope._table
    monkeypatch.setattr(Rope, "_table", lambda self, rows, *more: kept.append(rows) or look_up(self, rows, *more))
    Rope(head_width=8, max_length=131072)(normal(1, 1, 1, 8), jnp.zeros((1, 1), int))
    assert sum(kept) < position.TABLE_ROWS
    assert np.prod(kept) >= 131072


def test_linear_scaling_stretches_positions():
    x = normal(1, 3, 2, 8)
    near, far = (Rope(head_width=8, max_length=99, scaling=s) for s in (None, LinearScaling(factor=4.0)))
    np.testing.assert_allclose(far(x, jnp.asarray([[0, 8, 40]])), near(x, jnp.asarray([[0, 2, 10]])), atol=1e-6)


def test_llama3_scaling_slows_what_turns_rarely_and_nothing_else():
    rates = 2 * np.pi / 64 * np.asarray([100.0, 4.0, 2.5, 1.0, 0.1])  # turns in the original length
    slowed = LLAMA3(rates) / rates
    np.testing.assert_allclose(slowed, [1, 1, 0.5 + 0.5 / 8, 1 / 8, 1 / 8])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LinearScaling(factor=0.5), "factor=0.5 would turn faster\nUse a factor of 1 or more."),
        (lambda: Llama3Scaling(factor=0.0, original_length=8), "factor=0.0 would turn faster"),
        (
            lambda: Llama3Scaling(factor=2.0, low_frequency=4.0, original_length=8),
            "low_frequency=4.0 is not above 0 and below high_frequency=4.0\nUse low_frequency=1.0 and high_frequency=4.0.",
        ),
    ],
)
def test_scalings_that_mean_nothing_are_refused(make, message):
    with pytest.raises(ConfigError) as caught:
        make()
    assert str(caught.value).startswith(message)
