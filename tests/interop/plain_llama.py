"""Llama as its authors wrote it down, in numpy and float64, one token and one head at a time."""

import numpy as np


def logits(config, tensors, tokens):
    """Returns the logits of one sequence, from tensors by their Hugging Face names."""
    t = {name: np.asarray(array, np.float64) for name, array in tensors.items()}
    x = t["model.embed_tokens.weight"][tokens]
    for layer in range(config["num_hidden_layers"]):
        own = {
            k.removeprefix(f"model.layers.{layer}."): v for k, v in t.items() if k.startswith(f"model.layers.{layer}.")
        }
        y = normed(x, own["input_layernorm.weight"], config["rms_norm_eps"])
        x = x + attended(config, own, y) @ own["self_attn.o_proj.weight"].T
        y = normed(x, own["post_attention_layernorm.weight"], config["rms_norm_eps"])
        gate = y @ own["mlp.gate_proj.weight"].T
        x = x + (gate / (1 + np.exp(-gate)) * (y @ own["mlp.up_proj.weight"].T)) @ own["mlp.down_proj.weight"].T
    x = normed(x, t["model.norm.weight"], config["rms_norm_eps"])
    return x @ t["lm_head.weight" if "lm_head.weight" in t else "model.embed_tokens.weight"].T


def normed(x, weight, epsilon):
    return weight * x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon)


def attended(config, own, y):
    heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
    width = config["hidden_size"] // heads
    out = []
    for t in range(len(y)):
        row = []
        for head in range(heads):
            group = head * groups // heads
            query = turned(part(own, "q", head, width) @ y[t], t, config["rope_theta"])
            keys = [turned(part(own, "k", group, width) @ y[s], s, config["rope_theta"]) for s in range(t + 1)]
            shares = np.exp(np.asarray(keys) @ query / np.sqrt(width))
            row.append(shares / shares.sum() @ np.asarray([part(own, "v", group, width) @ y[s] for s in range(t + 1)]))
        out.append(np.concatenate(row))
    return np.asarray(out)


def part(own, name, head, width):
    return own[f"self_attn.{name}_proj.weight"][head * width : (head + 1) * width]


def turned(x, position, base):
    half = len(x) // 2
    pairs = (x[:half] + 1j * x[half:]) * np.exp(1j * position * base ** (-np.arange(half) / half))
    return np.concatenate([pairs.real, pairs.imag])
