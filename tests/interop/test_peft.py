import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny import CONFIGS, model_of, params_of, weights_of

from cupola.core.dtype import FLOAT32
from cupola.interop.errors import WeightsError
from cupola.interop.family import build
from cupola.interop.peft import by_layer, read_adapter, write_adapter
from cupola.layers.repeat import unstacked

TOKENS = jnp.asarray([[3, 1, 4, 1, 5, 9, 2, 6, 5, 3]])
CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 8, "bias": "none", "target_modules": ["q_proj"]}
MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
LLAMA = CONFIGS["llama"]


def factors_of(weights, modules=MODULES, rank=2):
    """Their A and B for every matrix of these kinds, by the names of PEFT."""
    random, made = np.random.default_rng(3), {}
    for name, held in weights.items():
        if name.endswith(".weight") and name.split(".")[-2] in modules:
            module = f"base_model.model.{name.removesuffix('.weight')}"
            made[f"{module}.lora_A.weight"] = random.normal(size=(rank, held.shape[1])).astype(np.float32)
            made[f"{module}.lora_B.weight"] = random.normal(size=(held.shape[0], rank)).astype(np.float32)
    return made


def merged(weights, factors, scale):
    """W + scale * B . A, as PEFT merges."""
    told = dict(weights)
    for name, down in factors.items():
        if name.endswith("lora_A.weight"):
            own = name.removeprefix("base_model.model.").replace("lora_A.", "")
            told[own] = weights[own] + np.float32(scale) * factors[name.replace("lora_A", "lora_B")] @ down
    return told


@pytest.fixture
def folder(tmp_path):
    """Writes an adapter of the tiny Llama, changed as asked."""

    def write(change=None, tensors=None):
        path = tmp_path / "adapter"
        path.mkdir(exist_ok=True)
        (path / "adapter_config.json").write_text(json.dumps(CONFIG | (change or {})))
        save_file(factors_of(weights_of(LLAMA)) if tensors is None else tensors, path / "adapter_model.safetensors")
        return path

    return write


@partial(jax.jit, static_argnums=0)
def logits(model, params):
    return model.logits(params, model(params, TOKENS).states)


@pytest.mark.parametrize(("name", "rslora"), [*((name, False) for name in CONFIGS), ("llama", True)])
def test_logits_are_those_of_the_merged_weights(name, rslora, folder):
    weights = weights_of(CONFIGS[name])
    factors = factors_of(weights)
    exact = merged(weights, factors, 8 / 2**0.5 if rslora else 4.0)
    model, base = build(CONFIGS[name], weights, precision=FLOAT32)
    read = read_adapter(folder({"use_rslora": rslora}, factors), model)
    assert len(read) == 7 * CONFIGS[name]["num_hidden_layers"]
    structure, leaves = jax.tree.structure(base), []
    for path, leaf in by_layer(base):
        leaves.append(leaf + (read[path][0] @ read[path][1]).reshape(leaf.shape) if path in read else leaf)
    ours, theirs = (
        logits(model, jax.tree.unflatten(structure, leaves)),
        logits(*build(CONFIGS[name], exact, precision=FLOAT32)),
    )
    assert np.allclose(ours, theirs, atol=1e-4)
    assert not np.allclose(ours, logits(model, base), atol=1e-2)


@pytest.mark.parametrize("name", CONFIGS)
def test_layers_are_numbered_through_all_parts_of_a_stack(name):
    model = model_of(CONFIGS[name])
    paths = [path for path, _ in by_layer(unstacked(model, params_of(model)))]
    numbers = [int(path.split(".")[0]) for path in paths if path.endswith("attention.query")]
    assert numbers == list(range(CONFIGS[name]["num_hidden_layers"]))


@pytest.mark.parametrize("modules", [MODULES, ("q_proj", "v_proj")])
def test_what_is_written_is_read_again(modules, folder, tmp_path):
    model = model_of(LLAMA)
    factors = read_adapter(folder(tensors=factors_of(weights_of(LLAMA), modules)), model)
    write_adapter(tmp_path / "out", factors, model, base="tiny")
    again = read_adapter(tmp_path / "out", model)
    assert again.keys() == factors.keys()
    for path, pair in factors.items():
        for ours, theirs in zip(again[path], pair, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["target_modules"] == sorted(modules)
    assert (config["base_model_name_or_path"], config["lora_alpha"], config["r"]) == ("tiny", 2, 2)


def test_a_few_layers_and_smaller_ranks_are_written_exactly(tmp_path):
    model, random = model_of(LLAMA), np.random.default_rng(0)
    factors = {
        "0.attention.query": (random.normal(size=(16, 3)), random.normal(size=(3, 16))),
        "1.feed_forward.down": (random.normal(size=(20, 1)), random.normal(size=(1, 16))),
    }
    write_adapter(tmp_path / "out", factors, model)
    again = read_adapter(tmp_path / "out", model)
    for path, (down, up) in factors.items():
        assert again[path][0].shape[1] == 3
        assert np.allclose(again[path][0] @ again[path][1], down @ up, atol=1e-5)
    targets = json.loads((tmp_path / "out" / "adapter_config.json").read_text())["target_modules"]
    assert targets == ["model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"]
    assert load_file(tmp_path / "out" / "adapter_model.safetensors").keys() == {
        f"base_model.model.{module}.lora_{letter}.weight" for module in targets for letter in "AB"
    }
    with pytest.raises(WeightsError, match="holds something"):
        write_adapter(tmp_path / "out", factors, model)
    for wrong in ({"9.attention.query": factors["0.attention.query"]}, {"norm.scale": factors["0.attention.query"]}):
        with pytest.raises(WeightsError, match="no matrix"):
            write_adapter(tmp_path / "other", wrong, model)
    with pytest.raises(WeightsError, match="another model"):
        write_adapter(tmp_path / "other", {"0.feed_forward.up": factors["0.attention.query"]}, model)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"peft_type": "IA3"}, "IA3"),
        ({"use_dora": True}, "use_dora"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "lora_only"}, 'bias="none"'),
        ({"lora_bias": True}, "lora_bias"),
        ({"rank_pattern": {"q_proj": 4}}, "rank_pattern"),
        ({"alpha_pattern": {"q_proj": 4}}, "alpha_pattern"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices"),
        ({"alora_invocation_tokens": [1, 2]}, "alora_invocation_tokens"),
        ({"init_lora_weights": "pissa_niter_16"}, "pissa"),
        ({"use_something_new": 3}, "use_something_new"),
        ({"r": 0}, "r is 0"),
        ({"r": 4}, r"\[4, 20\] is due"),
        ({"lora_alpha": None}, "lora_alpha"),
    ],
)
def test_what_would_be_ignored_is_refused_by_name(change, match, folder):
    with pytest.raises(WeightsError, match=match):
        read_adapter(folder(change), model_of(LLAMA))


def test_what_only_training_needed_is_read(folder):
    change = {"lora_dropout": 0.1, "init_lora_weights": "gaussian", "layers_to_transform": [0], "use_dora": False}
    assert read_adapter(folder(change), model_of(LLAMA))


Q = "base_model.model.model.layers.0.self_attn.q_proj"
A, B = np.zeros((2, 16), np.float32), np.zeros((16, 2), np.float32)


@pytest.mark.parametrize(
    ("tensors", "match"),
    [
        ({f"{Q}.lora_A.weight": A}, "only one factor"),
        ({f"{Q}.lora_A.weight": A, f"{Q}.lora_B.weight": A}, r"\[16, 2\] is due"),
        ({f"{Q}.lora_magnitude_vector": A}, "no factor of a matrix"),
        ({"base_model.model.model.embed_tokens.lora_embedding_A": A}, "no factor of a matrix"),
        ({"base_model.model.lm_head.lora_A.weight": A}, "no matrix lm_head"),
        ({"base_model.model.model.layers.0.self_attn.q_prok.lora_A.weight": A}, "q_proj"),
        ({"base_model.model.model.layers.7.self_attn.q_proj.lora_A.weight": A}, "no matrix"),
        ({f"{Q}.lora_A.weight": A.astype(np.int8)}, "I8"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(tensors, match, folder):
    with pytest.raises(WeightsError, match=match):
        read_adapter(folder(tensors=tensors), model_of(LLAMA))


def test_files_that_are_missing_or_would_be_run_are_refused(folder, tmp_path):
    model, path = model_of(LLAMA), folder()
    with pytest.raises(WeightsError, match="no adapter_config"):
        read_adapter(tmp_path / "nowhere", model)
    weights = path / "adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-8])
    with pytest.raises(WeightsError, match="truncated"):
        read_adapter(path, model)
    weights.unlink()
    with pytest.raises(WeightsError, match="holds no adapter_model"):
        read_adapter(path, model)
    (path / "adapter_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(WeightsError, match="pickle"):
        read_adapter(path, model)
    (path / "adapter_config.json").write_text("[]")
    with pytest.raises(WeightsError, match="JSON object"):
        read_adapter(path, model)
