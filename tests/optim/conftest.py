"""A small tree of parameters with every role, stacked layers and dims that split into heads."""

import jax
import jax.numpy as jnp
import pytest

from cupola.core.param import Param, Role


@pytest.fixture(scope="session")
def specs():
    block = {
        "query": Param((8, 2, 4), "D H C"),
        "up": Param((8, 12), "D F"),
        "down": Param((12, 8), "F D"),
        "norm": Param((8,), "D", role=Role.SCALAR),
    }
    return {
        "embedding": Param((10, 8), "V D", role=Role.INPUT),
        "stack": {name: param.stack("L", 3) for name, param in block.items()},
    }


def drawn(specs, seed):
    keys = iter(jax.random.split(jax.random.key(seed), 99))
    return jax.tree.map(lambda p: jax.random.normal(next(keys), p.shape), specs)


@pytest.fixture(scope="session")
def params(specs):
    return drawn(specs, 1)


@pytest.fixture(scope="session")
def grads(specs):
    return drawn(specs, 2)


@pytest.fixture
def progress():
    return jnp.float32(0.5)
