"""Folders as Hugging Face has them: config.json, generation_config.json and safetensors; read and written.

Not here: what a config means (`family.py`), the tokenizer's files (`tokenizer.py`).
Invariant: nothing in a folder is run, no file outside it is named by one inside it, and what a
file's header says of sizes and places is checked before anything is read.
"""

import dataclasses
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from cupola.config.suggest import did_you_mean
from cupola.core.module import Tree
from cupola.data.files import whole
from cupola.data.tokenizer import Tokenizer
from cupola.interop.errors import WeightsError
from cupola.interop.family import describe, named
from cupola.models.decoder import Decoder

_ONE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_FORMATS = ("F32", "BF16", "F16")
_JSON_BYTES = 64 << 20
"""An index of the largest models is a twentieth of it."""


@dataclasses.dataclass(frozen=True)
class Folder:
    """A model in a folder.

    Args:
        path: the folder.
        config: what config.json holds.
        generation: what generation_config.json holds; empty where there is none.
        tensors: arrays by their names, each read when it is asked for.
    """

    path: Path
    config: Mapping[str, Any]
    generation: Mapping[str, Any]
    tensors: Mapping[str, np.ndarray]


def read_folder(path: str | os.PathLike[str]) -> Folder:
    """Returns the model in a folder; tensors are read as they are asked for.

    Raises:
        WeightsError: no such folder, a file that is missing, truncated or malformed, or weights only in
            a format that would have to be run to be read.
    """
    path = Path(path)
    if not path.is_dir():
        raise WeightsError("is no folder", where=str(path), remedy="Name a folder that holds config.json and weights.")
    config = read_json(path / "config.json")
    beside = path / "generation_config.json"
    return Folder(path, config, read_json(beside) if beside.exists() else {}, _open(path))


def export(
    model: Decoder,
    params: Tree,
    folder: str | os.PathLike[str],
    *,
    tokenizer: Tokenizer | None = None,
    shard_bytes: int = 4 << 30,
) -> None:
    """Writes a model as a folder that transformers and others load; it appears whole or not at all.

    Args:
        model: of a kind that one of the families can say.
        params: its parameters, stacked or cut into layers.
        folder: that is not there yet, or is empty.
        tokenizer: written beside it as tokenizer.json, its end named in config.json.
        shard_bytes: weights above this size are spread over several files.

    Raises:
        Unsupported: no family can say all of the model, or weights are not arrays.
        WeightsError: something is in the folder, or it could not be written.
    """
    target = Path(folder)
    family, config = describe(model)
    config |= {"dtype": model.precision.param.name, "torch_dtype": model.precision.param.name}
    if tokenizer is not None:
        tokenizer.check_vocabulary(model.vocabulary)
        config |= {"eos_token_id": tokenizer.end}
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise WeightsError("holds something already", where=str(target), remedy="Name a folder that is not there yet.")
    try:
        with whole(target) as unfinished:
            unfinished.mkdir()
            _write_weights(unfinished, named(model, params, family), shard_bytes)
            write_json(unfinished / "config.json", config)
            if tokenizer is not None:
                tokenizer.save(unfinished / "tokenizer.json")
    except (OSError, SafetensorError) as error:
        problem = f"could not be written ({error})"
        raise WeightsError(problem, where=str(target), remedy="Free some space or name another folder.") from None


def read_json(path: Path) -> dict[str, Any]:
    """Returns the JSON object in a file."""
    try:
        if path.stat().st_size > _JSON_BYTES:
            raise WeightsError(f"is larger than {_JSON_BYTES} bytes", where=str(path), remedy="Fetch the model again.")
        held = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        remedy = "Fetch the whole model: config.json, the tokenizer and *.safetensors."
        raise WeightsError("is missing", where=str(path), remedy=remedy) from None
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"cannot be read ({error})", where=str(path), remedy="Fetch the model again.") from None
    if not isinstance(held, dict):
        raise WeightsError("is no JSON object", where=str(path), remedy="Fetch the model again.")
    return held


def _open(folder: Path) -> "_Tensors":
    """Returns the tensors of the one file or of the shards that the index lists."""
    if (folder / _ONE).exists():
        return _Tensors({name: file for file in [Shard(folder / _ONE)] for name in file.names})
    if (folder / _INDEX).exists():
        return _indexed(folder)
    others = sorted(path.name for path in folder.glob("*.safetensors"))
    if len(others) == 1:
        return _Tensors({name: file for file in [Shard(folder / others[0])] for name in file.names})
    if others:
        problem = f"holds {', '.join(others[:3])}, but no {_INDEX} that says what is in which"
        raise WeightsError(problem, where=str(folder), remedy=f"Fetch {_INDEX} too.")
    pickled = sorted(path.name for ending in ("*.bin", "*.pt", "*.pth") for path in folder.glob(ending))
    if pickled:
        raise WeightsError(
            f"holds {pickled[0]}, but no .safetensors: reading a pickle runs the code in it",
            where=str(folder),
            remedy="Fetch the .safetensors files, or convert it where it may run: "
            "AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder) of transformers.",
        )
    raise WeightsError("holds no .safetensors", where=str(folder), remedy=f"Fetch {_ONE}.")


def _indexed(folder: Path) -> "_Tensors":
    index = folder / _INDEX
    table = read_json(index).get("weight_map")
    if not isinstance(table, dict) or not table:
        raise WeightsError("has no weight_map", where=str(index), remedy="Fetch the model again.")
    for file in table.values():
        # Neither a way out of the folder nor a file of another kind.
        if not isinstance(file, str) or Path(file).name != file or "\\" in file or not file.endswith(".safetensors"):
            raise WeightsError(
                f"names the file {file!r}", where=str(index), remedy="It may only name .safetensors files beside it."
            )
    shards = {file: Shard(folder / file) for file in sorted(set(table.values()))}
    for name, file in table.items():
        if name not in shards[file].names:
            remedy = f"{did_you_mean(name, shards[file].names)} Fetch the model again."
            raise WeightsError(f"says that {name} is in {file}, but it is not", where=str(index), remedy=remedy)
    for file, shard in shards.items():
        if left := sorted(name for name in shard.names if table.get(name) != file):
            problem = f"does not say that {left[0]} is in {file}"
            raise WeightsError(problem, where=str(index), remedy="Fetch the model again.")
    return _Tensors({name: shards[file] for name, file in table.items()})


class Shard:
    """One safetensors file, its header checked by the library: sizes, offsets, overlaps, the end."""

    def __init__(self, path: Path):
        self.path = path
        try:
            self._file: Any = safe_open(path, "numpy")
        except FileNotFoundError:
            raise WeightsError("is missing", where=str(path), remedy="Fetch the whole model.") from None
        except (OSError, SafetensorError) as error:
            problem = f"is truncated or malformed ({error})"
            raise WeightsError(problem, where=str(path), remedy="Fetch the model again.") from None
        self.names = frozenset(self._file.keys())
        for name in sorted(self.names):
            if (kept := self._file.get_slice(name).get_dtype()) not in _FORMATS:
                remedy = f"Fetch the unquantized model; these are read: {', '.join(_FORMATS)}."
                raise WeightsError(f"{name} is kept as {kept}", where=str(path), remedy=remedy)

    def read(self, name: str) -> np.ndarray:
        """Returns one tensor."""
        try:
            return self._file.get_tensor(name)
        except (OSError, SafetensorError) as error:
            problem = f"{name} cannot be read ({error})"
            raise WeightsError(problem, where=str(self.path), remedy="Fetch the model again.") from None


class _Tensors(Mapping[str, np.ndarray]):
    """Tensors that are read when they are asked for."""

    def __init__(self, shards: Mapping[str, Shard]):
        self._shards = shards

    def __getitem__(self, name: str) -> np.ndarray:
        return self._shards[name].read(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._shards)

    def __len__(self) -> int:
        return len(self._shards)


def _write_weights(folder: Path, tensors: Iterable[tuple[str, np.ndarray]], shard_bytes: int) -> None:
    """Writes one file, or several of about `shard_bytes` and their index; holds one file's tensors at a time."""
    files: list[list[str]] = []
    held: dict[str, np.ndarray] = {}
    total = size = 0
    for name, array in tensors:
        if held and size + array.nbytes > shard_bytes:
            files.append(_write_shard(folder, len(files), held))
            held, size = {}, 0
        held[name] = array
        size, total = size + array.nbytes, total + array.nbytes
    files.append(_write_shard(folder, len(files), held))
    if len(files) == 1:
        (folder / _shard_name(0)).rename(folder / _ONE)
        return
    table: dict[str, str] = {}
    for number, names in enumerate(files):
        final = f"model-{number + 1:05}-of-{len(files):05}.safetensors"
        (folder / _shard_name(number)).rename(folder / final)
        table |= dict.fromkeys(names, final)
    write_json(folder / _INDEX, {"metadata": {"total_size": total}, "weight_map": table})


def _shard_name(number: int) -> str:
    return f"part-{number}.safetensors"


def _write_shard(folder: Path, number: int, held: dict[str, np.ndarray]) -> list[str]:
    save_file(held, folder / _shard_name(number), metadata={"format": "pt"})
    return list(held)


def write_json(path: Path, held: Mapping[str, Any]) -> None:
    """Writes a JSON object, to be read by people too."""
    path.write_text(json.dumps(held, indent=2) + "\n", encoding="utf-8")
