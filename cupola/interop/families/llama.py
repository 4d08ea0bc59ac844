"""Llama 2 and 3, SmolLM and others of their architecture; and Mistral, which adds a window.

Source: Touvron et al. 2023 (Llama 2); Dubey et al. 2024 (Llama 3); Jiang et al. 2023 (Mistral 7B).
"""

from typing import Any

from cupola.interop.families.family import Family, attention, block, decoder, norm, shared_config, window_of
from cupola.interop.keys import Keys
from cupola.interop.rotary import read_rope
from cupola.layers.attention import Bias
from cupola.models.decoder import Decoder

_LAYER = "model.layers.{}"
NAMES = {
    "embedding.table": "model.embed_tokens.weight",
    "norm.scale": "model.norm.weight",
    "head.table": "lm_head.weight",
    "block.attention.query": f"{_LAYER}.self_attn.q_proj.weight",
    "block.attention.key": f"{_LAYER}.self_attn.k_proj.weight",
    "block.attention.value": f"{_LAYER}.self_attn.v_proj.weight",
    "block.attention.output": f"{_LAYER}.self_attn.o_proj.weight",
    "block.attention.query_bias": f"{_LAYER}.self_attn.q_proj.bias",
    "block.attention.key_bias": f"{_LAYER}.self_attn.k_proj.bias",
    "block.attention.value_bias": f"{_LAYER}.self_attn.v_proj.bias",
    "block.attention.output_bias": f"{_LAYER}.self_attn.o_proj.bias",
    "block.attention_norm.scale": f"{_LAYER}.input_layernorm.weight",
    "block.feed_forward_norm.scale": f"{_LAYER}.post_attention_layernorm.weight",
    "block.feed_forward.gate": f"{_LAYER}.mlp.gate_proj.weight",
    "block.feed_forward.up": f"{_LAYER}.mlp.up_proj.weight",
    "block.feed_forward.down": f"{_LAYER}.mlp.down_proj.weight",
}


def _llama(keys: Keys) -> Decoder:
    keys.only("mlp_bias", False)
    keys.only("rope_interleaved", False)
    bias = Bias.ALL if keys.flag("attention_bias", False) else Bias.NONE
    one = block(keys, attention(keys, rope=read_rope(keys), bias=bias))
    return decoder(keys, [one] * keys.whole("num_hidden_layers"), norm=norm(keys), tied=False)


def _llama_config(model: Decoder) -> dict[str, Any]:
    biased = model.attentions()[0].bias is not Bias.NONE
    return shared_config(model) | {"attention_bias": biased, "mlp_bias": False}


def _mistral(keys: Keys) -> Decoder:
    keys.only("layer_types", None)
    one = block(keys, attention(keys, rope=read_rope(keys), window=keys.whole("sliding_window", None)))
    return decoder(keys, [one] * keys.whole("num_hidden_layers"), norm=norm(keys), tied=False)


def _mistral_config(model: Decoder) -> dict[str, Any]:
    return shared_config(model) | {"sliding_window": window_of(model)}


LLAMA = Family("llama", "LlamaForCausalLM", _llama, _llama_config, NAMES)
MISTRAL = Family("mistral", "MistralForCausalLM", _mistral, _mistral_config, NAMES)
