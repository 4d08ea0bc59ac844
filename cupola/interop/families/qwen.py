"""Qwen 2, whose queries, keys and values have biases; and Qwen 3, which normalizes queries and keys instead.

Source: Yang et al. 2024 (Qwen2); Yang et al. 2025 (Qwen3), section 2.
"""

from typing import Any

from cupola.interop.families.family import (
    FULL,
    SLIDING,
    Family,
    attention,
    block,
    decoder,
    kinds_of,
    layer_types,
    norm,
    shared_config,
    window_of,
)
from cupola.interop.families.llama import NAMES
from cupola.interop.keys import Keys
from cupola.interop.rotary import read_rope
from cupola.layers.attention import Bias
from cupola.models.decoder import Decoder

_QWEN3_NAMES = NAMES | {
    "block.attention.query_norm.scale": "model.layers.{}.self_attn.q_norm.weight",
    "block.attention.key_norm.scale": "model.layers.{}.self_attn.k_norm.weight",
}


def _qwen2(keys: Keys) -> Decoder:
    keys.only("attention_bias", True)
    return _decoder(keys, bias=Bias.INPUTS)


def _qwen3(keys: Keys) -> Decoder:
    bias = Bias.ALL if keys.flag("attention_bias", False) else Bias.NONE
    return _decoder(keys, head_width=128, bias=bias, query_norm=norm(keys), key_norm=norm(keys))


def _decoder(keys: Keys, **fields: Any) -> Decoder:
    rope = read_rope(keys)
    sees_near = keys.flag("use_sliding_window", False)
    first_near = keys.whole("max_window_layers", 28, least=0)
    kinds = layer_types(keys, lambda layer: sees_near and layer >= first_near)
    if SLIDING in kinds and not sees_near:
        problem = f"has {SLIDING}, but use_sliding_window is false"
        raise keys.refuse("layer_types", problem, "Make use_sliding_window true, or leave layer_types out.")
    near = block(keys, attention(keys, rope=rope, window=keys.whole("sliding_window"), **fields)) if sees_near else None
    blocks = {FULL: block(keys, attention(keys, rope=rope, **fields)), SLIDING: near}
    return decoder(keys, [blocks[kind] for kind in kinds], norm=norm(keys), tied=False)


def _config(model: Decoder) -> dict[str, Any]:
    window, kinds = window_of(model), kinds_of(model)
    layers = len(kinds)
    return shared_config(model) | {
        "use_sliding_window": window is not None,
        "sliding_window": window,
        "max_window_layers": kinds.index(SLIDING) if SLIDING in kinds else layers,
        "layer_types": kinds,
    }


def _qwen3_config(model: Decoder) -> dict[str, Any]:
    return _config(model) | {"attention_bias": model.attentions()[0].bias is Bias.ALL}


QWEN2 = Family("qwen2", "Qwen2ForCausalLM", _qwen2, _config, NAMES)
QWEN3 = Family("qwen3", "Qwen3ForCausalLM", _qwen3, _qwen3_config, _QWEN3_NAMES)
