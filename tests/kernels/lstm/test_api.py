import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from cupola.core.errors import ShapeError
from cupola.kernels.lstm import lstm
from cupola.kernels.lstm.api import LSTM

HIDDEN = jnp.zeros((2, 3))
MATRIX = jax.random.normal(jax.random.key(0), (3, 12))
CALLABLE = [i.name for i in LSTM.implementations if not i.refuses(jnp.zeros((2, 2, 12)), MATRIX, HIDDEN, HIDDEN)]


@pytest.fixture
def unchecked():
    """Leaves shapes unchecked, as they are outside the tests."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("unchecked")
def test_gates_of_another_width_are_refused():
    with pytest.raises(ShapeError, match="^lstm: a state of 3 has gates of 12, but the inputs have 8"):
        lstm(jnp.zeros((2, 2, 8)), MATRIX, HIDDEN, HIDDEN)


@pytest.mark.parametrize("implementation", CALLABLE)
def test_what_is_not_a_number_is_never_hidden(implementation):
    inputs = jnp.zeros((2, 2, 12)).at[0, 0, 4].set(jnp.nan)
    hiddens, cell = lstm(inputs, MATRIX, HIDDEN, HIDDEN, implementation=implementation)
    assert np.isnan(hiddens[0, 0]).tolist() == [False, True, False]
    assert np.isnan(hiddens[0, 1]).all()
    assert np.isnan(cell).tolist() == [[True] * 3, [False] * 3]


@pytest.mark.parametrize("implementation", CALLABLE)
def test_no_steps_leave_the_cell(implementation):
    hiddens, cell = lstm(jnp.zeros((2, 0, 12)), MATRIX, HIDDEN, HIDDEN + 1, implementation=implementation)
    assert hiddens.shape == (2, 0, 3)
    assert (cell == 1).all()


@pytest.mark.parametrize("implementation", CALLABLE)
def test_a_row_has_the_same_bits_whoever_is_beside_it(implementation):
    if not implementation.startswith("cpu"):
        pytest.skip("products of the compiler depend on how many rows there are")
    inputs, start = jax.random.normal(jax.random.key(1), (9, 4, 12)), jnp.zeros((9, 3))
    all_, _ = lstm(inputs, MATRIX, start, start, implementation=implementation)
    for row in (0, 6, 8):
        alone, _ = lstm(inputs[row : row + 1], MATRIX, start[:1], start[:1], implementation=implementation)
        np.testing.assert_array_equal(all_[row : row + 1], alone)
