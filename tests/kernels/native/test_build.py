import importlib.metadata
import platform
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from cupola.kernels.native import build
from cupola.kernels.native.level import Level

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def no_compiler(monkeypatch):
    monkeypatch.setattr(build, "COMPILERS", ("no-such-compiler",))


@pytest.fixture
def small(tmp_path_factory, monkeypatch):
    """There is next to nothing to compile."""
    code = tmp_path_factory.mktemp("code") / "cpu.cc"
    code.write_text('extern "C" int cupola_level() { return CUPOLA_LEVEL; }\n')
    monkeypatch.setattr(build, "sources", lambda: [code])


def needs_compiler():
    if platform.machine() != "x86_64" or not shutil.which("c++"):
        pytest.skip("needs a C++ compiler and an x86-64")


def test_without_a_compiler_the_remedy_is_told(tmp_path, no_compiler):
    with pytest.raises(build.CannotBuild, match="no C\\+\\+ compiler here.*apt install g\\+\\+"):
        build.build(tmp_path)
    assert build.bring_up_to_date(tmp_path).startswith("native kernels: not built, XLA serves: there is no C++")
    with pytest.raises(build.CannotBuild, match="there is no g--"):
        build.build(tmp_path, compiler="g--")


def test_another_processor_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(build.CannotBuild, match="no native kernels for aarch64"):
        build.build(tmp_path)


def test_what_the_compiler_says_is_told_and_what_was_there_stays(tmp_path, small):
    needs_compiler()
    there = tmp_path / build.name_of(Level.AVX2)
    there.write_text("before")
    with pytest.raises(build.CannotBuild, match="(?s)the compiler failed.*-Dnothing-like-it"):
        build.build(tmp_path, [Level.AVX2], ["-Dnothing-like-it=1", "-Werror"])
    assert there.read_text() == "before"


@pytest.mark.slow
@pytest.mark.parametrize("level", Level, ids=lambda level: level.value)
def test_no_kernel_is_warned_of(tmp_path, level):
    needs_compiler()
    build.build(tmp_path, [level], ["-O1", "-Werror"])


def test_a_build_of_one_level_keeps_the_others(tmp_path, small):
    needs_compiler()
    build.build(tmp_path, [Level.AVX2])
    assert build.is_current(tmp_path, [Level.AVX2])
    assert not build.is_current(tmp_path)
    build.build(tmp_path, [Level.AVX512])
    assert build.is_current(tmp_path, [Level.AVX2, Level.AVX512])


def test_a_second_build_compiles_nothing(tmp_path, monkeypatch, small):
    needs_compiler()
    assert not build.is_current(tmp_path)
    assert build.bring_up_to_date(tmp_path) == "native kernels: built for avx2, avx512, avx512_bf16, amx"
    assert {path.name for path in tmp_path.iterdir()} == {build.PROCESSOR, build.MADE, *map(build.name_of, Level)}
    made = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert build.bring_up_to_date(tmp_path) == "native kernels: up to date"
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == made
    monkeypatch.setattr(build, "FLAGS", (*build.FLAGS, "-DCHANGED"))
    assert not build.is_current(tmp_path)


@pytest.mark.parametrize("flag", Level.AMX.flags)
def test_each_level_adds_flags_to_those_before(flag):
    levels = [flag in level.flags for level in Level]
    assert levels == sorted(levels)
    assert levels[-1]


@pytest.mark.slow
def test_a_wheel_holds_the_libraries_and_is_for_its_platform(tmp_path):
    needs_compiler()
    wheel = wheel_of(tmp_path)
    names = zipfile.ZipFile(wheel).namelist()
    assert wheel.name.endswith(f"-py3-none-linux_{platform.machine()}.whl")
    inside = {name.removeprefix("cupola/kernels/") for name in names if name.startswith("cupola/kernels/")}
    assert {f"native/lib/{build.name_of(level)}" for level in Level} <= inside
    assert {"native/lib/processor.so", "native/kernel.h", "native/processor.cc", "norm/cpu.cc"} <= inside


@pytest.mark.slow
def test_without_a_compiler_a_wheel_is_for_every_platform(tmp_path):
    empty = tmp_path / "bin"
    empty.mkdir()
    wheel = wheel_of(tmp_path, PATH=str(empty))
    assert wheel.name.endswith("-py3-none-any.whl")
    assert not [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".so")]


@pytest.mark.slow
def test_a_source_distribution_is_installed_without_a_compiler_and_says_what_that_costs(tmp_path):
    """In an environment of its own, as a user's pip does it: the build gets its own setuptools and jaxlib."""
    copy, empty = copy_of(tmp_path), tmp_path / "bin"
    empty.mkdir()
    make = "from setuptools import build_meta; build_meta.build_sdist('made')"
    subprocess.run([sys.executable, "-c", make], cwd=copy, check=True, capture_output=True)
    (made,) = (copy / "made").glob("*.tar.gz")
    with tarfile.open(made) as opened:
        inside = {name.partition("/")[2] for name in opened.getnames()}
    code = {str(path.relative_to(copy)) for end in ("cc", "h") for path in copy.glob(f"cupola/kernels/*/*.{end}")}
    assert code
    assert code | {"setup.py", "pyproject.toml", "cupola/kernels/native/build.py"} <= inside

    venv.create(tmp_path / "venv", with_pip=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    environment = BARE | {
        "PATH": str(empty),
        "CXX": "no-such-compiler",
        "HOME": str(tmp_path),
        "PIP_CONSTRAINT": str(REPOSITORY / "constraints.txt"),
    }
    pip = [python, "-m", "pip", "install", "-v", "--no-deps", str(made)]
    done = subprocess.run(pip, capture_output=True, text=True, env=environment)
    if "No matching distribution found" in done.stderr:
        pytest.skip("needs a package registry")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not built, XLA serves: there is no C++ compiler here" in done.stdout + done.stderr

    # What it depends on is here already, and is not installed again.
    (packages,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    (packages / "here.pth").write_text(sysconfig.get_path("purelib"))
    told = subprocess.run(
        [python, "-m", "cupola", "doctor"], cwd=empty, capture_output=True, text=True, env=environment
    )
    assert told.returncode == 0, told.stdout + told.stderr
    words = " ".join(told.stdout.split())
    assert "native kernels: none: the native library was not built. Type: cupola kernels build" in words
    assert "what that costs, times longer where it was measured: " in words


def copy_of(folder):
    """Copies what the package is made from."""
    if int(importlib.metadata.version("setuptools").split(".")[0]) < 77:
        pytest.skip("needs setuptools 77: pip install 'cupola[test]'")
    copy = folder / "copy"
    copy.mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, copy)
    shutil.copytree(REPOSITORY / "cupola", copy / "cupola", ignore=shutil.ignore_patterns("lib", "__pycache__"))
    return copy


def wheel_of(folder, **environment):
    """Builds a wheel of a copy of the repository, with what is installed: no network."""
    copy = copy_of(folder)
    pip = [sys.executable, "-m", "pip", "wheel", "-v", "--no-build-isolation", "--no-deps", "-w", folder / "made", "."]
    done = subprocess.run(pip, cwd=copy, capture_output=True, text=True, env={**BARE, **environment})
    assert done.returncode == 0, done.stdout + done.stderr
    assert "native kernels: " in done.stdout + done.stderr
    (wheel,) = (folder / "made").glob("*.whl")
    return wheel


BARE = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
