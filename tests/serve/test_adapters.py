import json

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from cupola.core.dtype import FLOAT32
from cupola.interop.family import build, describe, named
from cupola.interop.peft import read_adapter
from cupola.serve.engine import Engine
from cupola.serve.generator import iterate
from cupola.serve.options import WarmUp
from cupola.serve.request import Request, Task

RANK, ALPHA = 3, 12
PROMPT = tuple(range(40, 64))


@pytest.fixture(scope="module")
def kept(language):
    """The model as Hugging Face names it: config and arrays."""
    family, config = describe(language.model)
    return config, dict(named(language.model, language.params, family))


@pytest.fixture(scope="module")
def theirs(kept):
    """A and B of every matrix of the layers."""
    random, made = np.random.default_rng(0), {}
    for name, held in kept[1].items():
        if "_proj" in name:
            made[name] = (
                0.2 * random.normal(size=(RANK, held.shape[1])),
                0.2 * random.normal(size=(held.shape[0], RANK)),
            )
    return made


@pytest.fixture(scope="module")
def engine(language, small, theirs, tmp_path_factory):
    """An engine with the adapter as PEFT writes it."""
    folder = tmp_path_factory.mktemp("adapter")
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    tensors = {}
    for name, pair in theirs.items():
        for letter, array in zip("AB", pair, strict=True):
            module = f"base_model.model.{name.removesuffix('.weight')}"
            tensors[f"{module}.lora_{letter}.weight"] = array.astype(np.float32)
    save_file(tensors, folder / "adapter_model.safetensors")
    options = small.replace("adapters", 2).replace("adapter_rank", 4).replace("warm_up", WarmUp.ESSENTIAL)
    with Engine(*language, options) as made:
        made.load_adapter("poet", read_adapter(folder, language.model))
        yield made


def log_probs(engine, adapter=None):
    request = Request(id="one", prompt=PROMPT, task=Task.SCORE, adapter=adapter, top_logprobs=1)
    *_, last = iterate(engine, request)
    return [token.log_prob for token in last.finish.prompt]


def test_log_probabilities_are_those_of_the_merged_weights(engine, kept, theirs):
    config, weights = kept
    merged = weights | {
        n: weights[n] + np.float32(ALPHA / RANK) * (b @ a).astype(np.float32) for n, (a, b) in theirs.items()
    }
    model, params = build(config, merged, precision=FLOAT32)
    tokens = jnp.asarray([PROMPT], jnp.int32)
    exact = model.log_probs(params, model(params, tokens).states[:, :-1], tokens[:, 1:])[0]
    assert np.allclose(log_probs(engine, "poet"), exact, atol=1e-4)
    assert np.abs(np.asarray(log_probs(engine)) - exact).max() > 0.1
