import jax

from cupola.core.rng import stream


def same(a, b):
    return (jax.random.key_data(a) == jax.random.key_data(b)).all()


def test_a_stream_depends_on_the_key_and_the_name_only(key):
    assert same(stream(key, "block.up"), stream(jax.random.key(0), "block.up"))
    assert not same(stream(key, "block.up"), stream(key, "block.down"))
    assert not same(stream(key, "block.up"), stream(jax.random.key(1), "block.up"))
    assert not same(stream(key, "block.up"), key)
