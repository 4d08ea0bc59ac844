import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cupola.core.errors import ConfigError
from cupola.optim.average import EMA


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.9999])
def test_closed_form(key, decay):
    history = jax.random.normal(key, (20, 6))
    ema = EMA(decay=decay)
    state = ema.init({"w": jnp.full(6, 100.0)})
    for p in history:
        state = ema.update(state, {"w": p})
    weights = decay ** np.arange(19, -1, -1, dtype=np.float64)
    expected = weights @ np.asarray(history, np.float64) / weights.sum()
    assert state.count == 20
    # The initial 100 leaves a rounding of itself in the first mean; then one of each of 20.
    np.testing.assert_allclose(state.mean["w"], expected, atol=4 * np.spacing(np.float32(100)))


@pytest.mark.parametrize("decay", [0.9, 0.9999])
def test_what_does_not_move_is_its_own_average(decay):
    ema, still = EMA(decay=decay), {"w": jnp.array([0.1, -3.0, 7e5])}
    state = ema.init(still)
    for _ in range(3):
        state = ema.update(state, still)
    np.testing.assert_array_equal(state.mean["w"], still["w"])


def test_the_average_is_float32_and_shares_no_memory_with_the_parameters():
    params = {"w": jnp.ones(3), "low": jnp.ones(3, jnp.bfloat16)}
    mean = EMA().init(params).mean
    assert {x.dtype.name for x in mean.values()} == {"float32"}
    assert mean["w"].unsafe_buffer_pointer() != params["w"].unsafe_buffer_pointer()


@pytest.mark.parametrize("decay", [0.0, 1.0, -1.0])
def test_refuses_a_decay_that_is_no_average(decay):
    with pytest.raises(ConfigError, match=r"such as decay=0.999"):
        EMA(decay=decay)
