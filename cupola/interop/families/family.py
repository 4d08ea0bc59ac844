"""What a family of models of others is, and what dense, gated decoders among them have in common.

Not here: the families (`llama.py`, `qwen.py`, `gemma.py`), reading tensors (`interop/family.py`).
Invariant: a config that a family writes is read by the same family as an equal model.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from cupola.interop.keys import Keys
from cupola.interop.rotary import rope_keys, scaling_keys
from cupola.kernels.attention import CAUSAL, Mask
from cupola.kernels.gated import Activation
from cupola.layers.attention import Attention
from cupola.layers.block import Block
from cupola.layers.embedding import Embedding, Head
from cupola.layers.feed_forward import GatedMLP
from cupola.layers.norm import RMSNorm
from cupola.layers.stack import in_a_row
from cupola.models.decoder import Decoder

FULL, SLIDING = "full_attention", "sliding_attention"

ACTIVATIONS = {
    "silu": Activation.SILU,
    "gelu": Activation.GELU,
    "gelu_pytorch_tanh": Activation.GELU_TANH,
    "relu": Activation.RELU,
    "relu2": Activation.RELU_SQUARED,
}


@dataclasses.dataclass(frozen=True)
class Family:
    """One family of models of others.

    Args:
        name: the `model_type` in its config.json.
        architecture: the class in its config.json.
        decoder: makes the model of a config.
        config: gives the keys of a model's config; of a model of another family it may give keys of a
            model that is not the same.
        names: their name of each tensor by the path of our parameter; a block's parameters stand below
            "block.", and {} in their name is the number of the layer.
    """

    name: str
    architecture: str
    decoder: Callable[[Keys], Decoder]
    config: Callable[[Decoder], dict[str, Any]]
    names: Mapping[str, str]


def attention(keys: Keys, *, head_width: int | None = None, window: int | None = None, **fields: Any) -> Attention:
    """Returns the attention that a config asks for.

    Args:
        head_width: where the config gives none; None means hidden_size / num_attention_heads.
        window: keys that a query sees, itself included; None means all.
        fields: further fields of `Attention`.
    """
    heads = keys.whole("num_attention_heads")
    return Attention(
        heads=heads,
        key_heads=keys.whole("num_key_value_heads", heads),
        head_width=keys.whole("head_dim", head_width),
        mask=CAUSAL if window is None else Mask(causal=True, window=window),
        **fields,
    )


def norm(keys: Keys, *, offset: float = 0.0) -> RMSNorm:
    """Returns the normalization that a config asks for."""
    return RMSNorm(epsilon=keys.number("rms_norm_eps", 1e-6), offset=offset)


def block(keys: Keys, attention: Attention) -> Block:
    """Returns a block that normalizes what attention and a gated network are given."""
    network = GatedMLP(
        hidden=keys.whole("intermediate_size"), activation=keys.choice("hidden_act", ACTIVATIONS, "silu")
    )
    return Block(attention=attention, feed_forward=network, attention_norm=norm(keys), feed_forward_norm=norm(keys))


def decoder(
    keys: Keys, blocks: Iterable[Block], *, norm: RMSNorm, tied: bool, embedding: Embedding = Embedding()
) -> Decoder:
    """Returns the model of these blocks.

    Args:
        norm: applied after the blocks.
        tied: whether the embedding serves as head, where the config does not say.
    """
    return Decoder(
        vocabulary=keys.whole("vocab_size"),
        width=keys.whole("hidden_size"),
        max_length=keys.whole("max_position_embeddings"),
        stack=in_a_row(list(blocks)),
        embedding=embedding,
        norm=norm,
        head=None if keys.flag("tie_word_embeddings", tied) else Head(),
    )


def layer_types(keys: Keys, usual: Callable[[int], bool]) -> list[str]:
    """Returns the kind of each layer, FULL or SLIDING.

    Args:
        usual: whether the layer of a number is SLIDING, where the config does not list the kinds.

    Raises:
        ConfigError: a list of another length, or of other kinds.
    """
    layers = keys.whole("num_hidden_layers")
    kinds = keys.words("layer_types") or [SLIDING if usual(layer) else FULL for layer in range(layers)]
    if len(kinds) != layers:
        problem = f"lists {len(kinds)} layers, but num_hidden_layers is {layers}"
        raise keys.refuse("layer_types", problem, "List one kind for each layer.")
    for kind in kinds:
        if kind not in (FULL, SLIDING):
            raise keys.refuse("layer_types", f"has {kind!r}", f"Supported: {FULL}, {SLIDING}.")
    return kinds


def shared_config(model: Decoder) -> dict[str, Any]:
    """Returns the keys that every family writes alike, taken from the first layer."""
    first = model.stack.blocks[0]
    held: Attention = first.attention  # type: ignore[attr-defined]
    network: GatedMLP = first.feed_forward  # type: ignore[attr-defined]
    activation = next(name for name, kind in ACTIVATIONS.items() if kind is network.activation)
    config = {
        "vocab_size": model.vocabulary,
        "hidden_size": model.width,
        "intermediate_size": network.hidden,
        "num_hidden_layers": len(model.stack.blocks),
        "num_attention_heads": held.heads,
        "num_key_value_heads": held.groups,
        "head_dim": held.head_size,
        "hidden_act": activation,
        "max_position_embeddings": model.max_length,
        "rms_norm_eps": model.norm.epsilon,
        "tie_word_embeddings": model.head is None,
    }
    if held.rope is None:
        return config
    # Readers before version 5 of transformers look for the last two.
    return config | {
        "rope_parameters": rope_keys(held.rope),
        "rope_theta": held.rope.base,
        "rope_scaling": scaling_keys(held.rope),
    }


def window_of(model: Decoder) -> int | None:
    """Returns the window of the layers that have one; None where none has."""
    return next((held.mask.window for held in model.attentions() if held.mask.window is not None), None)


def kinds_of(model: Decoder) -> list[str]:
    """Returns the kind of each layer, FULL or SLIDING."""
    return [FULL if held.mask.window is None else SLIDING for held in model.attentions()]
