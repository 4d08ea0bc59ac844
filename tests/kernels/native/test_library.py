import hashlib
import json
import logging
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from cases import NORMS
from judge import complaints, standard

from cupola.core.dtype import FLOAT32
from cupola.core.errors import Unsupported
from cupola.kernels.choose import Implementation, Operation
from cupola.kernels.native import build, library
from cupola.kernels.native.level import Level
from cupola.kernels.norm import cpu, xla

HERE = library.find()
ROOT = [case for case in NORMS if case.operation.name == "rms_norm"]
OPERATION = Operation(
    "rms_norm",
    (*library.implementations(cpu.rms_norm, lambda x, *_, level: []), Implementation("xla", xla.rms_norm)),
)


@pytest.fixture
def forgotten():
    """Forgets what was found, before and after."""
    library.find.cache_clear()
    yield
    library.find.cache_clear()


def needs_library(level=None):
    why = library.reasons(level or next(iter(HERE.libraries), Level.AVX2))
    if why:
        pytest.skip(f"no native library: {'; '.join(why)}")


@pytest.mark.parametrize("level", Level, ids=lambda level: level.value)
@pytest.mark.parametrize("case", ROOT, ids=str)
def test_each_level_that_runs_here_matches(case, level):
    needs_library(level)
    (given, true) = case.given()["float32"], standard(case)["float32"]
    value = jax.jit(lambda *arrays: cpu.rms_norm(*case.arguments(arrays, FLOAT32), level=level))(*given)
    assert float(np.abs(np.asarray(value, np.float64) - true[0][0]).max()) <= true[1][0]
    assert complaints(case, {"float32": [value + 1, *true[0][1:]]}) != []  # the measure can fail


def test_a_level_is_named_and_its_kind_too():
    needs_library()
    (case,) = [case for case in ROOT if case.name == "typical"]
    args = case.arguments(case.given()["float32"], FLOAT32)
    highest = list(HERE.libraries)[-1]
    assert OPERATION.choose("cpu", *args).name == f"cpu/{highest.value}"
    for level in HERE.libraries:
        assert OPERATION.choose(f"cpu/{level.value}", *args).name == f"cpu/{level.value}"


def test_without_a_library_the_reason_is_told_and_xla_serves(tmp_path, monkeypatch, forgotten, caplog):
    monkeypatch.setattr(library, "INSTALLED", tmp_path)
    monkeypatch.setattr(library, "own_folder", lambda: tmp_path / "own")
    args = ROOT[0].arguments(ROOT[0].given()["float32"], FLOAT32)
    assert OPERATION.choose(None, *args).name == "xla"
    with pytest.raises(Unsupported, match="cpu/avx2: the native library was not built. Type: cupola kernels build"):
        OPERATION("cpu", *args)
    assert caplog.records == []  # nothing is wrong: `cupola doctor` tells what it costs


@pytest.fixture
def copied(tmp_path):
    """A copy of the libraries, to be damaged."""
    needs_library()
    folder = next(iter(HERE.libraries.values())).parent
    return shutil.copytree(folder, tmp_path / "lib")


def made_from_other_code(folder):
    made = folder / build.MADE
    made.write_text(made.read_text().replace(build.stamp(), "0" * 16))


def cut_short(folder):
    for path in folder.glob("*.so"):
        content = path.read_bytes()
        path.unlink()  # a new file: the loader knows the old one
        path.write_bytes(content[: len(content) // 2])


def not_said_what_it_is(folder):
    (folder / build.MADE).write_text("nothing")


def for_another_processor(folder):
    """Whole, and of this code, but nothing that can be loaded here."""
    path = folder / build.PROCESSOR
    path.unlink()
    path.write_text("no library")
    made = json.loads((folder / build.MADE).read_text())
    made["files"][build.PROCESSOR] = hashlib.sha256(b"no library").hexdigest()
    (folder / build.MADE).write_text(json.dumps(made))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (made_from_other_code, "made from other code"),
        (cut_short, "is damaged"),
        (not_said_what_it_is, "is damaged"),
        (for_another_processor, "cannot be loaded"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_cannot_be_used_is_never_called_and_told_once(copied, damage, reason, monkeypatch, forgotten, caplog):
    damage(copied)
    monkeypatch.setattr(library, "INSTALLED", copied)
    monkeypatch.setattr(library, "own_folder", lambda: copied / "own")
    args = ROOT[0].arguments(ROOT[0].given()["float32"], FLOAT32)
    with caplog.at_level(logging.WARNING):
        assert [OPERATION.choose(None, *args).name for _ in range(3)] == ["xla"] * 3
    assert [record.name for record in caplog.records] == ["cupola.kernels.native.library"]
    assert reason in caplog.text
    assert "Type: cupola kernels build" in caplog.text


def test_the_libraries_of_the_user_come_first(copied, monkeypatch, forgotten):
    monkeypatch.setattr(library, "own_folder", lambda: copied)
    assert {path.parent for path in library.find().libraries.values()} == {copied}


def test_a_level_above_the_processor_is_refused(monkeypatch):
    monkeypatch.setattr(library, "find", lambda: library.Found({Level.AVX2: Path()}, Level.AVX2))
    assert library.reasons(Level.AMX) == ["this processor has no amx"]
    assert library.reasons(Level.AVX2) == []
    monkeypatch.setattr(library, "find", lambda: library.Found({Level.AVX2: Path()}, Level.AMX))
    assert library.reasons(Level.AMX) == ["amx was not built. Type: cupola kernels build"]
