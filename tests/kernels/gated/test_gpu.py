"""The error function that Triton lacks."""

import jax
import jax.numpy as jnp
import numpy as np

from cupola.kernels.gated.activation import Activation
from cupola.kernels.gated.api import gate
from cupola.kernels.gpu import interpreted


def test_the_exact_gelu_errs_no_more_than_twice_the_compilers():
    x = jnp.linspace(-8, 8, 2001)
    with interpreted():
        ours = gate(x, jnp.ones_like(x), activation=Activation.GELU, implementation="gpu")
    plain = 0.5 * x * (1 + jax.lax.erf(x * np.float32(0.5**0.5)))
    with jax.enable_x64(True):
        wide = jnp.asarray(np.asarray(x), jnp.float64)
        exact = np.asarray(0.5 * wide * (1 + jax.lax.erf(wide * 0.5**0.5)))
    assert np.abs(ours - exact).max() <= 2 * np.abs(plain - exact).max()
