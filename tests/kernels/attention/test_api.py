import jax.numpy as jnp
import jaxtyping
import pytest

from cupola.core.errors import ConfigError, ShapeError
from cupola.kernels.attention import CAUSAL, attend


def test_heads_that_do_not_share_evenly_are_refused():
    query, key = jnp.ones((1, 2, 6, 4)), jnp.ones((1, 2, 4, 4))
    with pytest.raises(ShapeError, match="^attend: heads=6 is not a multiple of key_heads=4\n.*divides 6"):
        attend(query, key, key, mask=CAUSAL)


@pytest.fixture
def unchecked():
    """Leaves shapes unchecked, as they are outside the tests."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("unchecked")
def test_sinks_that_are_not_one_a_head_are_refused():
    x = jnp.ones((1, 2, 4, 4))
    with pytest.raises(ShapeError, match="^attend: sinks have shape \\(3,\\) for heads=4\nGive one score a head"):
        attend(x, x, x, mask=CAUSAL, sinks=jnp.ones(3))


@pytest.mark.parametrize("soft_cap", [0.0, -1.0, float("nan")])
def test_a_soft_cap_that_bounds_nothing_is_refused(soft_cap):
    x = jnp.ones((1, 2, 4, 4))
    with pytest.raises(ConfigError, match="^attend: soft_cap=.* bounds nothing\nUse a number above 0, or None"):
        attend(x, x, x, mask=CAUSAL, soft_cap=soft_cap)
