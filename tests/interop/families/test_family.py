"""Logits of transformers, for weights of every family on the way in and on the way out."""

import json
import subprocess
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cupola.core.dtype import FLOAT32
from cupola.interop.family import build
from cupola.interop.huggingface import export, read_folder

ROOT = Path(__file__).parents[3]
PYTHON = ROOT / ".venv-interop/bin/python"
NEAR = 1e-4
"""Of the largest logit: float32 sums in another order, through every layer."""
CASES = (
    "llama2",
    "llama3",
    "llama-linear",
    "mistral",
    "qwen2",
    "qwen2-window",
    "qwen3",
    "gemma3",
    "gemma3-scaled",
)

pytestmark = pytest.mark.skipif(
    not PYTHON.exists(), reason="transformers is not installed beside the project; type: bench/setup interop"
)


def run_peer(verb, folder):
    done = subprocess.run(
        [PYTHON, Path(__file__).with_name("peer_logits.py"), verb, folder], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("theirs")
    run_peer("make", folder)
    return folder


@pytest.fixture(scope="module")
def exported(theirs, tmp_path_factory):
    """What we read of theirs and wrote again, with the logits that they have for it."""
    folder = tmp_path_factory.mktemp("exported")
    for case in CASES:
        model, params = load(theirs / case)
        export(model, params, folder / case)
        np.save(folder / case / "tokens.npy", np.load(theirs / case / "tokens.npy"))
    run_peer("read", folder)
    return folder


def load(folder, **changes):
    held = read_folder(folder)
    return build(dict(held.config) | changes, held.tensors, precision=FLOAT32)


def logits(model, params, folder):
    tokens = jnp.asarray(np.load(folder / "tokens.npy"), jnp.int32)
    return jax.jit(lambda p: model.logits(p, model(p, tokens).states))(params)


def distance(ours, folder):
    expected = np.load(folder / "logits.npy")
    return np.abs(np.asarray(ours) - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("case", CASES)
def test_their_weights_give_their_logits(theirs, case):
    assert distance(logits(*load(theirs / case), theirs / case), theirs / case) < NEAR


@pytest.mark.parametrize("case", CASES)
def test_they_read_what_we_export(theirs, exported, case):
    assert distance(np.load(exported / case / "logits.npy"), theirs / case) < NEAR


@pytest.mark.parametrize(
    ("case", "changes"),
    [
        ("llama2", {"rms_norm_eps": 0.5}),
        ("llama3", {"rope_parameters": {"rope_theta": 5e3}}),
        ("mistral", {"sliding_window": 6}),
        ("qwen2-window", {"sliding_window": 6}),
        ("gemma3", {"query_pre_attn_scalar": 8}),
        ("gemma3", {"sliding_window": 5}),
        ("gemma3", {"hidden_activation": "silu"}),
    ],
    ids=str,
)
def test_another_config_gives_other_logits(theirs, case, changes):
    assert distance(logits(*load(theirs / case, **changes), theirs / case), theirs / case) > 10 * NEAR


def test_old_configs_are_read_as_they_were_meant(theirs):
    config = json.loads((theirs / "gemma3-scaled/config.json").read_text())
    new, _ = load(theirs / "gemma3-scaled")
    held = read_folder(theirs / "gemma3-scaled")
    del config["rope_parameters"]
    old = config | {
        "rope_theta": 1e6,
        "rope_scaling": {"type": "linear", "factor": 8.0},
        "rope_local_base_freq": 500.0,
    }
    assert build(old, held.tensors, precision=FLOAT32)[0] == new


def test_shards_and_bf16_were_among_them(theirs):
    assert len(list((theirs / "llama3").glob("model-*.safetensors"))) > 2
    assert {array.dtype.name for array in read_folder(theirs / "llama3").tensors.values()} == {"bfloat16"}
