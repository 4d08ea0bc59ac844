"""A trace holds what ran inside it."""

import jax.numpy as jnp

from cupola.observe.profile import step, trace


def test_a_trace_is_written(tmp_path):
    x = jnp.ones((8, 8))
    with trace(tmp_path), step(3):
        (x @ x).block_until_ready()
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert any(p.name.endswith(".xplane.pb") and b"train" in p.read_bytes() for p in files)
