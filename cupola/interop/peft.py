"""Low-rank adapters as PEFT keeps them, adapter_config.json and adapter_model.safetensors; read and written.

Not here: serving them (`serve/adapters.py`), whole models (`huggingface.py`).
Invariant: all that an adapter changes of a model is in its factors, or it is refused by name; nothing in a
folder is run.
Source: Hu et al. 2021 (LoRA), equation 3: our down is their A transposed, our up their B transposed times
alpha / r; Kalajdzievski 2023 (rsLoRA) has alpha / sqrt(r).
"""

import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from cupola.config.suggest import did_you_mean
from cupola.core.module import Tree, path_text
from cupola.data.files import whole
from cupola.interop.errors import WeightsError
from cupola.interop.family import Slot, describe, slots_of
from cupola.interop.huggingface import Shard, read_json, write_json
from cupola.models.decoder import Decoder

Factors = Mapping[str, tuple[np.ndarray, np.ndarray]]
"""Of each adapted matrix by layer and path, such as "3.attention.query": down [K, R] and up [R, F], scale included."""

_CONFIG, _WEIGHTS, _PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
_NAME = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
_REFUSED = {
    "use_dora": "DoRA also changes the length of each column of the weights",
    "modules_to_save": "whole modules are replaced, not adapted",
    "lora_bias": "the second factors have biases",
    "rank_pattern": "the matrices have other ranks than r",
    "alpha_pattern": "the matrices have other scales than lora_alpha / r",
    "target_parameters": "parameters outside of linear layers are adapted",
    "trainable_token_indices": "rows of the embedding are replaced",
    "layer_replication": "layers of the model are repeated",
    "use_qalora": "inputs are pooled before the first factor",
    "alora_invocation_tokens": "it acts only after certain tokens",
}
"""What changes the meaning of the factors, or more than they do."""
_WITHOUT_MEANING = {
    *("auto_mapping", "base_model_name_or_path", "revision", "peft_version", "task_type", "inference_mode"),
    *("peft_type", "r", "lora_alpha", "use_rslora", "bias", "init_lora_weights", "lora_dropout", "fan_in_fan_out"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "ensure_weight_tying"),
    *("megatron_config", "megatron_core", "loftq_config", "eva_config", "corda_config", "lora_ga_config"),
    *("qalora_group_size", "runtime_config"),
}
"""What is read here, or mattered in training only; the tensors say which matrices are adapted."""
_KEPT_BASE = (True, False, "gaussian", "orthogonal", "eva")
"""Ways to begin that leave the base as it was; after the others the factors are of another base."""


def read_adapter(folder: str | os.PathLike[str], model: Decoder) -> Factors:
    """Returns the factors of an adapter in a folder, in float32.

    Args:
        folder: as `save_pretrained` of PEFT writes it.
        model: that it adapts.

    Raises:
        WeightsError: a file is missing, malformed or a pickle; it is no LoRA, or one that does more than
            its factors say; or it is of another model.
        Unsupported: the model is of no family whose names are known.
    """
    folder = Path(folder)
    rank, scale = _settings(folder)
    file = _weights(folder)
    slots = {slot.name: (path, slot) for path, slot in by_layer(slots_of(model, describe(model)[0]))}
    found: dict[str, dict[str, np.ndarray]] = {}
    for name in sorted(file.names):
        parts = _NAME.fullmatch(name)
        if parts is None:
            remedy = "Only linear layers' lora_A and lora_B are read: train it without embeddings, DoRA and biases."
            raise WeightsError(f"{name} is no factor of a matrix", where=str(file.path), remedy=remedy)
        path, slot = slots.get(f"{parts[1]}.weight", ("", None))
        if slot is None or not _adaptable(path, slot):
            known = [name.removesuffix(".weight") for name, (path, slot) in slots.items() if _adaptable(path, slot)]
            remedy = (
                f"{did_you_mean(parts[1], known)} It must be of the same model, and adapt its layers' matrices only."
            )
            raise WeightsError(f"the model has no matrix {parts[1]} to adapt", where=str(file.path), remedy=remedy)
        outputs, inputs = slot.shape
        due = (rank, inputs) if parts[2] == "A" else (outputs, rank)
        array = file.read(name)
        if array.shape != due:
            problem = f"{name} has the shape {list(array.shape)}, but {list(due)} is due"
            raise WeightsError(problem, where=str(file.path), remedy="It must be of the same model, and of rank r.")
        found.setdefault(path, {})[parts[2]] = array.astype(np.float32)
    for path, pair in found.items():
        if len(pair) < 2:
            raise WeightsError(f"{path} has only one factor", where=str(file.path), remedy="Fetch the adapter again.")
    return {path: (pair["A"].T, np.float32(scale) * pair["B"].T) for path, pair in found.items()}


def write_adapter(folder: str | os.PathLike[str], factors: Factors, model: Decoder, *, base: str | None = None) -> None:
    """Writes an adapter as a folder that PEFT and others load; it appears whole or not at all.

    Args:
        folder: that is not there yet, or is empty.
        factors: of matrices of the model's layers; smaller ranks are filled up with zeros.
        model: that it adapts, of a kind that one of the families can say.
        base: name or folder of the model, for whoever reads it.

    Raises:
        Unsupported: no family can say all of the model.
        WeightsError: a matrix that the model does not have, or something is in the folder.
    """
    target = Path(folder)
    slots = {path: slot for path, slot in by_layer(slots_of(model, describe(model)[0])) if _adaptable(path, slot)}
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise WeightsError("holds something already", where=str(target), remedy="Name a folder that is not there yet.")
    rank = max((down.shape[1] for down, _ in factors.values()), default=1)
    tensors: dict[str, np.ndarray] = {}
    for path, (down, up) in factors.items():
        if path not in slots:
            raise WeightsError(f"the model has no matrix {path}", where="factors", remedy=did_you_mean(path, slots))
        if (up.shape[1], down.shape[0]) != slots[path].shape or down.shape[1] != up.shape[0]:
            problem = f"{path} has factors {down.shape} and {up.shape}, but is {slots[path].shape[::-1]}"
            raise WeightsError(problem, where="factors", remedy="They are of another model.")
        missing = rank - down.shape[1]
        name = f"base_model.model.{slots[path].name.removesuffix('.weight')}"
        pairs = {"A": np.pad(down, ((0, 0), (0, missing))), "B": np.pad(up, ((0, missing), (0, 0)))}
        for letter, array in pairs.items():
            tensors[f"{name}.lora_{letter}.weight"] = np.ascontiguousarray(array.T, np.float32)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": rank,  # The factors hold their scale already.
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": _targets({path: slot.name for path, slot in slots.items()}, factors),
        "inference_mode": True,
    }
    try:
        with whole(target) as unfinished:
            unfinished.mkdir()
            save_file(tensors, unfinished / _WEIGHTS, metadata={"format": "pt"})
            write_json(unfinished / _CONFIG, config)
    except (OSError, SafetensorError) as error:
        problem = f"could not be written ({error})"
        raise WeightsError(problem, where=str(target), remedy="Free some space or name another folder.") from None


def by_layer(tree: Tree, is_leaf: Callable[[Any], bool] | None = None) -> Iterator[tuple[str, Any]]:
    """Yields (path, leaf) for every leaf of a model's tree that is cut into layers.

    A path in a layer begins with the layer's number, whatever part of the stack it is in.
    """
    layers: dict[str, int] = {}
    for keys, leaf in jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_leaf)[0]:
        stack, block, rest = path_text(keys).partition(".block.")
        if block:
            index, _, name = rest.partition(".")
            yield f"{layers.setdefault(f'{stack}.{index}', len(layers))}.{name}", leaf
        else:
            yield stack, leaf


def _adaptable(path: str, slot: Slot) -> bool:
    """Whether a slot is a matrix of a layer: of the others none can be adapted."""
    return slot.is_matrix and path.partition(".")[0].isdigit()


def _settings(folder: Path) -> tuple[int, float]:
    """Returns the rank and the scale that an adapter's config asks for, if it asks for nothing else."""
    path = folder / _CONFIG
    if not os.path.isfile(path):
        remedy = f"Name a folder that holds {_CONFIG} and {_WEIGHTS}."
        raise WeightsError(f"holds no {_CONFIG}", where=str(folder), remedy=remedy)
    config = read_json(path)

    def refuse(problem: str, remedy: str) -> WeightsError:
        return WeightsError(problem, where=str(path), remedy=remedy)

    if config.get("peft_type") != "LORA":
        raise refuse(f"peft_type is {config.get('peft_type')!r}", "Only LORA is read.")
    for name, reason in _REFUSED.items():
        if config.get(name):
            raise refuse(f"{name} is not supported: {reason}", f"Train it without {name}, or merge it into the model.")
    for name in sorted(config.keys() - _REFUSED.keys() - _WITHOUT_MEANING):
        if config[name]:
            raise refuse(f"{name} is {config[name]!r}, which is not known", "Save it with another version of PEFT.")
    if config.get("bias", "none") != "none":
        raise refuse(f"bias is {config['bias']!r}: biases of the model change too", 'Train it with bias="none".')
    begun = config.get("init_lora_weights", True)
    if begun not in _KEPT_BASE:
        remedy = "Save it converted: path_initial_model_for_weight_conversion of PEFT's save_pretrained."
        raise refuse(f"init_lora_weights is {begun!r}: it is of a base that was changed", remedy)
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if type(rank) is not int or rank < 1:
        raise refuse(f"r is {rank!r}", "It is a whole number from 1.")
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise refuse(f"lora_alpha is {alpha!r}", "It is a number.")
    return rank, alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _weights(folder: Path) -> Shard:
    if (folder / _WEIGHTS).is_file():
        return Shard(folder / _WEIGHTS)
    if (folder / _PICKLE).exists():
        problem = f"holds {_PICKLE}, but no {_WEIGHTS}: reading a pickle runs the code in it"
        remedy = "Save it where that may run: save_pretrained(folder, safe_serialization=True) of PEFT."
        raise WeightsError(problem, where=str(folder), remedy=remedy)
    raise WeightsError(f"holds no {_WEIGHTS}", where=str(folder), remedy="Fetch the whole adapter.")


def _targets(names: Mapping[str, str], adapted: Factors) -> list[str]:
    """Returns the modules' last names where these say which matrices are adapted, else their whole names."""
    wholes = {path: name.removesuffix(".weight") for path, name in names.items()}
    lasts = {wholes[path].rpartition(".")[2] for path in adapted}
    if all(path in adapted for path, name in wholes.items() if name.rpartition(".")[2] in lasts):
        return sorted(lasts)
    return sorted(wholes[path] for path in adapted)
