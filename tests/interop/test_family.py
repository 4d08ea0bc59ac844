from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import plain_llama
import pytest
from tiny import CONFIGS, model_of, params_of, stored, weights_of

from cupola.core.dtype import FLOAT32, Precision
from cupola.core.errors import ConfigError, Unsupported
from cupola.interop.errors import WeightsError
from cupola.interop.family import FAMILIES, build, describe
from cupola.layers.dropout import Dropout
from cupola.layers.feed_forward import GatedMLP
from cupola.layers.linear import Linear
from cupola.layers.norm import RMSNorm
from cupola.layers.repeat import Form, Repeat, stacked, unstacked

TOKENS = jnp.asarray([[3, 1, 4, 1, 5, 9, 2, 6, 5, 3], [2, 7, 1, 8, 2, 8, 1, 8, 2, 8]])
LLAMA = CONFIGS["llama"]


def logits(model, params):
    return jax.jit(lambda p: model.logits(p, model(p, TOKENS).states))(params)


@pytest.mark.parametrize("name", ["llama", "mistral"])
def test_logits_are_those_of_the_formula(name):
    config = CONFIGS[name] | {"sliding_window": None, "head_dim": 4, "rope_theta": 500.0, "rms_norm_eps": 1e-5}
    weights = weights_of(config)
    ours = logits(*build(config, weights, precision=FLOAT32))
    exact = np.stack([plain_llama.logits(config, weights, row) for row in np.asarray(TOKENS)])
    assert np.abs(ours - exact).max() < 1e-5 * np.abs(exact).max()
    other = plain_llama.logits(config | {"rope_theta": 400.0}, weights, np.asarray(TOKENS[0]))
    assert np.abs(ours[0] - other).max() > 1e-3 * np.abs(exact).max()


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_described_is_built_again(name):
    model = model_of(CONFIGS[name])
    params = params_of(model)
    family, config = describe(model)
    again, held = build(config, weights_of(CONFIGS[name]), precision=FLOAT32)
    assert again == model
    jax.tree.map(np.testing.assert_array_equal, held, unstacked(model, params))
    jax.tree.map(np.testing.assert_array_equal, stacked(model, held), params)
    assert FAMILIES[config["model_type"]] is family


@pytest.mark.parametrize("name", CONFIGS)
def test_a_view_of_every_layer_changes_no_number(name):
    model, params = build(CONFIGS[name], weights_of(CONFIGS[name]), precision=FLOAT32)
    step = jax.jit(lambda p, tokens, at, view: model(p, tokens, positions=at, view=view))
    whole = step(params, TOKENS, jnp.arange(10)[None], None).states
    view = tuple(held.empty_view(2, 16) for held in model.attentions())
    assert len(view) == CONFIGS[name]["num_hidden_layers"]
    for part in (slice(0, 6), slice(6, 9), slice(9, 10)):
        hidden = step(params, TOKENS[:, part], jnp.arange(10)[None, part], view)
        view = hidden.aside.view
        assert np.abs(hidden.states - whole[:, part]).max() < 1e-4


def test_gemma_sees_far_in_every_sixth_layer():
    attentions = model_of(CONFIGS["gemma3"]).attentions()
    assert [held.mask.window for held in attentions] == [3] * 5 + [None, 3]
    assert [held.rope.base for held in attentions] == [1e4] * 5 + [1e6, 1e4]
    assert [held.rope.scaling is None for held in attentions] == [True] * 5 + [False, True]


def test_parameters_come_in_the_precision():
    weights = weights_of(CONFIGS["qwen3"])
    _, params = build(CONFIGS["qwen3"], weights, precision=Precision(param=np.dtype("bfloat16")))
    assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"bfloat16"}


def test_matrices_may_come_in_a_form_and_stay_so():
    weights = weights_of(LLAMA)
    model, dense = build(LLAMA, weights, precision=FLOAT32)
    forms = {name: stored(array.T) for name, array in weights.items() if name.endswith("_proj.weight")}
    _, params = build(LLAMA, weights | forms, precision=FLOAT32)
    first = params["stack"]["block"][0]
    assert (first["attention"]["query"].shape, first["attention"]["output"].shape) == ((16, 4, 4), (4, 4, 16))
    exact = logits(model, dense)
    assert 0 < np.abs(logits(model, params) - exact).max() < 0.03 * np.abs(exact).max()


def test_each_tensor_is_read_once():
    asked = []

    class Watched(dict):
        def __getitem__(self, name):
            asked.append(name)
            return super().__getitem__(name)

    weights = Watched(weights_of(LLAMA))
    build(LLAMA, weights, precision=FLOAT32)
    assert sorted(asked) == sorted(weights)


def test_tensors_that_say_nothing_new_are_passed_over():
    config = CONFIGS["qwen3"]
    weights = weights_of(config)
    more = {
        "model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(3),
        "lm_head.weight": weights["model.embed_tokens.weight"],
    }
    build(config, weights | more, precision=FLOAT32)
    with pytest.raises(WeightsError, match="lm_head.weight is in no place .*\n.*tie_word_embeddings: false"):
        build(config, weights | {"lm_head.weight": 1 + more["lm_head.weight"]}, precision=FLOAT32)


def without(name, weights):
    return {k: v for k, v in weights.items() if k != name}


Q, NORM = "model.layers.1.self_attn.q_proj.weight", "model.norm.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (partial(without, Q), f"the tensor {Q} is missing\nDid you mean"),
        (lambda w: w | {"extra.weight": w[Q]}, "the tensor extra.weight is in no place of the model"),
        (lambda w: w | {"a": w[Q], "b": w[Q]}, r"the tensor a \(and 1 more\) is in no place"),
        (lambda w: w | {Q: stored(w[Q][:-1].T)}, rf"{Q}: has the shape \[15, 16\], but"),
        (lambda w: w | {Q: w[Q][:-1]}, rf"{Q}: has the shape \[15, 16\], but the config asks for \[16, 16\]"),
        (lambda w: w | {NORM: w[NORM][:, None]}, rf"{NORM}: has the shape \[16, 1\], but .* \[16\]"),
        (lambda w: w | {Q: w[Q].astype(np.int8)}, f"{Q}: holds int8 numbers\nUse unquantized weights."),
        (
            lambda w: w | {NORM: stored(w["lm_head.weight"].T)},
            f"{NORM}: is kept as Grouped, which only matrices may be",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(change, message):
    with pytest.raises(WeightsError, match=message):
        build(LLAMA, change(weights_of(LLAMA)), precision=FLOAT32)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (
            "llama",
            {"model_type": "lama"},
            "model_type is 'lama', which is not known\nDid you mean 'llama'.*Supported: llama, qwen2",
        ),
        ("llama", {"model_type": None}, "model_type is missing"),
        ("llama", {"model_type": ["llama"]}, "model_type is .*not known"),
        ("llama", {"model_type": "gemma3"}, "model_type is 'gemma3'.*\n.*gemma3_text"),
        ("llama", {"architectures": ["LlamaForSequenceClassification"]}, "architectures is .*\nOnly LlamaForCausalLM"),
        ("llama", {"quantization_config": {"bits": 4}}, "quantization_config is .* not supported"),
        ("llama", {"hidden_size": None}, "config.json: hidden_size is missing\nAdd it to config.json"),
        ("llama", {"hidden_size": 0}, "hidden_size is 0\nIt is a whole number from 1."),
        ("llama", {"hidden_size": True}, "hidden_size is True"),
        ("llama", {"hidden_size": "16"}, "hidden_size is '16'"),
        ("llama", {"num_attention_heads": 3, "head_dim": None}, "heads=3 does not divide width=16"),
        ("llama", {"num_key_value_heads": 3}, "key_heads=3 does not divide heads=4"),
        ("llama", {"rms_norm_eps": float("nan")}, "rms_norm_eps is nan\nIt is a number above 0."),
        ("llama", {"hidden_act": "swish"}, "hidden_act is 'swish', which is not supported\nSupported: gelu, "),
        ("llama", {"mlp_bias": True}, "mlp_bias is True, which is not supported\nIt can only be False."),
        ("llama", {"attention_bias": 1}, "attention_bias is 1\nIt is true or false."),
        ("llama", {"rope_scaling": {"type": "yarn", "factor": 2.0}}, "rope_scaling.type is 'yarn', which is not"),
        ("llama", {"rope_scaling": {"type": "linear"}}, "rope_scaling.factor is missing"),
        ("llama", {"rope_scaling": "linear"}, "rope_scaling is 'linear'\nIt is an object"),
        ("llama", {"rope_parameters": {"rope_theta": 1e4}}, "rope_theta is 500.0, but rope_parameters has 10000.0"),
        (
            "llama, scaled, tied, biased",
            {"rope_parameters": {"rope_type": "linear", "factor": 2.0}},
            "rope_scaling and rope_parameters differ",
        ),
        ("llama", {"rope_parameters": {"partial_rotary_factor": 0.5}}, "rope_parameters.partial_rotary_factor is 0.5"),
        (
            "mistral",
            {"layer_types": ["full_attention"] * 2},
            "layer_types is .* not supported\nIt can only be left out.",
        ),
        ("qwen2", {"layer_types": ["full_attention"]}, "layer_types lists 1 layers, but num_hidden_layers is 2"),
        ("qwen2", {"layer_types": ["linear_attention"] * 2}, "layer_types has 'linear_attention'\nSupported: full_att"),
        ("qwen2", {"layer_types": ["sliding_attention"] * 2}, "has sliding_attention, but use_sliding_window is false"),
        ("qwen2", {"layer_types": "full"}, "layer_types is 'full'\nIt is a list of words"),
        ("gemma3", {"final_logit_softcapping": 30.0}, "final_logit_softcapping is 30.0, which is not supported"),
        ("gemma3", {"use_bidirectional_attention": True}, "use_bidirectional_attention is True"),
        ("gemma3", {"sliding_window": None}, "sliding_window is missing"),
    ],
    ids=str,
)
def test_configs_that_cannot_be_honoured_are_refused_by_key(name, changes, message):
    with pytest.raises(ConfigError, match=message):
        build(CONFIGS[name] | changes, {}, precision=FLOAT32)


def test_what_no_output_depends_on_is_no_hindrance():
    model = model_of(LLAMA)
    trained = (
        model.replace("stack.form", Form.UNROLL)
        .replace("stack.block.dropout", Dropout(rate=0.5))
        .replace("stack.block.attention.head_width", None)
    )
    assert trained != model
    assert describe(trained) == describe(model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.replace("stack.block.attention.rope", None), "stack.block.attention.rope: no family leaves"),
        (lambda m: m.swap(GatedMLP, Linear(outputs=16)), "layer 0: Linear is in no family\nUse Block with GatedMLP."),
        (
            lambda m: m.replace("norm", RMSNorm(epsilon=0.5)),
            "in the nearest it would change:\n~ stack.block.attention_norm.epsilon: 1e-05 -> 0.5\n",
        ),
    ],
)
def test_models_that_no_family_can_say_are_refused(change, message):
    model = model_of(LLAMA)
    assert isinstance(model.stack, Repeat)
    with pytest.raises(Unsupported, match=message):
        describe(change(model))
