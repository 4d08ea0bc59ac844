import struct

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from ggufs import write_gguf

from cupola.interop.errors import WeightsError
from cupola.interop.header import read_header


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def entry(key: str, code: int, data: bytes) -> bytes:
    return text(key) + struct.pack("<I", code) + data


def tensor(name="t", shape=(2,), code=0, offset=0, dims=None) -> bytes:
    sizes = struct.pack(f"<{len(shape)}Q", *shape)
    return (
        text(name) + struct.pack("<I", len(shape) if dims is None else dims) + sizes + struct.pack("<IQ", code, offset)
    )


def file_of(*, magic=b"GGUF", version=3, entries=(), tensors=(), counts=None, data=bytes(64)) -> bytes:
    counts = counts or (len(tensors), len(entries))
    head = magic + struct.pack("<IQQ", version, *counts) + b"".join(entries) + b"".join(tensors)
    return head + bytes(-len(head) % 32) + data


@pytest.fixture
def read(tmp_path):
    def read(data: bytes):
        (tmp_path / "m.gguf").write_bytes(data)
        return read_header(tmp_path / "m.gguf")

    return read


def test_what_the_library_writes_is_read_as_the_library_reads_it(tmp_path):
    path = write_gguf(tmp_path / "m.gguf", kind=Kind.Q4_0)
    header, theirs = read_header(path), gguf.GGUFReader(path)
    for name, field in theirs.fields.items():
        if not name.startswith("GGUF."):
            assert header.metadata[name] == field.contents()
    data = path.read_bytes()
    for theirs_tensor in theirs.tensors:
        ours = header.tensors[theirs_tensor.name]
        assert (ours.kind, ours.shape) == (theirs_tensor.tensor_type, tuple(theirs_tensor.shape[::-1].tolist()))
        assert data[ours.start : ours.start + ours.size_bytes] == theirs_tensor.data.tobytes()


def test_every_type_of_value(read):
    values = [(0, "B", 7), (1, "b", -7), (2, "H", 7), (3, "h", -7), (4, "I", 7), (5, "i", -7)]
    values += [(6, "f", 0.5), (7, "?", True), (10, "Q", 2**40), (11, "q", -(2**40)), (12, "d", 0.1)]
    entries = [entry(f"one.{code}", code, struct.pack(f"<{f}", v)) for code, f, v in values]
    entries += [entry(f"many.{code}", 9, struct.pack(f"<IQ{f}{f}", code, 2, v, v)) for code, f, v in values]
    entries += [entry("text", 8, text("größer")), entry("texts", 9, struct.pack("<IQ", 8, 2) + text("a") + text(""))]
    metadata = read(file_of(entries=entries)).metadata
    assert [metadata[f"one.{code}"] for code, _, _ in values] == [v for *_, v in values]
    assert [metadata[f"many.{code}"] for code, _, _ in values] == [[v, v] for *_, v in values]
    assert (metadata["text"], metadata["texts"]) == ("größer", ["a", ""])


HUGE = struct.pack("<Q", 2**63)
HOSTILE = {
    "no GGUF": (file_of(magic=b"PK\x03\x04"), "does not begin with the letters GGUF"),
    "an old version": (file_of(version=1), "GGUF version 1"),
    "big-endian": (b"GGUF" + struct.pack(">I", 3) + bytes(64), "versions 2 and 3, little-endian"),
    "too many tensors": (file_of(counts=(2**60, 0)), "says that it has .* tensors"),
    "too many entries": (file_of(counts=(0, 2**60)), "says that it has .* entries"),
    "fewer entries than said": (file_of(counts=(0, 50), data=b""), "truncated"),
    "a name past the end": (file_of(entries=[HUGE]), "holds a text of"),
    "a text past the end": (file_of(entries=[entry("a", 8, struct.pack("<Q", 60_000))]), "holds a text|truncated"),
    "a text that is no UTF-8": (file_of(entries=[entry("a", 8, struct.pack("<Q", 1) + b"\xff")]), "not UTF-8"),
    "an unknown type of value": (file_of(entries=[entry("a", 99, b"")]), "unknown type 99"),
    "a list past the end": (file_of(entries=[entry("a", 9, struct.pack("<I", 4) + HUGE)]), "truncated"),
    "a list of texts past the end": (file_of(entries=[entry("a", 9, struct.pack("<I", 8) + HUGE)]), "cannot be"),
    "a list of lists": (file_of(entries=[entry("a", 9, struct.pack("<IQ", 9, 1) + bytes(12))]), "cannot be"),
    "a key twice": (file_of(entries=[entry("a", 4, bytes(4))] * 2), "names 'a' twice"),
    "a tensor twice": (file_of(tensors=[tensor()] * 2), "names the tensor 't' twice"),
    "no dimension": (file_of(tensors=[tensor(shape=())]), "0 dimensions"),
    "many dimensions": (file_of(tensors=[tensor(dims=2**31)]), "dimensions; 1 to 4"),
    "a size of zero": (file_of(tensors=[tensor(shape=(0, 4))]), "does not fit the file"),
    "sizes that overflow": (file_of(tensors=[tensor(shape=(2**32, 2**32))]), "does not fit the file"),
    "sizes that multiply past the end": (file_of(tensors=[tensor(shape=(100, 100))]), "bytes before the end of t"),
    "an offset past the end": (file_of(tensors=[tensor(offset=2**63)]), "bytes before the end of t"),
    "half a block": (file_of(tensors=[tensor(shape=(16,), code=2)]), "Q4_0 comes in blocks of 32"),
    "a type that is not read": (file_of(tensors=[tensor(shape=(256,), code=10)]), r"t is Q2_K[\s\S]*Q4_K"),
    "a type that is none": (file_of(tensors=[tensor(code=77)]), "unknown type 77"),
    "an alignment of 3": (file_of(entries=[entry("general.alignment", 4, struct.pack("<I", 3))]), "power of two"),
    "an alignment that is a text": (file_of(entries=[entry("general.alignment", 8, text("32"))]), "power of two"),
    "nothing": (b"", "is empty"),
    "four letters": (b"GGUF", "truncated"),
}


@pytest.mark.parametrize(("data", "message"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_files_are_refused(read, tmp_path, data, message):
    with pytest.raises(WeightsError, match=message) as caught:
        read(data)
    assert caught.value.where == str(tmp_path / "m.gguf")
    assert caught.value.remedy


def test_a_file_cut_anywhere_is_refused(read, tmp_path):
    whole = write_gguf(tmp_path / "whole.gguf", kind=Kind.Q8_0).read_bytes()
    for length in np.random.default_rng(0).integers(1, len(whole) - 32, 60).tolist():
        with pytest.raises(WeightsError):
            read(whole[:length])


def test_a_file_with_any_byte_of_its_head_changed_is_read_or_refused(read, tmp_path):
    whole = bytearray(write_gguf(tmp_path / "whole.gguf").read_bytes())
    random = np.random.default_rng(0)
    for at in random.integers(0, 6000, 300).tolist():
        changed = whole.copy()
        changed[at] ^= int(random.integers(1, 256))
        try:
            header = read(bytes(changed))
        except WeightsError:
            continue
        assert all(t.start + t.size_bytes <= len(whole) for t in header.tensors.values())


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"No such file[\s\S]*Name a \.gguf file"):
        read_header(tmp_path / "none.gguf")
