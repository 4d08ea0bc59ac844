"""Tiny GGUF files of every architecture, written by the library."""

import os
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from gguf.quants import dequantize, quantize

from cupola.interop.blocks import KINDS
from cupola.interop.fetch import MODELS, find

HIDDEN, HEADS, KEY_HEADS, HEAD, FEED, VOCABULARY, LAYERS = 32, 4, 2, 8, 64, 262, 2
ALPHABET = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or b >= 174]
UNSEEN = [b for b in range(256) if b not in ALPHABET]
BYTES = [chr(b) if b in ALPHABET else chr(256 + UNSEEN.index(b)) for b in range(256)]
"""The characters that stand for bytes in byte-level BPE."""
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def finite(kind, outputs, inputs, seed=0):
    """Rows of blocks with sane scales: random bytes, except that no half-precision number is huge."""
    values = np.random.default_rng(seed).normal(size=(outputs, inputs)).astype(np.float32)
    if kind not in (Kind.Q4_K, Kind.Q5_K, Kind.Q6_K):
        return quantize(values, kind)
    size = KINDS[kind][0]
    raw = np.random.default_rng(seed).integers(0, 256, (outputs * inputs // 256, size), dtype=np.uint8)
    halves = {Kind.Q6_K: [208]}.get(kind, [0, 2])
    for at in halves:
        raw[:, at : at + 2] = np.float16(0.01 + 0.001 * np.arange(len(raw)))[:, None].view(np.uint8)
    return raw.reshape(outputs, -1)


def matrices(architecture):
    """Shapes of a layer's matrices by the file's names."""
    return {
        "attn_q": (HEADS * HEAD, HIDDEN),
        "attn_k": (KEY_HEADS * HEAD, HIDDEN),
        "attn_v": (KEY_HEADS * HEAD, HIDDEN),
        "attn_output": (HIDDEN, HEADS * HEAD),
        "ffn_gate": (FEED, HIDDEN),
        "ffn_up": (FEED, HIDDEN),
        "ffn_down": (HIDDEN, FEED),
    }


def vectors(architecture):
    norms = {"attn_norm": HIDDEN, "ffn_norm": HIDDEN}
    if architecture in ("qwen3", "gemma3"):
        norms |= {"attn_q_norm": HEAD, "attn_k_norm": HEAD}
    if architecture == "gemma3":
        norms |= {"post_attention_norm": HIDDEN, "post_ffw_norm": HIDDEN}
    return norms


def write_gguf(path: Path, architecture="llama", kind=Kind.F32, *, change=lambda writer: None, **extra) -> Path:
    """Writes a model; `extra` adds or replaces entries, in which "__" stands for a dot."""
    writer = gguf.GGUFWriter(path, architecture)
    entries = {
        "context_length": 64,
        "embedding_length": HIDDEN,
        "block_count": LAYERS,
        "feed_forward_length": FEED,
        "attention.head_count": HEADS,
        "attention.head_count_kv": KEY_HEADS,
        "attention.key_length": HEAD,
        "attention.value_length": HEAD,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.freq_base": 10000.0,
    }
    if architecture == "gemma3":
        entries["attention.sliding_window"] = 4
    entries |= {name.replace("__", "."): value for name, value in extra.items()}
    for name, value in entries.items():
        add = {float: writer.add_float32, str: writer.add_string}.get(type(value), writer.add_uint32)
        if value is not None:
            add(f"{architecture}.{name}", value)
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *BYTES, "hi", "Ġhi", "<think>"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3, *[1] * 258, 4])
    writer.add_token_merges(["h i", "Ġ hi"])
    writer.add_eos_token_id(2)
    writer.add_bos_token_id(1)
    writer.add_chat_template(TEMPLATE)
    writer.add_string("general.license", "mit")
    random = np.random.default_rng(0)
    writer.add_tensor("token_embd.weight", random.normal(size=(VOCABULARY, HIDDEN)).astype(np.float32))
    writer.add_tensor("output_norm.weight", random.normal(1, 0.1, HIDDEN).astype(np.float32))
    for layer in range(LAYERS):
        for name, size in vectors(architecture).items():
            writer.add_tensor(f"blk.{layer}.{name}.weight", random.normal(1, 0.1, size).astype(np.float32))
        for i, (name, shape) in enumerate(matrices(architecture).items()):
            if kind in KINDS:
                writer.add_tensor(
                    f"blk.{layer}.{name}.weight", finite(kind, *shape, seed=10 * layer + i), raw_dtype=kind
                )
            else:
                values = random.normal(0, 0.2, shape).astype(np.float32)
                writer.add_tensor(f"blk.{layer}.{name}.weight", quantize(values, kind), raw_dtype=kind)
        if architecture == "qwen2":
            for name, size in {"attn_q": HEADS * HEAD, "attn_k": KEY_HEADS * HEAD, "attn_v": KEY_HEADS * HEAD}.items():
                writer.add_tensor(f"blk.{layer}.{name}.bias", random.normal(0, 0.2, size).astype(np.float32))
    change(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def numbers_in(path: Path) -> dict[str, np.ndarray]:
    """Every tensor as the library reads it."""
    reader = gguf.GGUFReader(path)
    return {t.name: dequantize(t.data, t.tensor_type).reshape(t.shape[::-1].tolist()) for t in reader.tensors}


def real(name: str) -> Path:
    """The file of a fetched model, or a skip that says how to get it."""
    shared = Path(os.environ.get("CUPOLA_SHARED", Path(__file__).parents[3] / "shared"))
    for file in (find(name), shared / MODELS[name].file, shared / "models" / name / MODELS[name].file):
        if file is not None and file.is_file():
            return file
    pytest.skip(f"{name} is not here: cupola fetch {name}")
