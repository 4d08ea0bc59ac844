"""Run by a Python that has torch and transformers: makes models of every family, and reads those that we export.

peer_logits.py make FOLDER    a folder for each case, with its weights, tokens.npy and logits.npy
peer_logits.py read FOLDER    writes logits.npy into each folder in it
"""

import sys
from pathlib import Path

import numpy as np
import torch
import transformers

SIZES = {
    "vocab_size": 61,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5e3,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
GEMMA = SIZES | {"num_hidden_layers": 8, "head_dim": 8, "sliding_window": 4, "query_pre_attn_scalar": 6}
CASES = {
    "llama2": (transformers.LlamaConfig, SIZES | {"num_key_value_heads": 4, "rms_norm_eps": 1e-5}),
    "llama3": (transformers.LlamaConfig, SIZES | {"rope_parameters": LLAMA3, "tie_word_embeddings": True}),
    "llama-linear": (
        transformers.LlamaConfig,
        SIZES
        | {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}, "head_dim": 8}
        | {"attention_bias": True},
    ),
    "mistral": (transformers.MistralConfig, SIZES | {"sliding_window": 5}),
    "qwen2": (transformers.Qwen2Config, SIZES),
    "qwen2-window": (
        transformers.Qwen2Config,
        SIZES | {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
    ),
    "qwen3": (transformers.Qwen3Config, SIZES | {"head_dim": 8, "tie_word_embeddings": True}),
    "gemma3": (transformers.Gemma3TextConfig, GEMMA),
    "gemma3-scaled": (
        transformers.Gemma3TextConfig,
        GEMMA
        | {"num_hidden_layers": 6, "layer_types": ["full_attention", "sliding_attention"] * 3}
        | {
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 500.0},
            }
        },
    ),
}
SHARDED = "llama3"
"""Saved in bf16 and in shards."""


def save_logits(folder):
    """Writes the logits of the model in a folder, whose weights must be all that it needs and no more."""
    model, told = transformers.AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", dtype=torch.float32, output_loading_info=True
    )
    unmet = {key: sorted(map(str, names)) for key, names in told.items() if names}
    assert not unmet, f"{folder.name}: {unmet}"
    with torch.no_grad():
        np.save(folder / "logits.npy", model.eval()(torch.from_numpy(np.load(folder / "tokens.npy"))).logits.numpy())


def make(folder):
    for seed, (name, (kind, fields)) in enumerate(CASES.items()):
        torch.manual_seed(seed)
        config = kind(**fields, attn_implementation="eager")
        model = transformers.AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for path, parameter in model.named_parameters():  # biases and norms too, which begin all alike
                parameter += torch.randn_like(parameter) * (0.2 if parameter.ndim > 1 else 0.5)
                if path == "model.embed_tokens.weight":
                    parameter[0] = 0.1 * torch.randn_like(parameter[0])
        model = model.to(torch.bfloat16) if name == SHARDED else model
        model.save_pretrained(folder / name, max_shard_size="8KB" if name == SHARDED else "1GB")
        np.save(folder / name / "tokens.npy", torch.randint(fields["vocab_size"], (2, 24)).numpy())
        save_logits(folder / name)


def read(folder):
    for own in sorted(folder.iterdir()):
        save_logits(own)


if __name__ == "__main__":
    {"make": make, "read": read}[sys.argv[1]](Path(sys.argv[2]))
