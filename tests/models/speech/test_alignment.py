import jax.numpy as jnp
import numpy as np

from cupola.models.speech.alignment import diagonality, monotonicity


def looking(*rows):
    """Weights that look at these symbols, one a frame."""
    return jnp.stack([jnp.eye(4)[jnp.asarray(row)] for row in rows])


def test_reading_on_is_monotonic_and_going_back_is_not():
    weights = looking([0, 1, 1, 2, 3], [3, 2, 1, 0, 0], [0, 2, 1, 3, 3])
    np.testing.assert_allclose(monotonicity(weights, jnp.array([5, 5, 5])), [1, 0.25, 0.75])


def test_frames_that_are_not_there_do_not_count():
    weights = looking([0, 1, 0, 0, 0], [0, 1, 2, 0, 0], [3, 0, 0, 0, 0])
    np.testing.assert_allclose(monotonicity(weights, jnp.array([2, 4, 1])), [1, 2 / 3, 1])


def test_near_the_diagonal_is_near_one():
    weights = looking([0, 0, 1, 1, 2, 2, 3, 3], [3, 3, 2, 2, 1, 1, 0, 0], [0] * 8)
    along, against, still = diagonality(weights, jnp.array([8, 8, 8]), jnp.array([4, 4, 4]))
    assert along > 0.9
    assert against < 0.5
    assert still < 0.6  # though monotonicity calls it perfect
    assert monotonicity(weights, jnp.array([8, 8, 8]))[2] == 1
