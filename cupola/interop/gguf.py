"""Models in GGUF files, as llama.cpp has them, under the names and in the layout of Hugging Face.

Not here: the file's structure (`header.py`), quantized blocks (`blocks.py`), its tokenizer
(`tokenizer.py`), what a model is built from (`family.py`).
Invariant: what the conversion to GGUF changed is changed back: queries and keys of llama whose
rotary pairs it brought together, norms of gemma to which it added 1.
"""

import dataclasses
import enum
import functools
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType
from gguf.quants import dequantize

from cupola.interop.blocks import KINDS, grouped
from cupola.interop.errors import WeightsError
from cupola.interop.header import Stored, read_header
from cupola.kernels.matmul import Grouped


class Weights(enum.Enum):
    """How weights that come quantized are kept in memory."""

    DENSE = "dense"
    """As arrays."""
    STORED = "stored"
    """Matrices as they are stored, in groups of 4 or 8 bits; products make them dense as they go."""
    AUTO = "auto"
    """As stored where that is the fastest: where native kernels make them dense. Else as arrays."""


_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_GEMMA_NAMES = {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_ROPE_FACTORS = "rope_freqs.weight"
"""Llama 3.1 and later: by how much each rotary frequency is divided."""
_ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma3")
_ORIGINAL_LENGTH = 8192
"""Of Llama 3, whose scaled frequencies are the only ones that GGUF keeps as a table."""


@dataclasses.dataclass(frozen=True)
class GGUF:
    """A model in a file.

    Args:
        path: the file.
        metadata: what the file says, by its own keys.
        config: the same as a Hugging Face config.json would say it.
        tensors: arrays in float32 by Hugging Face names, [out, in], made when they are asked for. With
            `Weights.STORED` or `AUTO`, a quantized matrix is `Grouped`, which stands for [in, out].
    """

    path: Path
    metadata: dict[str, Any]
    config: dict[str, Any]
    tensors: Mapping[str, "np.ndarray | Grouped"]


def read_gguf(path: str | os.PathLike[str], *, weights: Weights = Weights.DENSE) -> GGUF:
    """Returns the model in a GGUF file; its tensors are read as they are asked for.

    Args:
        path: the file.
        weights: how quantized matrices are given.

    Raises:
        WeightsError: no such file, truncated, corrupt, or of an architecture or type that is not read.
    """
    path = Path(path)
    header = read_header(path)
    said = _Said(header.metadata, str(path))
    architecture = said.text("general.architecture")
    if architecture not in _ARCHITECTURES:
        said.refuse(f"is of the architecture {architecture!r}", f"These are read: {', '.join(_ARCHITECTURES)}.")
    names = _names(header.tensors, architecture, said)
    if weights is Weights.STORED and not any(_is_kept(name, header.tensors[own]) for name, own in names.items()):
        said.refuse("holds no quantized matrix that could be kept as it is stored", "Leave weights out.")
    factors = _Tensors(path, header.tensors, {_ROPE_FACTORS: _ROPE_FACTORS}, {}, Weights.DENSE)
    config = _config(said, architecture, header.tensors, factors)
    changes = _changes(architecture, config)
    return GGUF(path, header.metadata, config, _Tensors(path, header.tensors, names, changes, weights))


class _Said:
    """Metadata of which each number is checked when it is taken."""

    def __init__(self, metadata: Mapping[str, Any], where: str):
        self.metadata, self._where = metadata, where
        self.prefix = f"{metadata.get('general.architecture')}."

    def refuse(self, problem: str, remedy: str = "Convert the model again.") -> Any:
        raise WeightsError(problem, where=self._where, remedy=remedy)

    def text(self, key: str) -> str:
        value = self.metadata.get(key)
        return value if isinstance(value, str) else self.refuse(f"has {key}={value!r}, which should be a text")

    def number(self, name: str, default: Any = None) -> Any:
        key = self.prefix + name
        value = self.metadata.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 2**31:
            self.refuse(f"has {key}={value!r}, which should be a number above 0")
        return value

    def whole(self, name: str, default: Any = None) -> int:
        value = self.number(name, default)
        return value if isinstance(value, int) else self.refuse(f"has {self.prefix}{name}={value}: no whole number")

    def has(self, name: str) -> bool:
        return self.prefix + name in self.metadata


def _names(tensors: Mapping[str, Stored], architecture: str, said: _Said) -> dict[str, str]:
    """The file's name of each tensor by its Hugging Face name."""
    table = _NAMES | (_GEMMA_NAMES if architecture == "gemma3" else {})
    names = {}
    for stored in tensors:
        if stored == _ROPE_FACTORS:
            continue
        stem, _, end = stored.rpartition(".")
        block, _, rest = stem.removeprefix("blk.").partition(".")
        inside = stem.startswith("blk.") and block.isdecimal()
        known = table.get(rest if inside else stem)
        if known is None or end not in ("weight", "bias"):
            said.refuse(
                f"holds the tensor {stored}, which {architecture} models here do not have",
                "Use a plain dense model of this family.",
            )
        names[f"model.layers.{block}.{known}.{end}" if inside else f"{known}.{end}"] = stored
    if "model.embed_tokens.weight" not in names:
        said.refuse("holds no token_embd.weight")
    return names


def _config(
    said: _Said, architecture: str, tensors: Mapping[str, Stored], factors: Mapping[str, Any]
) -> dict[str, Any]:
    hidden, heads = said.whole("embedding_length"), said.whole("attention.head_count")
    head_dim = said.whole("attention.key_length", hidden // heads or None)
    if (
        said.whole("rope.dimension_count", head_dim) != head_dim
        or said.whole("attention.value_length", head_dim) != head_dim
    ):
        said.refuse(
            "turns only a part of each head, or has values of another width than keys",
            "Use another model: this is not read.",
        )
    base = float(said.number("rope.freq_base", 1e6 if architecture == "gemma3" else 1e4))
    model_type = "gemma3_text" if architecture == "gemma3" else architecture
    config = {
        "model_type": model_type,
        "vocab_size": tensors["token_embd.weight"].shape[0],
        "hidden_size": hidden,
        "intermediate_size": said.whole("feed_forward_length"),
        "num_hidden_layers": said.whole("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": said.whole("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "max_position_embeddings": said.whole("context_length"),
        "rms_norm_eps": float(said.number("attention.layer_norm_rms_epsilon")),
        "rope_theta": base,
        "rope_scaling": _scaling(said, base, head_dim, factors),
        "tie_word_embeddings": "output.weight" not in tensors,
        "attention_bias": "blk.0.attn_q.bias" in tensors,
        "mlp_bias": "blk.0.ffn_up.bias" in tensors,
        "hidden_act": "silu",
        "bos_token_id": said.metadata.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": said.metadata.get("tokenizer.ggml.eos_token_id"),
    }
    return config | (_gemma(said, config) if architecture == "gemma3" else {})


def _gemma(said: _Said, config: Mapping[str, Any]) -> dict[str, Any]:
    """What llama.cpp knows of Gemma 3 without being told."""
    layers, pattern = config["num_hidden_layers"], said.whole("attention.sliding_window_pattern", 6)
    # The largest of the family divides its scores by another width than that of a head.
    scale = config["hidden_size"] // config["num_attention_heads"] if layers == 62 else config["head_dim"]
    kinds = ["sliding_attention" if (i + 1) % pattern else "full_attention" for i in range(layers)]
    return {
        "hidden_activation": "gelu_pytorch_tanh",
        "sliding_window": said.whole("attention.sliding_window"),
        "layer_types": kinds,
        "rope_local_base_freq": float(said.number("rope.freq_base_swa", 1e4)),
        "query_pre_attn_scalar": scale,
        "final_logit_softcapping": None,
        "attn_logit_softcapping": None,
    }


def _scaling(said: _Said, base: float, head_dim: int, factors: Mapping[str, Any]) -> dict[str, Any] | None:
    if _ROPE_FACTORS in factors:
        return _llama3_scaling(said, base, head_dim, np.asarray(factors[_ROPE_FACTORS], np.float64))
    if not said.has("rope.scaling.type") or (kind := said.text(said.prefix + "rope.scaling.type")) == "none":
        return None
    if kind != "linear":
        said.refuse(f"scales its rotary positions by {kind!r}", "Use another model: linear and Llama 3's are read.")
    return {"rope_type": "linear", "factor": float(said.number("rope.scaling.factor"))}


def _llama3_scaling(said: _Said, base: float, head_dim: int, table: np.ndarray) -> dict[str, Any]:
    """Llama 3's four numbers, of which the file keeps only the table that follows from them."""
    factor, low, high = float(table.max()), 1.0, 4.0
    waves = 2 * math.pi * base ** (np.arange(0, head_dim, 2) / head_dim)
    share = np.clip((_ORIGINAL_LENGTH / waves - low) / (high - low), 0, 1)
    if table.shape != waves.shape or not np.allclose(table, 1 / ((1 - share) / factor + share), rtol=1e-3):
        said.refuse(
            f"divides its rotary frequencies by a table ({_ROPE_FACTORS}) that is not Llama 3's", "Use another model."
        )
    return {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": _ORIGINAL_LENGTH,
    }


Change = Callable[[np.ndarray], np.ndarray]


def _changes(architecture: str, config: Mapping[str, Any]) -> dict[str, Change]:
    """By the end of a tensor's Hugging Face name, what undoes the conversion; it sees rows of bytes or numbers."""
    if architecture == "gemma3":
        return {"norm.weight": lambda norm: norm - np.float32(1)}
    if architecture != "llama":
        return {}
    changes: dict[str, Change] = {}
    for name, heads in (("q_proj", config["num_attention_heads"]), ("k_proj", config["num_key_value_heads"])):
        apart = functools.partial(_pairs_apart, heads=heads)
        changes |= {f"{name}.weight": apart, f"{name}.bias": apart}
    return changes


def _pairs_apart(rows: np.ndarray, heads: int) -> np.ndarray:
    """Moves the two numbers of each rotary pair from beside each other to half a head apart."""
    if len(rows) % (2 * heads):
        raise WeightsError(f"{len(rows)} rows do not make {heads} heads of pairs", remedy="Convert the model again.")
    order = np.arange(len(rows)).reshape(heads, -1, 2).swapaxes(1, 2).reshape(-1)
    return rows[order]


class _Tensors(Mapping[str, "np.ndarray | Grouped"]):
    """Tensors that are read when they are asked for."""

    def __init__(
        self,
        path: Path,
        stored: Mapping[str, Stored],
        names: Mapping[str, str],
        changes: Mapping[str, Change],
        weights: Weights,
    ):
        self._path, self._stored, self._changes, self._weights = path, stored, changes, weights
        self._names = {name: own for name, own in names.items() if own in stored}

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, name: str) -> "np.ndarray | Grouped":
        place = self._stored[self._names[name]]
        data = np.memmap(self._path, np.uint8, "r", place.start, (place.size_bytes,))
        rows = data.reshape(*place.shape[:-1], -1) if len(place.shape) > 1 else data.reshape(place.shape[0], -1)
        change = next((c for end, c in self._changes.items() if name.endswith(end)), lambda same: same)
        if self._weights is not Weights.DENSE and _is_kept(name, place):
            return grouped(change(rows), place.kind)
        return np.ascontiguousarray(change(_numbers(rows, place.kind).reshape(place.shape)))


def _is_kept(name: str, place: Stored) -> bool:
    """Whether a tensor can stay as it is stored."""
    return len(place.shape) == 2 and place.kind in KINDS


def _numbers(rows: np.ndarray, kind: GGMLQuantizationType) -> np.ndarray:
    return np.asarray(dequantize(np.ascontiguousarray(rows), kind), np.float32)
