import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cupola.core.context import Context, Mode
from cupola.core.errors import ConfigError
from cupola.layers.dropout import Dropout

TRAIN = Context(mode=Mode.TRAIN, key=jax.random.key(0))
N = 40_000


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_drops_the_share_and_keeps_the_mean(rate):
    out = np.asarray(Dropout(rate=rate)(jnp.ones(N), TRAIN))
    deviation = (rate * (1 - rate) / N) ** 0.5  # of the share of zeros among N draws
    assert abs((out == 0).mean() - rate) < 5 * deviation
    assert abs(out.mean() - 1) < 5 * deviation / (1 - rate)
    np.testing.assert_allclose(out[out != 0], 1 / (1 - rate), rtol=1e-6)


def test_what_is_dropped_gets_no_gradient():
    grads = jax.grad(lambda x: Dropout(rate=0.5)(x, TRAIN).sum())(jnp.ones(64))
    assert set(grads.tolist()) == {0.0, 2.0}


def test_each_stream_drops_others():
    drop = Dropout(rate=0.5)
    assert (drop(jnp.ones(64), TRAIN) == drop(jnp.ones(64), TRAIN)).all()
    assert (drop(jnp.ones(64), TRAIN.at("attention")) != drop(jnp.ones(64), TRAIN.at("feed_forward"))).any()


def test_evaluation_drops_nothing_and_needs_no_key():
    x = jnp.ones(64)
    assert Dropout(rate=0.9)(x, Context()) is x
    assert Dropout(rate=0.9)(x, Context(key=jax.random.key(0))) is x
    assert Dropout(rate=0.0)(x, Context(mode=Mode.TRAIN)) is x


def test_training_needs_a_key():
    with pytest.raises(ConfigError, match="dropout draws random numbers, but the call has no key\nPass Context"):
        Dropout(rate=0.1)(jnp.ones(2), Context(mode=Mode.TRAIN))


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5, float("nan")])
def test_a_rate_that_is_no_probability_is_refused(rate):
    with pytest.raises(ConfigError, match=f"rate={rate} is no probability below 1\nUse 0 <= rate < 1"):
        Dropout(rate=rate)
