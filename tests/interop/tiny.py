"""A tiny config of every family, and weights for it by Hugging Face names."""

import jax
import jax.numpy as jnp
import numpy as np

from cupola.core.dtype import FLOAT32
from cupola.interop.family import FAMILIES, named
from cupola.interop.keys import Keys
from cupola.kernels.matmul import Grouped

SIZES = {
    "vocab_size": 31,
    "hidden_size": 16,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "max_position_embeddings": 64,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
CONFIGS = {
    "llama": SIZES | {"model_type": "llama", "rope_theta": 500.0, "rms_norm_eps": 1e-5},
    "llama, scaled, tied, biased": SIZES
    | {"model_type": "llama", "rope_scaling": LLAMA3, "tie_word_embeddings": True, "attention_bias": True},
    "mistral": SIZES | {"model_type": "mistral", "sliding_window": 3, "head_dim": 6},
    "qwen2": SIZES | {"model_type": "qwen2"},
    "qwen2, a window from layer 1": SIZES
    | {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1},
    "qwen2, all windows": SIZES
    | {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 3, "max_window_layers": 0},
    "qwen3": SIZES | {"model_type": "qwen3", "head_dim": 6, "tie_word_embeddings": True},
    "gemma3": SIZES
    | {"model_type": "gemma3_text", "num_hidden_layers": 7, "head_dim": 6, "sliding_window": 3}
    | {"query_pre_attn_scalar": 10, "rope_scaling": {"rope_type": "linear", "factor": 2.0}},
}


def model_of(config):
    return FAMILIES[config["model_type"]].decoder(Keys(config)).replace("precision", FLOAT32)


def params_of(model, seed=0):
    """Random parameters, of which none are alike: norms and biases begin so otherwise, and hide each other."""
    random = np.random.default_rng(seed)

    def drawn(leaf):
        centre, spread = (0.5, 0.2) if min(leaf.shape) < 16 and leaf.ndim < 3 else (0.0, 0.25)
        return jnp.asarray(random.normal(centre, spread, leaf.shape), leaf.dtype)

    return jax.tree.map(drawn, model.abstract())


def weights_of(config):
    """Arrays by their names."""
    model = model_of(config)
    return {k: np.asarray(v) for k, v in named(model, params_of(model), FAMILIES[config["model_type"]])}


def stored(matrix):
    """A matrix [inputs, outputs] in groups of 8 bits, one group an output, to the nearest code."""
    scales = np.abs(matrix).max(0) / 127
    codes = (np.round(matrix / scales[None]) + 128).astype(np.uint8)
    held = (jnp.asarray(codes.T), jnp.asarray(scales[:, None], jnp.float32))
    return Grouped(*held, shape=matrix.shape, bits=8, zero=128)
