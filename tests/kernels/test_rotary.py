import jax.numpy as jnp
import pytest

from cupola.core.errors import ShapeError
from cupola.kernels.rotary import rotate


def test_angles_for_another_width_are_refused():
    angles = jnp.ones((1, 2, 3))
    with pytest.raises(ShapeError, match="^rotate: 3 angles turn heads 6 wide, but these are 4 wide\nPass one angle"):
        rotate(jnp.ones((1, 2, 1, 4)), angles, angles)
