import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cupola.core.errors import ConfigError
from cupola.models.speech.logistics import Logistics

SMALL = Logistics(components=3, bits=6, stretch=4.0)
VALUES = (jnp.arange(64) - 32) / 32


def drawn(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def probabilities(mixture, described):
    """By the textbook, in float64: differences of cumulative distributions."""
    logits, means, log_scales = np.split(np.asarray(described, np.float64), 3, -1)
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    scales = np.exp(np.maximum(log_scales, mixture.least_log_scale))
    edges = (np.arange(65) - 32.5) / 32 * mixture.stretch
    below = 1 / (1 + np.exp(-(edges[:, None] - means) / scales))
    below[0], below[-1] = 0, 1
    return (np.diff(below, axis=0) * shares).sum(-1)


def test_the_probabilities_are_the_textbooks_and_sum_to_one():
    described = 2 * drawn(9)
    ours = SMALL.log_probs(jnp.broadcast_to(described, (64, 9)), VALUES)
    wanted = probabilities(SMALL, described)
    np.testing.assert_allclose(np.exp(ours), wanted, rtol=1e-4, atol=1e-6 * wanted.max())
    assert float(np.exp(ours).sum()) == pytest.approx(1, rel=1e-5)


def test_far_from_every_mean_it_has_digits_and_a_gradient():
    narrow = jnp.concatenate([jnp.zeros(3), jnp.full(3, 3.9), jnp.full(3, -9.0)])
    for sample in (-1.0, -0.5, 31 / 32):
        value, gradient = jax.value_and_grad(lambda d, s=sample: SMALL.log_probs(d[None], jnp.asarray([s]))[0])(narrow)
        assert jnp.isfinite(value)
        assert jnp.isfinite(gradient).all()
    # About the distance to the mean in scales, of which float32 differences of sigmoids would leave 0.
    far = float(SMALL.log_probs(narrow[None], jnp.asarray([-0.5]))[0])
    assert far == pytest.approx(-(3.9 + 0.5 * 4) * np.exp(7), rel=0.02)


def test_sixteen_bits_sum_to_one_too():
    mixture = Logistics()
    described = jnp.concatenate([drawn(10), 40 * drawn(10, seed=1), drawn(10, seed=2)])
    values = (jnp.arange(65536) - 32768) / 32768
    log_probs = jax.jit(mixture.log_probs)(jnp.broadcast_to(described, (65536, 30)), values)
    assert float(np.exp(np.asarray(log_probs, np.float64)).sum()) == pytest.approx(1, rel=1e-3)


def test_what_is_drawn_has_these_probabilities():
    described = drawn(9, seed=3)
    count = 20_000
    samples = SMALL.draw(jnp.broadcast_to(described, (count, 9)), jax.random.key(1))
    assert (SMALL.quantized(samples) == samples).all()
    found = np.bincount(np.asarray(samples * 32 + 32, int), minlength=64) / count
    wanted = probabilities(SMALL, described)
    assert (abs(found - wanted) <= 6 * np.sqrt(wanted / count) + 6 / count).all()


def test_a_sample_becomes_the_nearest_that_there_is():
    given = jnp.asarray([-2.0, -1.0, 0.4 / 32, 0.6 / 32, 0.999, 3.0])
    assert (SMALL.quantized(given) * 32).tolist() == [-32, -32, 0, 1, 31, 31]


@pytest.mark.parametrize("fields", [{"components": 0}, {"bits": 0}, {"bits": 32}, {"stretch": 0.0}])
def test_what_describes_nothing_is_refused(fields):
    with pytest.raises(ConfigError, match="components: components=.*\nUse such as 10, 16 and 127.5"):
        Logistics(**fields)
