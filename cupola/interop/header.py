"""The beginning of a GGUF file: its metadata and where its tensors lie, checked before any is touched.

The reader of the library `gguf` believes every count, size and offset that a file names; this one
believes none. Not here: what they mean (`gguf.py`).
Invariant: every tensor lies whole inside the file, and no two have one name.
Source: the GGUF specification, versions 2 and 3.
"""

import dataclasses
import math
import mmap
import struct
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from cupola.interop.errors import WeightsError

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Codes of GGUF's scalar types, as `struct` writes them."""
_TEXT, _LIST = 8, 9
_ENTRIES = 100_000
"""More entries or tensors than this no model has."""
_NAME_BYTES = 65_535
_DIMS = 4
_READ = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K")
TYPES = {GGMLQuantizationType[name] for name in _READ}
"""What is read; a file with others is refused."""


@dataclasses.dataclass(frozen=True)
class Stored:
    """A tensor as it lies in a file.

    Args:
        kind: how its numbers are written.
        shape: outermost dimension first, as numpy has it; the file names the innermost first.
        start: its first byte.
        size_bytes: of all of it.
    """

    kind: GGMLQuantizationType
    shape: tuple[int, ...]
    start: int
    size_bytes: int


@dataclasses.dataclass(frozen=True)
class Header:
    """What a GGUF file says of itself.

    Args:
        metadata: by key.
        tensors: by the file's own names.
    """

    metadata: dict[str, Any]
    tensors: dict[str, Stored]


def read_header(path: Path) -> Header:
    """Returns a file's metadata and the places of its tensors.

    Raises:
        WeightsError: no such file, no GGUF, truncated, or something in it cannot be.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Reader(data, str(path)).header()
    except OSError as error:
        raise WeightsError(f"cannot be read ({error.strerror})", where=str(path), remedy="Name a .gguf file.") from None
    except ValueError as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError("is empty", where=str(path), remedy="Download it again.") from None


class _Reader:
    def __init__(self, data: mmap.mmap, where: str):
        self._data, self._where, self._at = data, where, 0

    def refuse(self, problem: str, remedy: str = "Download it again.") -> NoReturn:
        raise WeightsError(problem, where=self._where, remedy=remedy)

    def header(self) -> Header:
        if self._data[:4] != b"GGUF":
            self.refuse("is no GGUF file: it does not begin with the letters GGUF", "Name a .gguf file.")
        self._at = 4
        version = self.number("I")
        if version not in (2, 3):
            self.refuse(f"is GGUF version {version}; versions 2 and 3, little-endian, are read", "Convert it again.")
        tensors, entries = self.count("tensors"), self.count("entries")
        metadata: dict[str, Any] = {}
        for _ in range(entries):
            key = self.text(_NAME_BYTES)
            if key in metadata:
                self.refuse(f"names {key!r} twice")
            metadata[key] = self.value(self.number("I"))
        described = [self.tensor() for _ in range(tensors)]
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1) or alignment > 1 << 20:
            self.refuse(f"has alignment {alignment!r}, which is no power of two")
        start = -(-self._at // alignment) * alignment
        return Header(metadata=metadata, tensors=self.placed(described, start))

    def placed(self, described: list[tuple[str, GGMLQuantizationType, tuple[int, ...], int]], start: int):
        placed: dict[str, Stored] = {}
        for name, kind, shape, offset in described:
            block, block_bytes = GGML_QUANT_SIZES[kind]
            if shape[-1] % block:
                self.refuse(f"{name} has rows of {shape[-1]}, but {kind.name} comes in blocks of {block}")
            size = math.prod(shape) // block * block_bytes
            if start + offset + size > len(self._data):
                missing = start + offset + size - len(self._data)
                self.refuse(f"ends {missing} bytes before the end of {name}: it is truncated, or no honest file")
            if name in placed:
                self.refuse(f"names the tensor {name!r} twice")
            placed[name] = Stored(kind=kind, shape=shape, start=start + offset, size_bytes=size)
        return placed

    def tensor(self) -> tuple[str, GGMLQuantizationType, tuple[int, ...], int]:
        name = self.text(_NAME_BYTES)
        dims = self.number("I")
        if not 1 <= dims <= _DIMS:
            self.refuse(f"{name} has {dims} dimensions; 1 to {_DIMS} are possible")
        shape = tuple(self.number("Q") for _ in range(dims))[::-1]
        # The product is checked against the file, for which each factor must be sane first.
        if any(not 0 < size <= len(self._data) * 32 for size in shape):
            self.refuse(f"{name} has the shape {list(shape)}, which does not fit the file")
        code, offset = self.number("I"), self.number("Q")
        kinds = {kind.value: kind for kind in GGMLQuantizationType}
        if kinds.get(code) not in TYPES:
            known = ", ".join(_READ)
            called = kinds[code].name if code in kinds else f"of the unknown type {code}"
            self.refuse(f"{name} is {called}, which is not read", f"Convert the file to one of {known}.")
        return name, kinds[code], shape, offset

    def count(self, what: str) -> int:
        count = self.number("Q")
        if count > _ENTRIES:
            self.refuse(f"says that it has {count} {what}; at most {_ENTRIES} are read")
        return count

    def take(self, size: int) -> bytes:
        if size > len(self._data) - self._at:
            self.refuse(f"is truncated: byte {self._at} begins something of {size} bytes, past the end of the file")
        self._at += size
        return self._data[self._at - size : self._at]

    def number(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))[0]

    def text(self, most: int) -> str:
        size = self.number("Q")
        if size > most:
            self.refuse(f"holds a text of {size} bytes near byte {self._at}; at most {most} are possible there")
        try:
            return self.take(size).decode()
        except UnicodeDecodeError:
            self.refuse(f"holds a text near byte {self._at} that is not UTF-8")

    def value(self, code: int) -> Any:
        if code in _SCALARS:
            return self.number(_SCALARS[code])
        if code == _TEXT:
            return self.text(len(self._data))
        if code != _LIST:
            self.refuse(f"holds a value of the unknown type {code} near byte {self._at}")
        item, length = self.number("I"), self.number("Q")
        if item in _SCALARS:
            width = struct.calcsize(f"<{_SCALARS[item]}")
            return np.frombuffer(self.take(width * length), np.dtype(_SCALARS[item]).newbyteorder("<")).tolist()
        if item != _TEXT or length * 8 > len(self._data) - self._at:
            self.refuse(f"holds a list near byte {self._at} that cannot be: {length} items of type {item}")
        return [self.text(len(self._data)) for _ in range(length)]
