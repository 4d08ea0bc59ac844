import json
import os
import shutil
import struct

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file
from tiny import CONFIGS, model_of, params_of

from cupola.core.dtype import FLOAT32, Precision
from cupola.core.errors import TokenizerError, Unsupported
from cupola.data.tokenizer import Tokenizer
from cupola.interop.errors import WeightsError
from cupola.interop.family import build
from cupola.interop.huggingface import export, read_folder
from cupola.kernels.matmul import Int8
from cupola.layers.repeat import unstacked

MODEL = model_of(CONFIGS["qwen3"])
INDEX = "model.safetensors.index.json"


@pytest.fixture(scope="module")
def params():
    return params_of(MODEL)


@pytest.fixture(scope="module")
def exported(tmp_path_factory, params):
    """The model in one file and in several; to be read only."""
    home = tmp_path_factory.mktemp("exported")
    export(MODEL, params, home / "model")
    export(MODEL, params, home / "shards", shard_bytes=4000)
    return home


@pytest.fixture
def folder(tmp_path, exported):
    return shutil.copytree(exported / "model", tmp_path / "model")


@pytest.fixture
def shards(tmp_path, exported):
    return shutil.copytree(exported / "shards", tmp_path / "shards")


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_exported_reads_back_the_same(name, tmp_path):
    model = model_of(CONFIGS[name])
    params = params_of(model)
    export(model, params, tmp_path / "model")
    held = read_folder(tmp_path / "model")
    again, read = build(held.config, held.tensors, precision=FLOAT32)
    assert again == model
    jax.tree.map(np.testing.assert_array_equal, read, unstacked(model, params))
    assert held.generation == {}


@pytest.mark.parametrize("param", ["bfloat16", "float16"])
def test_narrow_numbers_stay_so(param, tmp_path, params):
    narrow = jax.tree.map(lambda x: x.astype(param), params)
    model = MODEL.replace("precision", Precision(param=np.dtype(param)))
    export(model, narrow, tmp_path / "model")
    held = read_folder(tmp_path / "model")
    assert {array.dtype.name for array in held.tensors.values()} == {held.config["dtype"]} == {param}
    _, read = build(held.config, held.tensors, precision=FLOAT32)
    jax.tree.map(np.testing.assert_array_equal, read, unstacked(model, narrow))


def test_shards_hold_the_same_as_one_file(folder, shards):
    table = json.loads((shards / INDEX).read_text())["weight_map"]
    assert len(set(table.values())) > 3
    assert {path.name for path in shards.glob("*.safetensors")} == set(table.values())
    one, many = read_folder(folder).tensors, read_folder(shards).tensors
    assert set(one) == set(many) == set(table)
    assert len(many) == len(table)
    assert all((one[name] == many[name]).all() for name in one)


def test_the_tokenizer_and_its_end_go_along(tmp_path, params):
    model = MODEL.replace("vocabulary", 300)
    tokenizer = Tokenizer.train(["a furnace, a dome"] * 3, vocabulary=260)
    export(model, params_of(model), tmp_path / "model", tokenizer=tokenizer)
    assert Tokenizer.load(tmp_path / "model/tokenizer.json").fingerprint == tokenizer.fingerprint
    assert read_folder(tmp_path / "model").config["eos_token_id"] == tokenizer.end
    with pytest.raises(TokenizerError, match="tokens, but the model has 31"):
        export(MODEL, params, tmp_path / "other", tokenizer=tokenizer)


def test_generation_settings_are_read(folder):
    (folder / "generation_config.json").write_text('{"eos_token_id": [1, 2]}')
    assert read_folder(folder).generation == {"eos_token_id": [1, 2]}


def test_a_folder_is_never_overwritten(folder, params):
    before = (folder / "model.safetensors").read_bytes()
    with pytest.raises(WeightsError, match="holds something already\nName a folder that is not there yet."):
        export(MODEL, params, folder)
    assert (folder / "model.safetensors").read_bytes() == before


def test_what_cannot_be_exported_leaves_nothing_behind(tmp_path, params):
    cut = unstacked(MODEL, params)
    network = cut["stack"]["block"][1]["feed_forward"]
    network["up"] = Int8.quantize(network["up"])
    with pytest.raises(Unsupported, match="layers.1.mlp.up_proj.weight: the weight is kept as Int8\nMake it dense"):
        export(MODEL, cut, tmp_path / "model")
    (tmp_path / "file").write_text("")
    with pytest.raises(WeightsError, match="could not be written"):
        export(MODEL, params, tmp_path / "file/model")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def header(said, data=b"\0" * 16):
    text = json.dumps(said).encode()
    return struct.pack("<Q", len(text)) + text + data


def one(dtype, shape, start, stop):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


MALFORMED = {
    "empty": b"",
    "no header": struct.pack("<Q", 1 << 20) + b"{}",
    "a header too large": struct.pack("<Q", 1 << 60) + b"{}",
    "no JSON": struct.pack("<Q", 3) + b"{{{",
    "past the end": header({"a": one("F32", [8], 0, 32)}),
    "overlapping": header({"a": one("F32", [4], 0, 16), "b": one("F32", [4], 0, 16)}),
    "another size than its shape": header({"a": one("F32", [3], 0, 16)}),
    "a size past all numbers": header({"a": one("F32", [1 << 62, 1 << 62], 0, 16)}),
    "bytes that nothing names": header({"a": one("F32", [2], 0, 8)}),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_weights_are_refused(name, folder):
    (folder / "model.safetensors").write_bytes(MALFORMED[name])
    with pytest.raises(WeightsError, match="model.safetensors: is truncated or malformed .*\nFetch the model again."):
        read_folder(folder)


def test_truncated_weights_are_refused_wherever_they_end(folder):
    whole = (folder / "model.safetensors").read_bytes()
    for size in range(0, len(whole), len(whole) // 11):
        (folder / "model.safetensors").write_bytes(whole[:size])
        with pytest.raises(WeightsError, match="is truncated or malformed"):
            read_folder(folder)


def test_quantized_tensors_are_refused_by_name(folder):
    save_file({"a": np.ones(4, np.int32)}, folder / "model.safetensors")
    with pytest.raises(WeightsError, match="a is kept as I32\nFetch the unquantized model; these are read: F32"):
        read_folder(folder)


def only(folder, **files):
    for path in folder.glob("*.safetensors*"):
        path.unlink()
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_bytes(content)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds no .safetensors\nFetch model.safetensors."),
        ({"pytorch_model__bin": b"x"}, "holds pytorch_model.bin, but no .safetensors: reading a pickle runs .*\nFetch"),
        ({"a__safetensors": b"", "b__safetensors": b""}, f"holds a.safetensors, b.safetensors, but no {INDEX}"),
    ],
)
def test_folders_without_weights_are_refused(files, message, folder):
    only(folder, **files)
    with pytest.raises(WeightsError, match=message):
        read_folder(folder)


def test_one_file_of_another_name_will_do(folder):
    os.rename(folder / "model.safetensors", folder / "weights.safetensors")
    assert "model.norm.weight" in read_folder(folder).tensors


@pytest.mark.parametrize(
    "file", ["../model.safetensors", "/etc/x.safetensors", "a\\b.safetensors", "model.bin", "..", 3]
)
def test_an_index_names_no_file_elsewhere(file, shards):
    index = json.loads((shards / INDEX).read_text())
    index["weight_map"]["model.norm.weight"] = file
    (shards / INDEX).write_text(json.dumps(index))
    with pytest.raises(WeightsError, match="names the file .*\nIt may only name .safetensors files beside it."):
        read_folder(shards)


def moved(table):
    table["model.norm.weight"] = max(table.values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda table: table.update(new="model-00001-of-00002.safetensors"),
            "model-00001-of-00002.safetensors: is missing",
        ),
        (lambda table: table.pop("model.norm.weight"), "does not say that model.norm.weight is in model-0"),
        (moved, "says that model.norm.weight is in model-.*, but it is not"),
        (lambda table: table.clear(), "has no weight_map"),
    ],
)
def test_an_index_that_does_not_fit_its_shards_is_refused(change, message, shards):
    index = json.loads((shards / INDEX).read_text())
    change(index["weight_map"])
    (shards / INDEX).write_text(json.dumps(index))
    with pytest.raises(WeightsError, match=message):
        read_folder(shards)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "config.json: cannot be read"),
        (b"[1]", "config.json: is no JSON object"),
        (b"\xff\xfe", "config.json: cannot be read"),
        (b"[" * 100_000, "config.json: cannot be read"),
        (None, "config.json: is missing\nFetch the whole model"),
    ],
    ids=["cut", "list", "bytes", "deep", "missing"],
)
def test_a_config_that_is_none_is_refused(content, message, folder):
    (folder / "config.json").unlink()
    if content is not None:
        (folder / "config.json").write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        read_folder(folder)


def test_json_of_any_size_is_not_read(folder):
    with (folder / "config.json").open("wb") as file:
        file.truncate(65 << 20)
    with pytest.raises(WeightsError, match="is larger than"):
        read_folder(folder)


def test_a_file_is_no_folder(folder):
    with pytest.raises(WeightsError, match="is no folder"):
        read_folder(folder / "config.json")
