import struct

import numpy as np
import pytest
from converted import packed

from cupola.interop.ctranslate2 import read_variables
from cupola.interop.errors import WeightsError

ARRAYS = {
    "a/weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b/weight": np.asarray([[0.5, -2.0]], np.float16),
    "c/weight": np.asarray([[100, -50], [127, 3]], np.int8),
    "c/weight_scale": np.asarray([10.0, 127.0], np.float32),
    "c/number": np.asarray(8, np.int16),
}


@pytest.fixture
def write(tmp_path):
    def written(data):
        path = tmp_path / "model.bin"
        path.write_bytes(data)
        return path

    return written


def test_arrays_come_back(write):
    held = read_variables(write(packed(ARRAYS, same={"d/weight": "a/weight"})))
    assert held.kind == "WhisperSpec"
    assert sorted(held) == ["a/weight", "b/weight", "c/number", "c/weight"]
    assert len(held) == 4
    for name in ("a/weight", "b/weight", "c/number"):
        np.testing.assert_array_equal(held[name], ARRAYS[name])
        assert held[name].dtype == ARRAYS[name].dtype
    np.testing.assert_array_equal(held["d/weight"], ARRAYS["a/weight"])
    # Whole numbers are what a row was multiplied by its scale for.
    np.testing.assert_allclose(held["c/weight"], [[10, -5], [1, 3 / 127]], rtol=1e-6)


def broken(name):
    whole = packed(ARRAYS)
    match name:
        case "empty":
            return b"", "is empty"
        case "of another format":
            return b"GGUF" + whole[4:], "is no model.bin of CTranslate2 of versions 4 to 6"
        case "longer":
            return whole + b"x", "goes on for 1 bytes"
        case "without scales":
            return packed({"c/weight": ARRAYS["c/weight"]}), "has no scales for c/weight"
        case "of an unknown type":
            return packed({"a": ARRAYS["b/weight"]}).replace(b"\x04\x04\x00\x00\x00", b"\x09\x04\x00\x00\x00"), "type 9"
        case "of a wrong size":
            return packed({"a": ARRAYS["b/weight"]}).replace(b"\x04\x04\x00", b"\x04\x06\x00"), "not its 6 bytes"
        case "of too many":
            return whole.replace(struct.pack("<I", len(ARRAYS)), struct.pack("<I", 2**31), 1), "at most 100000"
        case "of too many dimensions":
            return packed({"a": np.zeros((1,) * 7, np.float32)}), "7 dimensions"
        case "with a name twice":
            twice = packed({"aa": ARRAYS["a/weight"], "ab": ARRAYS["a/weight"]})
            return twice.replace(b"ab\0", b"aa\0"), "'aa' twice"
        case "with a name of nothing":
            return packed(ARRAYS, same={"d": "e"}), "d is e, which is not there"
        case "with a name that is no text":
            return packed({"aa": ARRAYS["a/weight"]}).replace(b"aa\0", b"\xff\xfe\0"), "not UTF-8"


NAMES = [
    "empty",
    "of another format",
    "longer",
    "without scales",
    "of an unknown type",
    "of a wrong size",
    "of too many",
    "of too many dimensions",
    "with a name twice",
    "with a name of nothing",
    "with a name that is no text",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_broken_file_is_refused(name, write):
    data, match = broken(name)
    with pytest.raises(WeightsError, match=match) as caught:
        read_variables(write(data))
    assert caught.value.remedy


def test_a_cut_file_is_refused_wherever_it_is_cut(write):
    whole = packed(ARRAYS)
    for length in range(1, len(whole)):
        with pytest.raises(WeightsError, match="truncated|empty"):
            read_variables(write(whole[:length]))


def test_a_missing_file(tmp_path):
    with pytest.raises(WeightsError, match="cannot be read"):
        read_variables(tmp_path / "model.bin")
