import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cupola.core.dtype import BFLOAT16, FLOAT32, Precision
from cupola.kernels.choose import same_at_all_sizes
from cupola.kernels.matmul import Activations, Grouped, Packed, PackedGroups, Turned, activations_for, is_for
from cupola.kernels.matmul.form import dense
from cupola.layers.attention import Attention
from cupola.layers.block import Block
from cupola.layers.embedding import Head
from cupola.layers.feed_forward import GatedMLP
from cupola.layers.kv import Begin, Paged, Rows
from cupola.layers.linear import JOINED
from cupola.layers.repeat import Repeat, unstacked
from cupola.models.decoder import Decoder
from cupola.serve.run import Pool
from cupola.serve.weights import for_serving, least_rows

SEQUENCES, PAGE, VOCABULARY = 8, 8, 48
native = pytest.mark.skipif(not is_for(BFLOAT16), reason="there is no native library, or it is for other processors")


def decoder(precision: Precision, *, tied: bool = True) -> Decoder:
    block = Block(attention=Attention(heads=4, key_heads=2), feed_forward=GatedMLP(hidden=32))
    stack = Repeat(layers=2, block=block)
    head = None if tied else Head()
    return Decoder(vocabulary=VOCABULARY, width=32, max_length=64, stack=stack, head=head, precision=precision)


def quantized(model: Decoder, params):
    """Returns the parameters of layers and tables as a quantized file has them, and the same numbers as arrays."""
    draw = np.random.default_rng(0)

    def grouped(inputs: int, outputs: int) -> Grouped:
        codes = jnp.asarray(draw.integers(0, 256, (outputs, inputs // 2)), jnp.uint8)
        scales = jnp.asarray(draw.normal(size=(outputs, inputs // 16)) / 32, jnp.float16)
        return Grouped(codes, scales, shape=(inputs, outputs), bits=4, zero=8)

    def of_layer(path, array):
        name = path[-1].key
        if array.ndim < 2:
            return array
        inputs = array.shape[0] * (array.shape[1] if name == "output" else 1)
        return dataclasses.replace(grouped(inputs, array.size // inputs), shape=array.shape)

    kept = jax.tree_util.tree_map_with_path(of_layer, unstacked(model, params))
    for name in {"embedding", "head"} & set(kept):
        kept[name] = {"table": grouped(model.width, VOCABULARY)}
    plain = jax.tree.map(
        lambda x: dense(x).astype(jnp.float32) if isinstance(x, Grouped) else x,
        kept,
        is_leaf=lambda x: isinstance(x, Grouped),
    )
    for name in {"embedding", "head"} & set(kept):
        plain[name] = {"table": plain[name]["table"].T}
    return kept, plain


def decoded(model: Decoder, params, sequences: range):
    """Returns the logits of one more token of some sequences, whose own page holds nothing yet."""
    pool = Pool.empty(model, pages=1 + SEQUENCES, page_size=PAGE)
    numbers = jnp.asarray(sequences, jnp.int32)
    rows = Rows(table=1 + numbers[:, None], start=0 * numbers, width=1, begin=Begin.ANYWHERE)
    views = tuple(Paged(keys=k, values=v, groups=(rows,)) for k, v in zip(pool.keys, pool.values, strict=True))

    @jax.jit
    @same_at_all_sizes
    def step(params, tokens, views):
        hidden = model(params, tokens, positions=jnp.zeros_like(tokens), view=views)
        return model.logits(params, hidden.states)[0]

    return np.asarray(step(params, 3 + 5 * numbers[None], views), np.float32)


@native
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "a head of its own"])
def test_quantized_matrices_stay_packed_and_those_beside_each_other_become_one(tied):
    model = decoder(BFLOAT16, tied=tied)
    kept, _ = quantized(model, model.init(jax.random.key(0)))
    formed = for_serving(model, kept)
    attention, feed_forward = (formed["stack"]["block"][0][name] for name in ("attention", "feed_forward"))
    for form in (attention[JOINED], attention["output"], feed_forward[JOINED], feed_forward["down"]):
        assert isinstance(form, PackedGroups)
    assert {type(formed[name]["table"]) for name in {"embedding", "head"} & set(formed)} == {PackedGroups}
    apart = for_serving(model, kept, join=False)
    assert JOINED not in apart["stack"]["block"][0]["attention"]


@native
def test_matrices_of_unlike_forms_stay_apart():
    model = decoder(BFLOAT16)
    kept, plain = quantized(model, model.init(jax.random.key(0)))
    layers = [dict(layer) for layer in kept["stack"]["block"]]
    layers[0]["feed_forward"] = layers[0]["feed_forward"] | {"up": plain["stack"]["block"][0]["feed_forward"]["up"]}
    formed = for_serving(model, kept | {"stack": {"block": tuple(layers)}})
    first, second = (layer["feed_forward"] for layer in formed["stack"]["block"])
    assert isinstance(first["up"], Packed)
    assert JOINED in second


@pytest.mark.parametrize("precision", [FLOAT32, BFLOAT16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "a head of its own"])
def test_quantized_weights_err_no_more_than_the_same_numbers_dense(tied, precision):
    exact_model, model = decoder(FLOAT32, tied=tied), decoder(precision, tied=tied)
    kept, plain = quantized(model, exact_model.init(jax.random.key(0)))
    exact = decoded(exact_model, plain, range(SEQUENCES))
    ours, dense_ones = (
        np.abs(decoded(model, for_serving(model, each), range(SEQUENCES)) - exact).max() for each in (kept, plain)
    )
    assert np.abs(exact).max() > 0.1
    # Rounded to 8 bits a number is off by 1/254 of the largest of its group, which is some two of its own size; in
    # bfloat16 by 1/512 of its own.
    eight_bits = is_for(precision) and activations_for() is Activations.INT8
    assert ours <= (8 if eight_bits else 2) * dense_ones + np.finfo(np.float32).eps * np.abs(exact).max()


@native
@pytest.mark.parametrize("stored", [True, False], ids=["quantized", "dense"])
def test_steps_of_packed_matrices_may_have_one_row_and_a_row_has_the_same_bits(stored):
    model = decoder(BFLOAT16)
    kept, plain = quantized(model, model.init(jax.random.key(0)))
    formed = for_serving(model, kept if stored else plain)
    assert least_rows(formed) == 1
    run = partial(decoded, model, formed)
    np.testing.assert_array_equal(
        run(range(SEQUENCES)), np.concatenate([run(range(i, i + 1)) for i in range(SEQUENCES)])
    )


def test_steps_of_the_compilers_products_have_eight():
    model = decoder(FLOAT32)
    formed = for_serving(model, model.init(jax.random.key(0)))
    assert isinstance(formed["stack"]["block"][0]["feed_forward"]["down"], Turned)
    assert least_rows(formed) == 8
