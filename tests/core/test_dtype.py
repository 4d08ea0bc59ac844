import jax.numpy as jnp
import numpy as np
import pytest

from cupola.config.text import parse, show
from cupola.core.dtype import BFLOAT16, FLOAT32, Precision
from cupola.core.errors import ConfigError


def test_formats_are_canonical_so_that_equal_policies_are_equal():
    policy = Precision(compute=jnp.dtype(jnp.bfloat16))
    assert policy == BFLOAT16
    assert hash(policy) == hash(BFLOAT16)
    assert policy.compute is not jnp.bfloat16
    assert isinstance(policy.compute, np.dtype)
    assert policy != FLOAT32


@pytest.mark.parametrize("name", ["int8", "bool", "complex64"])
def test_what_holds_no_activations_is_refused(name):
    with pytest.raises(ConfigError, match=f"^output: {name} cannot hold activations\nUse one of float32"):
        Precision(output=np.dtype(name))


def test_a_format_prints_by_its_name():
    assert show(np.dtype("bfloat16")) == ". = dtype('bfloat16')"
    assert parse(show(BFLOAT16)) == BFLOAT16
