"""CTranslate2's `model.bin`: named arrays, read as they are asked for.

Not here: what the names mean (`whisper.py`). Invariant: every array lies whole inside the file, and
what the file says of sizes and places is checked before anything is read.
Source: CTranslate2, `models/model.cc`, versions 4 to 6 of the format.
"""

import dataclasses
import math
import mmap
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import jax.numpy as jnp
import numpy as np

from cupola.interop.errors import WeightsError

_VERSIONS = range(4, 7)
_TYPES: dict[int, np.dtype] = {
    0: np.dtype("<f4"),
    1: np.dtype("i1"),
    2: np.dtype("<i2"),
    3: np.dtype("<i4"),
    4: np.dtype("<f2"),
    5: np.dtype(jnp.bfloat16),
}
_MOST = 100_000
"""More arrays than this no model has."""
_DIMS = 6
_SCALE = "_scale"
"""End of the name of an array that another one was multiplied by before it was rounded to whole numbers."""


@dataclasses.dataclass(frozen=True)
class _Stored:
    dtype: np.dtype
    shape: tuple[int, ...]
    start: int


class Variables(Mapping[str, np.ndarray]):
    """The arrays of a file by name. Those of int8 come multiplied out, in float32.

    Args:
        kind: what the file says it holds, such as "WhisperSpec".
    """

    def __init__(self, path: Path, kind: str, data: mmap.mmap, stored: Mapping[str, _Stored], same: Mapping[str, str]):
        self.path, self.kind = path, kind
        self._data, self._stored, self._same = data, stored, same

    def __getitem__(self, name: str) -> np.ndarray:
        raw = self.raw(name)
        if raw.dtype != np.int8 or not raw.ndim:
            return raw
        scales = self.raw(name + _SCALE)
        return raw.astype(np.float32) / scales.reshape(-1, *[1] * (raw.ndim - 1)).astype(np.float32)

    def raw(self, name: str) -> np.ndarray:
        """Returns an array as it is stored."""
        held = self._stored[self._same.get(name, name)]
        count = math.prod(held.shape)
        return np.frombuffer(self._data, held.dtype, count, held.start).reshape(held.shape)

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._stored if not name.endswith(_SCALE))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def read_variables(path: Path) -> Variables:
    """Returns the arrays in a `model.bin`.

    Raises:
        WeightsError: no such file, not of this format, truncated, or something in it cannot be.
    """
    try:
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        remedy = "Name a folder with a model.bin."
        raise WeightsError(f"cannot be read ({error.strerror})", where=str(path), remedy=remedy) from None
    except ValueError:
        raise WeightsError("is empty", where=str(path), remedy="Fetch it again.") from None
    return _Reader(data, path).variables()


class _Reader:
    def __init__(self, data: mmap.mmap, path: Path):
        self._data, self._path, self._at = data, path, 0

    def refuse(self, problem: str, remedy: str = "Fetch the model again.") -> NoReturn:
        raise WeightsError(problem, where=str(self._path), remedy=remedy)

    def variables(self) -> Variables:
        version = self.number("I")
        if version not in _VERSIONS:
            known = f"{_VERSIONS[0]} to {_VERSIONS[-1]}"
            self.refuse(f"is no model.bin of CTranslate2 of versions {known}", "Convert the model with CTranslate2 4.")
        kind = self.text()
        self.number("I")  # the revision of that kind
        stored: dict[str, _Stored] = {}
        for _ in range(self.count("arrays")):
            name, held = self.array()
            if name in stored:
                self.refuse(f"has the array {name!r} twice")
            stored[name] = held
        for name, held in stored.items():
            if held.dtype == np.int8 and held.shape and name + _SCALE not in stored:
                self.refuse(f"has no scales for {name}")
        same: dict[str, str] = {}
        for _ in range(self.count("names")):
            alias, name = self.text(), self.text()
            if name not in stored:
                self.refuse(f"says that {alias} is {name}, which is not there")
            same[alias] = name
        if self._at != len(self._data):
            self.refuse(f"goes on for {len(self._data) - self._at} bytes after its end")
        return Variables(self._path, kind, self._data, stored, same)

    def array(self) -> tuple[str, _Stored]:
        name, rank = self.text(), self.number("B")
        if rank > _DIMS:
            self.refuse(f"{name} has {rank} dimensions; at most {_DIMS} are possible")
        shape = tuple(self.number("I") for _ in range(rank))
        code, size = self.number("B"), self.number("I")
        if code not in _TYPES:
            self.refuse(f"{name} is of the unknown type {code}")
        dtype = _TYPES[code]
        if math.prod(shape) * dtype.itemsize != size:
            self.refuse(f"{name} has the shape {list(shape)} of {dtype.name}, which are not its {size} bytes")
        start = self._at
        self.skip(size)
        return name, _Stored(dtype, shape, start)

    def count(self, what: str) -> int:
        count = self.number("I")
        if count > _MOST:
            self.refuse(f"says that it has {count} {what}; at most {_MOST} are read")
        return count

    def skip(self, size: int) -> int:
        if size > len(self._data) - self._at:
            self.refuse(f"is truncated: byte {self._at} begins something of {size} bytes, past the end of the file")
        self._at += size
        return self._at - size

    def number(self, code: str) -> Any:
        return struct.unpack_from(f"<{code}", self._data, self.skip(struct.calcsize(f"<{code}")))[0]

    def text(self) -> str:
        size = self.number("H")
        start = self.skip(size)
        try:
            return self._data[start : start + size].rstrip(b"\0").decode()
        except UnicodeDecodeError:
            self.refuse(f"holds a name near byte {start} that is not UTF-8")
