import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import plain
import pytest
from plain import normal

from cupola.core.dtype import FLOAT32
from cupola.core.errors import ConfigError, ShapeError
from cupola.layers.attention import Bias
from cupola.layers.cross_attention import CrossAttention

WIDTH, OTHER, HEADS, LENGTH, SEEN = 8, 6, 2, 3, 5
LAYERS = {
    "no bias": CrossAttention(precision=FLOAT32, width=WIDTH, heads=HEADS),
    "another width, biases": CrossAttention(
        precision=FLOAT32, width=WIDTH, memory_width=OTHER, heads=HEADS, bias=Bias.NO_KEY
    ),
}


def params(layer, key):
    p = layer.init(key)
    return {n: normal(*x.shape, seed=i) / 4 if n.endswith("_bias") else x for i, (n, x) in enumerate(p.items())}


def formula(layer, segments, p, x, states):
    """The textbook, a row of `x` for each row of `states`."""
    queries = np.einsum("btd,dhc->bthc", x, p["query"])
    keys, values = (np.einsum("bsd,dhc->bshc", states, p[name]) for name in ("key", "value"))
    bias = layer.bias.value
    queries, keys, values = (
        y + p[f"{name}_bias"] if name in bias else y
        for y, name in ((queries, "query"), (keys, "key"), (values, "value"))
    )
    scores = np.einsum("bthc,bshc->bhts", queries, keys) * x.dtype.type(layer.head_size**-0.5)
    weights = np.exp(scores) * (segments[:, None, None] > 0)
    mixed = np.einsum("bhts,bshc->bthc", weights / weights.sum(-1, keepdims=True), values)
    out = np.einsum("bthc,hcd->btd", mixed, p["output"])
    return out + p["output_bias"] if "output" in bias else out


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("padded", [False, True])
def test_is_the_plain_formula(name, padded, key):
    layer = LAYERS[name]
    p, x = params(layer, key), normal(2, LENGTH, WIDTH, seed=5)
    states = normal(2, SEEN, layer.memory_width or WIDTH, seed=6)
    segments = np.asarray([[1, 1, 1, 0, 0], [1] * 5]) if padded else np.ones((2, SEEN), int)
    told = jnp.asarray(segments) if padded else None
    ours = jax.jit(lambda p, x, states: layer(p, x, layer.remember(p, states, told)))(p, x, states)
    assert plain.matches(ours, lambda *given: formula(layer, segments, *given), p, x, states)
    # The control: other keys are another result.
    fewer = np.asarray([[1, 1, 0, 0, 0]] * 2)
    assert not plain.matches(ours, lambda *given: formula(layer, fewer, *given), p, x, states)


def test_rows_next_to_each_other_share_a_memory(key):
    layer = LAYERS["no bias"]
    p, x, states = params(layer, key), normal(6, LENGTH, WIDTH), normal(2, SEEN, WIDTH, seed=6)
    shared = layer(p, x, layer.remember(p, states))
    apart = layer(p, x, layer.remember(p, jnp.repeat(states, 3, axis=0)))
    assert plain.reordered(shared, apart, terms=SEEN)
    # The control: a memory of its own makes a difference.
    assert not plain.reordered(shared, layer(p, x, layer.remember(p, jnp.tile(states, (3, 1, 1)))), terms=SEEN)


def test_what_does_not_fit_is_refused(key):
    layer = LAYERS["no bias"]
    p = params(layer, key)
    memory = layer.remember(p, normal(2, SEEN, WIDTH))
    with pytest.raises(ShapeError, match="3 rows do not share 2 memories evenly"):
        layer(p, normal(3, LENGTH, WIDTH), memory)
    with pytest.raises(ConfigError, match="heads=3 does not divide width=8"):
        dataclasses.replace(layer, heads=3)


def test_its_work_is_that_of_queries_and_outputs():
    assert LAYERS["no bias"].flops(2, LENGTH) == 2 * 2 * LENGTH * 2 * WIDTH * WIDTH
