"""The manifest of a checkpoint: what it holds and how to tell that it is whole.

It is one JSON file that a person can read. Not here: the arrays (`write.py`, `read.py`).
Invariant: a folder with a manifest is a complete checkpoint, because the manifest is written last;
the manifest's own checksum covers everything it says.
"""

import dataclasses
import hashlib
import json
import math
from pathlib import Path
from typing import Any

from cupola.core.errors import CheckpointError

FILE = "manifest.json"

Scalar = int | float
"""A Python number (bool is an int) kept in the manifest itself."""


class Damaged(CheckpointError):
    """A checkpoint of which a file is missing, truncated or altered."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Leaf:
    """One leaf of the saved tree.

    Args:
        path: its path, with dots.
        shape: its sizes; of keys, without the sizes of the key's data.
        dtype: its format, such as "bfloat16" or "key<fry>", or "bool", "int" or "float" of a Python number.
        key: the generator, such as "threefry2x32", when the leaf holds random keys.
        value: the number, when it is a Python number.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    key: str = ""
    value: Scalar | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class File:
    """One file of a checkpoint: its path inside the folder, its size and its checksum."""

    path: str
    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """What one checkpoint holds.

    Args:
        step: training steps done.
        time: when it was written, ISO 8601 in UTC.
        versions: of the packages that wrote it, by name.
        metrics: numbers to choose the best checkpoint by.
        leaves: every leaf of the tree, in the order of the tree.
        files: every other file of the folder.
    """

    step: int
    time: str
    versions: dict[str, str]
    metrics: dict[str, float]
    leaves: tuple[Leaf, ...]
    files: tuple[File, ...]

    def text(self) -> str:
        """Returns the JSON text, with a checksum of itself."""
        told = dataclasses.asdict(self)
        told["metrics"] = {name: _number(value) for name, value in self.metrics.items()}
        told["leaves"] = [_told(leaf) for leaf in self.leaves]
        return json.dumps(told | {"sha256": _checksum(told)}, indent=2)

    @property
    def bytes(self) -> int:
        """Size of all its files."""
        return sum(file.bytes for file in self.files)


def exists(folder: Path) -> bool:
    """Returns whether `folder` is a complete checkpoint."""
    return (folder / FILE).is_file()


def read(folder: Path) -> Manifest:
    """Returns the manifest of the checkpoint in `folder`.

    Raises:
        Damaged: there is none, or it does not agree with its own checksum.
    """
    path = folder / FILE
    try:
        told = json.loads(path.read_text("utf-8"))
        checksum = told.pop("sha256")
        if checksum != _checksum(told):
            raise ValueError("its text does not agree with its checksum")
        return Manifest(
            step=told["step"],
            time=told["time"],
            versions=told["versions"],
            metrics={name: float(value) for name, value in told["metrics"].items()},
            leaves=tuple(_leaf(leaf) for leaf in told["leaves"]),
            files=tuple(File(**file) for file in told["files"]),
        )
    except FileNotFoundError:
        raise Damaged("there is no manifest, so the checkpoint was never completed", where=str(path)) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"the manifest is damaged ({error})", where=str(path)) from None


def _checksum(told: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _number(value: Scalar) -> Scalar | str:
    """JSON has no NaN and no infinities: they become the strings that float() reads back."""
    return value if math.isfinite(value) else repr(value)


def _told(leaf: Leaf) -> dict[str, Any]:
    told: dict[str, Any] = {"path": leaf.path, "shape": list(leaf.shape), "dtype": leaf.dtype}
    if leaf.key:
        told["key"] = leaf.key
    if leaf.value is not None:
        told["value"] = _number(leaf.value)
    return told


def _leaf(told: dict[str, Any]) -> Leaf:
    value = told.get("value")
    return Leaf(
        path=told["path"],
        shape=tuple(told["shape"]),
        dtype=told["dtype"],
        key=told.get("key", ""),
        value=float(value) if isinstance(value, str) else value,
    )
