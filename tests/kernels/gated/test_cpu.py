import jax.numpy as jnp
import numpy as np
import pytest

from cupola.kernels.gated import Activation, gate
from cupola.kernels.gated.api import GATE

ONES = jnp.ones((3,))
CALLABLE = [i.name for i in GATE.implementations if not i.refuses(ONES, ONES, Activation.SILU)]


@pytest.mark.parametrize("activation", Activation)
@pytest.mark.parametrize("implementation", CALLABLE)
def test_what_is_not_a_number_is_never_hidden(implementation, activation):
    out = gate(ONES.at[1].set(jnp.nan), ONES, activation=activation, implementation=implementation)
    assert np.isnan(out).tolist() == [False, True, False]
