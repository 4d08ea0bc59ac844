"""The peer of bench/train_cpu.py: one training step of transformers' Llama on torch, kept compiled.

Run by the Python of .venv-train_cpu. Not here: what is compared and how (`bench/train_cpu.py`).
"""

import argparse
import ctypes
import functools
import json
import platform
import sys
from pathlib import Path
from typing import Any

import torch
import transformers

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import harness


def main() -> None:
    """Builds the model that standard options describe and serves its step."""
    parser = argparse.ArgumentParser()
    parser.add_argument("precision", choices=("float32", "bf16"))
    parser.add_argument("form", choices=("eager", "compiled"))
    parser.add_argument("optimizer", choices=("fused", "foreach"))
    parser.add_argument("memory", choices=("kept", "returned"))
    parser.add_argument("threads", type=int)
    parser.add_argument("model", type=json.loads)
    asked = parser.parse_args()
    if asked.memory == "kept":
        libc = ctypes.CDLL(None)
        libc.mallopt(-4, 0)  # M_MMAP_MAX
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
    torch.set_num_threads(asked.threads)
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    harness.serve(training_step(asked), versions=versions | {"peer python": platform.python_version()})


def training_step(asked: Any) -> Any:
    """Returns a function that takes one training step and waits for its loss."""
    torch.manual_seed(0)
    shape = asked.model
    config = transformers.LlamaConfig(
        vocab_size=shape["vocabulary"],
        hidden_size=shape["width"],
        intermediate_size=shape["hidden"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"],
        num_key_value_heads=shape["heads"],
        max_position_embeddings=shape["length"],
        tie_word_embeddings=False,
        use_cache=False,
        attn_implementation="sdpa",
    )
    model = transformers.LlamaForCausalLM(config).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, **{asked.optimizer: True}
    )
    forward = torch.compile(model) if asked.form == "compiled" else model
    tokens = torch.randint(0, shape["vocabulary"], (shape["batch"], shape["length"]))
    autocast = functools.partial(torch.autocast, "cpu", dtype=torch.bfloat16, enabled=asked.precision == "bf16")

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        with autocast():
            loss = forward(input_ids=tokens, labels=tokens).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    for _ in range(3):
        step()
    return step


if __name__ == "__main__":
    main()
