"""Whisper's weights: folders as Hugging Face has them, and as CTranslate2 converts them.

Not here: the formats of files (`huggingface.py`, `ctranslate2.py`).
Invariant: every parameter comes from one tensor of the right shape, and no tensor is left over.
"""

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cupola.config.suggest import did_you_mean
from cupola.core.dtype import FLOAT32, Precision
from cupola.core.errors import ConfigError
from cupola.core.module import Tree, map_specs
from cupola.core.param import Param
from cupola.data.tokenizer import Tokenizer
from cupola.interop.ctranslate2 import Variables, read_variables
from cupola.interop.errors import UnknownModel, WeightsError
from cupola.interop.fetch import MODELS, find
from cupola.interop.huggingface import read_folder
from cupola.interop.keys import Keys
from cupola.models.speech.recognizer import Recognizer
from cupola.models.speech.whisper import Whisper, whisper_of
from cupola.models.speech.whisper_tokens import WhisperTokens

_HEAD = "proj_out.weight"
_TABLE = "model.decoder.embed_tokens.weight"
_KIND = "WhisperSpec"
_BLOCK = {
    "attention.query": "self_attn.q_proj",
    "attention.key": "self_attn.k_proj",
    "attention.value": "self_attn.v_proj",
    "attention.output": "self_attn.out_proj",
    "attention_norm": "self_attn_layer_norm",
    "cross_attention.query": "encoder_attn.q_proj",
    "cross_attention.key": "encoder_attn.k_proj",
    "cross_attention.value": "encoder_attn.v_proj",
    "cross_attention.output": "encoder_attn.out_proj",
    "cross_attention_norm": "encoder_attn_layer_norm",
    "feed_forward.up": "fc1",
    "feed_forward.down": "fc2",
    "feed_forward_norm": "final_layer_norm",
}
"""Their name of each part of a layer by ours."""
_OTHERS = {
    "encoder.first": "model.encoder.conv1.weight",
    "encoder.first_bias": "model.encoder.conv1.bias",
    "encoder.second": "model.encoder.conv2.weight",
    "encoder.second_bias": "model.encoder.conv2.bias",
    "encoder.positions": "model.encoder.embed_positions.weight",
    "encoder.norm.scale": "model.encoder.layer_norm.weight",
    "encoder.norm.offset": "model.encoder.layer_norm.bias",
    "decoder.embedding.table": _TABLE,
    "decoder.positions": "model.decoder.embed_positions.weight",
    "decoder.norm.scale": "model.decoder.layer_norm.weight",
    "decoder.norm.offset": "model.decoder.layer_norm.bias",
}


def open_whisper(source: str | os.PathLike[str], *, precision: Precision = FLOAT32) -> Recognizer:
    """Returns the Whisper of a fetched name, or in a folder with safetensors or CTranslate2's model.bin.

    Raises:
        UnknownModel: there is no such name or folder, or the named model was not fetched.
        WeightsError: weights are missing, truncated, corrupt, or of another model.
        ConfigError: a config of another model, or one that is not supported.
        TokenizerError: no tokenizer.json, or one of another model.
    """
    path = _folder(os.fspath(source))
    converted = path / "model.bin"
    tensors: Mapping[str, Any]
    if converted.is_file() and not any(path.glob("*.safetensors")):
        variables = read_variables(converted)
        model, tensors = _model_of(variables, precision), _Renamed(variables)
    else:
        folder = read_folder(path)
        model, tensors = model_of_config(folder.config, precision=precision), folder.tensors
    tokens = WhisperTokens(Tokenizer.load(path / "tokenizer.json", end="<|endoftext|>"))
    tokens.tokenizer.check_vocabulary(model.vocabulary)
    # A fetched model's folder has its name.
    return Recognizer(name=path.resolve().name, model=model, params=params_of(model, tensors), tokens=tokens)


def _folder(source: str) -> Path:
    if Path(source).is_dir():
        return Path(source)
    if source in MODELS and not MODELS[source].file.endswith(".gguf"):
        if (file := find(source)) is not None:
            return file.parent
        raise UnknownModel(f"{source} was not fetched yet", where="weights", remedy=f"Type: cupola fetch {source}")
    raise UnknownModel(
        f"there is no folder {source!r}",
        where="weights",
        remedy="Type: cupola fetch whisper-base. Or name a folder that holds a Whisper and its tokenizer.json.",
    )


def model_of_config(config: Mapping[str, Any], *, precision: Precision = FLOAT32) -> Whisper:
    """Returns the model that a config.json of Hugging Face asks for.

    Raises:
        ConfigError: it is of another model, or asks for something that is not supported.
    """
    keys = Keys(config)
    if keys.any("model_type", "") != "whisper":
        kind = keys.any("model_type", None)
        raise keys.refuse("model_type", f"is {kind!r}", "Only whisper can transcribe.")
    keys.only("activation_function", "gelu")
    keys.only("scale_embedding", False)
    keys.only("tie_word_embeddings", True)
    heads, hidden = keys.whole("encoder_attention_heads"), keys.whole("encoder_ffn_dim")
    keys.only("decoder_attention_heads", heads)
    keys.only("decoder_ffn_dim", hidden)
    return whisper_of(
        width=keys.whole("d_model"),
        encoder_layers=keys.whole("encoder_layers"),
        decoder_layers=keys.whole("decoder_layers"),
        heads=heads,
        vocabulary=keys.whole("vocab_size"),
        mels=keys.whole("num_mel_bins", 80),
        hidden=hidden,
        positions=keys.whole("max_source_positions", 1500),
        max_length=keys.whole("max_target_positions", 448),
        precision=precision,
    )


def params_of(model: Whisper, tensors: Mapping[str, np.ndarray]) -> Tree:
    """Returns the parameters, cut into layers, from tensors by their names at Hugging Face.

    Raises:
        WeightsError: a tensor is missing, of another shape, or left over.
    """
    slots = _slots(model)
    due = {slot.name for slot in jax.tree.leaves(slots)}
    if missing := sorted(due.difference(tensors)):
        remedy = f"{did_you_mean(missing[0], tensors)} The weights and config.json must be of the same Whisper."
        raise WeightsError(f"the tensor {_counted(missing)} is missing", where="weights", remedy=remedy)
    if left := sorted(set(tensors).difference(due, {_HEAD})):
        raise WeightsError(
            f"the tensor {_counted(left)} is in no place of the model",
            where="weights",
            remedy="The weights and config.json must be of the same Whisper.",
        )
    if _HEAD in tensors and not np.array_equal(tensors[_HEAD], tensors[_TABLE]):
        raise WeightsError("is not the embedding's table", where=_HEAD, remedy="Only tied weights are read.")
    return jax.tree.map(lambda slot: _taken(slot, tensors[slot.name]), slots)


_TABLES = ("V D", "T D", "S D")
"""Dims of what is looked up, not multiplied with."""


@dataclasses.dataclass(frozen=True)
class _Slot:
    """The place of one tensor of theirs in our tree."""

    name: str
    param: Param

    def turned(self, value: np.ndarray) -> np.ndarray:
        """Theirs as ours: outputs come first there, and the frames of a convolution last."""
        if value.ndim == 3:
            return value.transpose(2, 1, 0)
        return value.T if value.ndim == 2 and self.param.dims not in _TABLES else value

    @property
    def shape(self) -> tuple[int, ...]:
        """Of their tensor."""
        shape, param = self.param.shape, self.param
        if param.dims in _TABLES:
            return shape
        if param.dims in ("T M D", "T D F"):
            return shape[::-1]
        if not param.is_matrix:
            return (param.size,)
        return param.size // param.fan_in, param.fan_in


def _slots(model: Whisper) -> Tree:
    def layers(side: str, block: Any, count: int) -> Tree:
        def of(number: int) -> Tree:
            return map_specs(lambda path, param: _Slot(_name_in_layer(side, number, path), param), block.specs())

        return {"block": tuple(of(number) for number in range(count))}

    def rest(side: str, module: Any) -> Tree:
        specs = {name: held for name, held in module.specs().items() if name != "stack"}
        made = map_specs(lambda path, param: _Slot(_OTHERS[f"{side}.{path}"], param), specs)
        return made | {"stack": layers(side, module.stack.block, module.stack.layers)}

    return {"encoder": rest("encoder", model.encoder), "decoder": rest("decoder", model.decoder)}


def _name_in_layer(side: str, number: int, path: str) -> str:
    part, end = path, "weight"
    for suffix, theirs in (("_bias", "bias"), (".scale", "weight"), (".offset", "bias")):
        if path.endswith(suffix):
            part, end = path.removesuffix(suffix), theirs
    return f"model.{side}.layers.{number}.{_BLOCK[part]}.{end}"


def _taken(slot: _Slot, value: np.ndarray) -> jax.Array:
    if value.shape != slot.shape:
        raise WeightsError(
            f"has the shape {list(value.shape)}, but the model has {list(slot.shape)}",
            where=slot.name,
            remedy="The weights and config.json must be of the same Whisper.",
        )
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise WeightsError(f"holds {value.dtype.name} numbers", where=slot.name, remedy="Use unquantized weights.")
    turned = slot.turned(value).reshape(slot.param.shape)
    return jnp.asarray(np.ascontiguousarray(turned, dtype=slot.param.dtype))


def _counted(names: list[str]) -> str:
    return f"{names[0]}{f' (and {len(names) - 1} more)' if len(names) > 1 else ''}"


def _model_of(variables: Variables, precision: Precision) -> Whisper:
    """The model whose sizes the arrays of a model.bin have."""
    if variables.kind != _KIND:
        raise WeightsError(
            f"holds a {variables.kind or 'model of no name'}, not a Whisper",
            where=str(variables.path),
            remedy="Name the folder of a Whisper that CTranslate2 converted.",
        )
    try:
        shapes = {name: variables.raw(name).shape for name in variables}
        width, mels, _ = shapes["encoder/conv1/weight"]
        return whisper_of(
            width=width,
            encoder_layers=_layers(shapes, "encoder"),
            decoder_layers=_layers(shapes, "decoder"),
            heads=int(variables.raw("encoder/num_heads")),
            vocabulary=shapes["decoder/embeddings/weight"][0],
            mels=mels,
            hidden=shapes["encoder/layer_0/ffn/linear_0/weight"][0],
            positions=shapes["encoder/position_encodings/encodings"][0],
            max_length=shapes["decoder/position_encodings/encodings"][0],
            precision=precision,
        )
    except (KeyError, ValueError, ConfigError) as error:
        raise WeightsError(
            f"is no whole Whisper ({error})", where=str(variables.path), remedy="Convert the model again."
        ) from None


def _layers(shapes: Mapping[str, Any], side: str) -> int:
    return len({name.split("/")[1] for name in shapes if name.startswith(f"{side}/layer_") and name.count("/") > 2})


_CONVERTED_BLOCK = {
    "self_attention/layer_norm": "self_attn_layer_norm",
    "self_attention/linear_1": "self_attn.out_proj",
    "attention/layer_norm": "encoder_attn_layer_norm",
    "attention/linear_0": "encoder_attn.q_proj",
    "attention/linear_2": "encoder_attn.out_proj",
    "ffn/layer_norm": "final_layer_norm",
    "ffn/linear_0": "fc1",
    "ffn/linear_1": "fc2",
}
_CONVERTED = {
    "encoder/conv1": "model.encoder.conv1",
    "encoder/conv2": "model.encoder.conv2",
    "encoder/layer_norm": "model.encoder.layer_norm",
    "decoder/layer_norm": "model.decoder.layer_norm",
    "decoder/embeddings": "model.decoder.embed_tokens",
    "encoder/position_encodings": "model.encoder.embed_positions",
    "decoder/position_encodings": "model.decoder.embed_positions",
}
_JOINED = {
    "self_attention/linear_0": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attention/linear_1": ("encoder_attn.k_proj", "encoder_attn.v_proj"),
}
"""Projections of the same input, which CTranslate2 keeps as one."""
_ENDS = {"weight": "weight", "bias": "bias", "gamma": "weight", "beta": "bias", "encodings": "weight"}


class _Renamed(Mapping[str, np.ndarray]):
    """The arrays of a model.bin under their names at Hugging Face."""

    def __init__(self, variables: Variables):
        self._places: dict[str, Callable[[], np.ndarray]] = {}
        for name in variables:
            if variables.raw(name).ndim:
                self._places |= _places(variables, name)

    def __getitem__(self, name: str) -> np.ndarray:
        return self._places[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def _places(variables: Variables, name: str) -> dict[str, Callable[[], np.ndarray]]:
    """Returns what gives each tensor that an array is or holds, by their names."""
    part, _, last = name.rpartition("/")
    if last not in _ENDS:
        return {name: lambda: variables[name]}
    end = _ENDS[last]
    if part in _CONVERTED:
        return {f"{_CONVERTED[part]}.{end}": lambda: variables[name]}
    side, _, within = part.partition("/layer_")
    number, _, inner = within.partition("/")
    layer = f"model.{side}.layers.{number}"
    if inner in _CONVERTED_BLOCK:
        return {f"{layer}.{_CONVERTED_BLOCK[inner]}.{end}": lambda: variables[name]}
    if inner not in _JOINED:
        return {name: lambda: variables[name]}
    parts = _JOINED[inner]

    def cut(index: int) -> Callable[[], np.ndarray]:
        return lambda: np.split(variables[name], len(parts))[index]

    # A key has no bias: there are zeros in its place.
    named = [(i, part) for i, part in enumerate(parts) if end == "weight" or not part.endswith("k_proj")]
    return {f"{layer}.{part}.{end}": cut(i) for i, part in named}
