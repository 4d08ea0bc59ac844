import numpy as np
import plain
from plain import normal

from cupola.core.dtype import FLOAT32
from cupola.kernels.gated import Activation
from cupola.layers.feed_forward import MLP


def test_the_plain_network_is_its_formula(key):
    network, x = MLP(precision=FLOAT32, width=8, hidden=12, activation=Activation.RELU), normal(2, 3, 8)
    p = network.init(key)
    p = p | {name: normal(*p[name].shape, seed=7) for name in ("up_bias", "down_bias")}

    def formula(p, x):
        return np.maximum(x @ p["up"] + p["up_bias"], 0) @ p["down"] + p["down_bias"]

    assert plain.matches(network(p, x), formula, p, x)
    # The control: the biases count.
    assert not plain.matches(network(p | {"up_bias": 0 * p["up_bias"]}, x), formula, p, x)
    assert network.flops(2, 3) == 2 * 6 * 2 * 8 * 12
