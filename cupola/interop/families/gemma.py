"""Gemma 3's text models: norms on both sides, and layers that see far among layers that see near.

Source: Gemma Team 2025 (Gemma 3), section 2.
"""

import math
from typing import Any

from cupola.interop.families.family import (
    ACTIVATIONS,
    FULL,
    SLIDING,
    Family,
    attention,
    decoder,
    kinds_of,
    layer_types,
    norm,
    shared_config,
    window_of,
)
from cupola.interop.families.llama import NAMES
from cupola.interop.keys import Keys
from cupola.interop.rotary import read_rope_of, rope_keys, scaling_keys
from cupola.kernels.attention import Mask
from cupola.layers.attention import Bias
from cupola.layers.block import Block
from cupola.layers.embedding import Embedding
from cupola.layers.feed_forward import GatedMLP
from cupola.models.decoder import Decoder

_LAYER = "model.layers.{}"
_NAMES = NAMES | {
    "block.attention.query_norm.scale": f"{_LAYER}.self_attn.q_norm.weight",
    "block.attention.key_norm.scale": f"{_LAYER}.self_attn.k_norm.weight",
    "block.attention_post_norm.scale": f"{_LAYER}.post_attention_layernorm.weight",
    "block.feed_forward_norm.scale": f"{_LAYER}.pre_feedforward_layernorm.weight",
    "block.feed_forward_post_norm.scale": f"{_LAYER}.post_feedforward_layernorm.weight",
}


def _gemma3(keys: Keys) -> Decoder:
    keys.only("attn_logit_softcapping", None)
    keys.only("final_logit_softcapping", None)
    keys.only("use_bidirectional_attention", False)
    pattern = keys.whole("sliding_window_pattern", 6)
    kinds = layer_types(keys, lambda layer: (layer + 1) % pattern != 0)
    far = read_rope_of(FULL, keys, theta="rope_theta", base=1e6, scaling="rope_scaling")
    near = read_rope_of(SLIDING, keys, theta="rope_local_base_freq", base=1e4, scaling=None)
    centred = norm(keys, offset=1.0)
    one = Block(
        attention=attention(
            keys,
            head_width=256,
            rope=far,
            query_norm=centred,
            key_norm=centred,
            bias=Bias.ALL if keys.flag("attention_bias", False) else Bias.NONE,
            scale=1 / math.sqrt(keys.number("query_pre_attn_scalar", 256.0)),
        ),
        feed_forward=GatedMLP(
            hidden=keys.whole("intermediate_size"),
            activation=keys.choice("hidden_activation", ACTIVATIONS, "gelu_pytorch_tanh"),
        ),
        attention_norm=centred,
        attention_post_norm=centred,
        feed_forward_norm=centred,
        feed_forward_post_norm=centred,
    )
    blocks = {FULL: one}
    if SLIDING in kinds:
        window = keys.whole("sliding_window")
        blocks[SLIDING] = one.replace("attention.rope", near).replace(
            "attention.mask", Mask(causal=True, window=window)
        )
    scaled = Embedding(scale=math.sqrt(keys.whole("hidden_size")))
    return decoder(keys, [blocks[kind] for kind in kinds], norm=centred, tied=True, embedding=scaled)


def _gemma3_config(model: Decoder) -> dict[str, Any]:
    kinds, layers = kinds_of(model), model.attentions()
    config = shared_config(model)
    activation = config.pop("hidden_act")
    ropes = {kind: layers[kinds.index(kind)].rope for kind in (FULL, SLIDING) if kind in kinds}
    parameters = {kind: rope_keys(rope) for kind, rope in ropes.items() if rope is not None}
    far, near = ropes.get(FULL), ropes.get(SLIDING)
    scale = layers[0].scale or 1 / math.sqrt(layers[0].head_size)
    return config | {
        "hidden_activation": activation,
        "query_pre_attn_scalar": round(scale**-2),
        "attention_bias": layers[0].bias is Bias.ALL,
        "sliding_window": window_of(model),
        "layer_types": kinds,
        "rope_parameters": parameters,
        "rope_theta": far.base if far else None,
        "rope_local_base_freq": near.base if near else None,
        "rope_scaling": scaling_keys(far) if far else None,
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
        "use_bidirectional_attention": False,
    }


GEMMA3 = Family("gemma3_text", "Gemma3ForCausalLM", _gemma3, _gemma3_config, _NAMES)
