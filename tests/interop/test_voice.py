"""A voice file: read back as it was written, or refused with the reason."""

import dataclasses
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from cupola.core.errors import ConfigError
from cupola.core.module import flat_specs
from cupola.core.param import Role
from cupola.interop import voice as voice_files
from cupola.interop.errors import WeightsError
from cupola.interop.voice import MOST_SHIPPED_BYTES, Form, read_voice, shipped, write_voice

sys.path.insert(0, str(Path(__file__).parent))

import spoken


@pytest.fixture(scope="module")
def crier():
    return spoken.make_synthesizer()


@pytest.fixture
def file(crier, tmp_path):
    write_voice(tmp_path / "crier.safetensors", crier, form=Form.FLOAT32)
    return tmp_path / "crier.safetensors"


def leaves(tree):
    return dict(jax.tree_util.tree_flatten_with_path(tree)[0])


def test_what_is_read_is_what_was_written(crier, file):
    read = read_voice(file)
    assert (read.name, read.voice, read.card) == ("crier", crier.voice, crier.card)
    jax.tree.map(np.testing.assert_array_equal, read.params, crier.params)
    said, again = (one.voice.say(one.params, "One.", seed=2).clip.samples for one in (crier, read))
    np.testing.assert_array_equal(said, again)


@pytest.mark.parametrize(("form", "bits"), [(Form.BFLOAT16, 8), (Form.INT8, 7)])
def test_compact_forms_are_near_and_small(crier, tmp_path, monkeypatch, form, bits):
    monkeypatch.setattr(voice_files, "_LEAST_INT8", 8)
    sizes = {each: write_voice(tmp_path / f"{each.value}.safetensors", crier, form=each) for each in Form}
    assert sizes[Form.INT8] < sizes[Form.BFLOAT16] < sizes[Form.FLOAT32]
    read = read_voice(tmp_path / f"{form.value}.safetensors")
    states = {path for path, param in flat_specs(crier.voice.specs()) if param.role is Role.STATE}
    assert states
    for (keys, made), wanted in zip(leaves(read.params).items(), leaves(crier.params).values(), strict=True):
        path = ".".join(key.key for key in keys)
        if wanted.ndim < 2 or path in states:
            np.testing.assert_array_equal(made, wanted)
        else:
            largest = np.abs(wanted).max(axis=tuple(range(wanted.ndim - 1)))
            assert (np.abs(made - wanted) <= largest * 2.0**-bits).all()
    assert any((a != b).any() for a, b in zip(*map(jax.tree.leaves, (read.params, crier.params)), strict=True))


def test_one_flipped_bit_is_noticed(file):
    data = bytearray(file.read_bytes())
    for at in (len(data) - 5, len(data) // 2, data.index(b"random numbers") + 2):
        file.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(WeightsError, match="damaged: its contents do not agree|malformed"):
            read_voice(file)
    file.write_bytes(data)
    assert read_voice(file).name == "crier"


def rewritten(file, change_told=lambda told: told, change_arrays=lambda arrays: arrays):
    """The file with other contents and a checksum that fits them: what an honest mistake or a forger would write."""
    with safe_open(file, "numpy") as held:
        told, arrays = dict(held.metadata()), {name: held.get_tensor(name) for name in held.keys()}  # noqa: SIM118
    told.pop("sha256")
    told, arrays = change_told(told), change_arrays(arrays)
    save_file(arrays, file, metadata=told | {"sha256": voice_files._digest(told, arrays)})
    return file


def without(name):
    return lambda arrays: {key: value for key, value in arrays.items() if key != name}


def a_matrix(file):
    with safe_open(file, "numpy") as held:
        return next(name for name in sorted(held.keys()) if held.get_tensor(name).ndim == 2)


def test_parameters_of_other_sizes_are_refused(file):
    name = a_matrix(file)
    data = file.read_bytes()
    with pytest.raises(WeightsError, match=rf"{name} is missing\nParameters and voice must be of the same run"):
        read_voice(rewritten(file, change_arrays=without(name)))
    file.write_bytes(data)
    with pytest.raises(WeightsError, match=rf"{name} has the shape \[1, 2\], and the voice has"):
        read_voice(rewritten(file, change_arrays=lambda arrays: arrays | {name: np.ones((1, 2), np.float32)}))
    file.write_bytes(data)
    with pytest.raises(WeightsError, match="extra is in no place of the voice"):
        read_voice(rewritten(file, change_arrays=lambda arrays: arrays | {"extra": np.ones(2, np.float32)}))
    file.write_bytes(data)
    with pytest.raises(WeightsError, match="has no scale"):
        read_voice(rewritten(file, change_arrays=lambda arrays: arrays | {name: arrays[name].astype(np.int8)}))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("cupola.data.spoken.english:English", "subprocess:Popen", "subprocess:Popen, which is not of cupola"),
        ("model.bins = 16", "model.bins = 9", "its text cannot be read.*takes 16"),
        ("model.bins", "model.bin", "its text cannot be read.*no field 'bin'"),
    ],
)
def test_texts_that_are_no_voice_are_refused(file, old, new, message):
    def change(told):
        assert old in told["voice"]
        return told | {"voice": told["voice"].replace(old, new)}

    with pytest.raises((WeightsError, ConfigError), match=message):
        read_voice(rewritten(file, change))


def test_texts_of_other_things_are_refused(file):
    with pytest.raises(WeightsError, match="holds a English, which is no voice"):
        read_voice(rewritten(file, lambda told: told | {"voice": ". = cupola.data.spoken.english:English"}))


def test_a_card_that_is_none_is_refused(file):
    with pytest.raises(WeightsError, match="its text cannot be read"):
        read_voice(rewritten(file, lambda told: told | {"card": json.dumps({"licence": ""})}))


def test_files_that_are_none(tmp_path):
    with pytest.raises(WeightsError, match="there is no such file"):
        read_voice(tmp_path / "nobody.safetensors")
    (tmp_path / "text.safetensors").write_text("la la la")
    with pytest.raises(WeightsError, match="truncated or malformed"):
        read_voice(tmp_path / "text.safetensors")
    save_file({"a": np.ones(2)}, tmp_path / "weights.safetensors")
    with pytest.raises(WeightsError, match="is no voice file but a file of weights alone"):
        read_voice(tmp_path / "weights.safetensors")


def test_what_cannot_be_written_is_refused(crier, tmp_path):
    path = tmp_path / "crier.safetensors"
    with pytest.raises(ConfigError, match="there is no card\nSay its licence"):
        write_voice(path, dataclasses.replace(crier, card=None))
    with pytest.raises(ConfigError, match="another ending\nEnd it in .safetensors"):
        write_voice(tmp_path / "crier.bin", crier)
    wild = jax.tree.map(lambda leaf: leaf * jnp.nan, crier.params)
    with pytest.raises(WeightsError, match="is not finite"):
        write_voice(path, dataclasses.replace(crier, params=wild))
    with pytest.raises(WeightsError, match="is missing, and the voice has"):
        write_voice(path, dataclasses.replace(crier, params={"model": {}, "vocoder": {}}))
    extra = crier.params | {"vocoder": {"more": jnp.ones(2)}}
    with pytest.raises(WeightsError, match="vocoder.more is in no place"):
        write_voice(path, dataclasses.replace(crier, params=extra))
    assert not path.exists()


def test_what_is_shipped_is_small_and_whole():
    path = shipped()
    if path is None:
        pytest.skip("no voice is shipped yet")
    assert path.stat().st_size <= MOST_SHIPPED_BYTES
    assert read_voice(path).card is not None


def test_a_vocoder_with_parameters_is_in_the_file_too(tmp_path):
    hummer = spoken.make_neural()
    write_voice(tmp_path / "hummer.safetensors", hummer, form=Form.FLOAT32)
    read = read_voice(tmp_path / "hummer.safetensors")
    assert read.voice == hummer.voice
    said, again = (one.voice.say(one.params, "One.").clip.samples for one in (hummer, read))
    np.testing.assert_array_equal(said, again)
    assert said.any()
