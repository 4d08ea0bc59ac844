import jax.numpy as jnp
import plain
import pytest
from plain import normal

from cupola.core.dtype import FLOAT32
from cupola.kernels.gated import Activation
from cupola.layers.feed_forward import GatedMLP
from cupola.layers.linear import JOINED, Linear


@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 1, 3, 5)])
def test_maps_each_row(shape, key):
    linear = Linear(precision=FLOAT32, width=5, outputs=4, bias=True)
    p = linear.init(key) | {"bias": normal(4, seed=1)}
    x = normal(*shape)
    assert plain.matches(linear(p, x), lambda p, x: x @ p["weight"] + p["bias"], p, x)


def test_has_no_bias_unless_asked(key):
    linear = Linear(precision=FLOAT32, width=5, outputs=4)
    assert list(linear.init(key)) == ["weight"]
    assert not linear(linear.init(key), jnp.zeros((2, 5))).any()
    assert (linear.count(), linear.replace("bias", True).count()) == (20, 24)
    assert linear.flops(2, 3) == linear.replace("bias", True).flops(2, 3) == 2 * 6 * 20


def test_the_gate_multiplies_what_goes_up(key):
    mlp = GatedMLP(precision=FLOAT32, width=5, hidden=3, activation=Activation.RELU)
    p, x = mlp.init(key), normal(2, 4, 5)
    assert plain.matches(mlp(p, x), lambda p, x: (((x @ p["gate"]).clip(0)) * (x @ p["up"])) @ p["down"], p, x)
    assert mlp.flops(2, 4) == 3 * 2 * 8 * 15


def test_joined_weights_give_what_they_give_apart(key):
    mlp = GatedMLP(precision=FLOAT32, width=5, hidden=3, activation=Activation.RELU)
    p, x = mlp.init(key), normal(2, 4, 5)
    joined = {JOINED: jnp.concatenate([p["gate"], p["up"]], axis=1), "down": p["down"]}
    assert plain.matches(mlp(joined, x), lambda p, x: (((x @ p["gate"]).clip(0)) * (x @ p["up"])) @ p["down"], p, x)
