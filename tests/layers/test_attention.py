from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import plain
import pytest
from plain import normal

from cupola.core.dtype import FLOAT32
from cupola.core.errors import ConfigError
from cupola.core.module import flat_specs
from cupola.kernels.attention import CAUSAL, Mask
from cupola.kernels.rotary import Pairing
from cupola.layers.attention import Attention, Bias
from cupola.layers.norm import RMSNorm
from cupola.layers.position import LinearScaling, Rope

WIDTH, LENGTH, CAPACITY = 8, 7, 12
ROPE = Rope(max_length=32)


def layer(**fields):
    return Attention(**{"precision": FLOAT32, "width": WIDTH, "heads": 4, "rope": ROPE} | fields)


VARIANTS = {
    "rope": layer(),
    "order from the mask alone": layer(rope=None),
    "neighbours": layer(rope=Rope(max_length=32, pairing=Pairing.NEIGHBOURS, base=100.0)),
    "normed queries and keys": layer(query_norm=RMSNorm(), key_norm=RMSNorm(epsilon=1e-2, offset=1.0)),
    "normed queries alone": layer(query_norm=RMSNorm()),
    "biases on the way in": layer(key_heads=2, bias=Bias.INPUTS),
    "biases everywhere": layer(bias=Bias.ALL, rope=Rope(max_length=4096, scaling=LinearScaling(factor=2.0))),
    "biases but of keys": layer(bias=Bias.NO_KEY),
    "two key heads": layer(key_heads=2),
    "one key head and a window": layer(key_heads=1, mask=Mask(causal=True, window=2)),
    "heads of another width": layer(heads=3, head_width=6, scale=0.25),
    "both directions": layer(mask=Mask()),
}
GROWING = {name: variant for name, variant in VARIANTS.items() if variant.mask.causal}


@pytest.fixture
def x():
    return normal(2, LENGTH, WIDTH)


@partial(jax.jit, static_argnums=0)
def run(layer, p, x, **given):
    return layer(p, x, **given)


def params(layer, key):
    p = layer.init(key)
    vectors = (name for name in p if name.endswith(("_norm", "_bias")))
    for seed, name in enumerate(vectors, 9):  # which are all alike at first, and would hide each other
        p[name] = jax.tree.map(lambda x, seed=seed: x + normal(*x.shape, seed=seed) / 4, p[name])
    return p


@pytest.mark.parametrize("name", VARIANTS)
def test_is_the_plain_formula(name, x, key):
    layer = VARIANTS[name]
    p = params(layer, key)
    # Two documents and padding in the first row; positions that start anywhere in the second.
    segments = jnp.asarray([[1, 1, 1, 2, 2, 0, 0], [5] * 7])
    positions = jnp.asarray([[0, 1, 2, 0, 1, 0, 0], range(20, 27)])
    ours, aside = run(layer, p, x, positions=positions, segments=segments)
    formula = partial(plain.attention, layer, positions=np.asarray(positions), segments=np.asarray(segments))
    assert plain.matches(ours, formula, p, x)
    assert aside.view is None
    # The control: with everything in one document it is another result.
    whole = partial(plain.attention, layer, positions=np.asarray(positions), segments=np.ones((2, 7)))
    assert not plain.matches(ours, whole, p, x)


@pytest.mark.parametrize("name", ["rope", "one key head and a window"])
def test_packed_is_separate(name, x, key):
    layer = VARIANTS[name]
    p = layer.init(key)
    segments = jnp.asarray([[1, 1, 1, 2, 2, 2, 2]] * 2)
    packed, _ = run(layer, p, x, positions=jnp.asarray([[0, 1, 2, 0, 1, 2, 3]]), segments=segments)
    for part in (slice(0, 3), slice(3, 7)):
        positions = jnp.arange(part.stop - part.start)[None]
        alone, _ = run(layer, p, x[:, part], positions=positions)
        assert plain.reordered(packed[:, part], alone, terms=LENGTH)
    unpacked, _ = run(layer, p, x, positions=jnp.asarray([[0, 1, 2, 0, 1, 2, 3]]))
    assert not plain.reordered(unpacked[:, 3:], alone, terms=LENGTH)


def test_rope_counts_differences_only(x, key):
    layer = VARIANTS["rope"]
    p = layer.init(key)
    here, there = (run(layer, p, x, positions=jnp.arange(LENGTH)[None] + start)[0] for start in (0, 20))
    assert plain.reordered(here, there, terms=20)  # an angle of 20 radians is rounded 20 times as coarsely
    backwards, _ = run(layer, p, x, positions=jnp.arange(LENGTH)[::-1][None])
    assert not plain.reordered(here, backwards, terms=20)


@pytest.mark.parametrize("name", GROWING)
def test_a_view_changes_no_number(name, x, key):
    layer = GROWING[name]
    p = params(layer, key)
    whole, _ = run(layer, p, x, positions=jnp.arange(LENGTH)[None])
    view, parts, at = layer.empty_view(2, CAPACITY), [], 0
    for size in (3, 1, 3):
        out, aside = run(layer, p, x[:, at : at + size], positions=jnp.arange(at, at + size)[None], view=view)
        view, at = aside.view, at + size
        parts.append(out)
    assert np.abs(jnp.concatenate(parts, 1) - whole).max() < 1e-5


def test_rows_grow_from_where_each_stands_over_the_padding_of_a_prompt(x, key):
    layer = VARIANTS["two key heads"]
    p = layer.init(key)
    whole, _ = run(layer, p, x, positions=jnp.arange(LENGTH)[None])
    lengths = jnp.asarray([2, 4])
    prompts = jnp.where(jnp.arange(LENGTH)[None, :, None] < lengths[:, None, None], x, 99.0)
    _, aside = run(layer, p, prompts, positions=jnp.arange(LENGTH)[None], view=layer.empty_view(2, CAPACITY))
    for step in range(3):
        at = lengths + step
        token = jnp.take_along_axis(x, at[:, None, None], 1)
        out, aside = run(layer, p, token, positions=at[:, None], view=aside.view)
        assert np.abs(out[:, 0] - whole[jnp.arange(2), at]).max() < 1e-5
    # The control: a token put one place too far sees the padding.
    out, _ = run(layer, p, token, positions=at[:, None] + 1, view=aside.view)
    assert np.abs(out[:, 0] - whole[jnp.arange(2), at]).max() > 1e-3


def test_its_parameters_and_what_they_cost():
    layer = VARIANTS["heads of another width"]
    shapes = {path: (param.shape, param.dims, param.fan_in) for path, param in flat_specs(layer.specs())}
    assert shapes == {
        "query": ((8, 3, 6), "D H C", 8),
        "key": ((8, 3, 6), "D K C", 8),
        "value": ((8, 3, 6), "D K C", 8),
        "output": ((3, 6, 8), "H C D", 18),
    }
    seen = 5 * 6 // 2
    assert layer.flops(2, 5) == 2 * (2 * 5) * (4 * 8 * 3 * 6) + 4 * 2 * seen * 3 * 6
    shared = VARIANTS["normed queries and keys"].replace("key_heads", 1).specs()
    assert (shared["key"].shape, shared["query_norm"]["scale"].shape) == ((8, 1, 2), (2,))
    biased = VARIANTS["biases everywhere"]
    assert biased.flops(2, 5) == VARIANTS["rope"].flops(2, 5)  # what is added to a product is no product
    assert biased.count() - VARIANTS["rope"].count() == 4 * 8


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"heads": 3}, "heads=3 does not divide width=8\nUse heads=1 or 2 or 4, or give head_width."),
        ({"width": 64, "heads": 30}, "heads=30 does not divide width=64\nUse heads=8 or 16 or 32, or give head_width."),
        (
            {"key_heads": 3},
            "key_heads=3 does not divide heads=4\n"
            "Each key head serves the same number of query heads. Use key_heads=1, 2, 4.",
        ),
        ({"heads": 8}, "rope: head_width=1 has no pairs to turn\nUse a head of 2, or rope=None."),
        ({"head_width": 5}, "rope: head_width=5 has no pairs to turn\nUse a head of 6, or rope=None."),
    ],
)
def test_heads_that_do_not_fit_are_refused_with_what_would(fields, message):
    with pytest.raises(ConfigError) as caught:
        layer(**fields)
    assert str(caught.value) == message


def test_what_the_remedies_say_is_accepted():
    assert all(layer(heads=heads).head_size == 8 // heads for heads in (1, 2, 4))
    assert layer(width=64, heads=32).head_size == 2
    assert layer(heads=8, rope=None).head_size == 1
    assert layer().mask is CAUSAL
