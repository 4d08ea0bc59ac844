"""The native kernels' tests again, in a process where addresses and undefined behaviour are watched."""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cupola.kernels.native import build
from cupola.kernels.native.library import find

REPOSITORY = Path(__file__).parents[3]
FLAGS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-O1", "-g1", "-fno-omit-frame-pointer")
PLANTED = """
#include "native/kernel.h"
namespace ffi = xla::ffi;
static ffi::Error kernel(ffi::Buffer<ffi::F32> x, ffi::ResultBuffer<ffi::F32> out) {
  for (int64_t i = 0; i < int64_t(x.element_count()); ++i) out->typed_data()[i] = x.typed_data()[i + PAST];
  return ffi::Error::Success();
}
CUPOLA_KERNEL(planted, kernel, ffi::Ffi::Bind().Arg<ffi::Buffer<ffi::F32>>().Ret<ffi::Buffer<ffi::F32>>());
"""
CALL = """
import ctypes, sys, jax, numpy as np
found = ctypes.CDLL(sys.argv[1]).cupola_planted
jax.ffi.register_ffi_target("planted", jax.ffi.pycapsule(found), platform="cpu")
x = jax.jit(lambda x: x + 1)(np.zeros(1000, np.float32))
print(jax.jit(lambda x: jax.ffi.ffi_call("planted", jax.ShapeDtypeStruct((1000,), np.float32))(x))(x).sum())
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """The environment of a process that is watched, with a home of its own."""
    compiler = shutil.which("g++")
    if platform.machine() != "x86_64" or not compiler:
        pytest.skip("needs g++ and an x86-64")
    named = [
        subprocess.run([compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout
        for name in ("libasan.so", "libubsan.so", "libstdc++.so")
    ]
    return os.environ | {
        "HOME": str(tmp_path_factory.mktemp("home")),
        "LD_PRELOAD": " ".join(str(Path(name.strip()).resolve()) for name in named),
        "ASAN_OPTIONS": "detect_leaks=0,allocator_may_return_null=1",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONPATH": str(REPOSITORY),
        "JAX_PLATFORMS": "cpu",
        # What XLA makes is not what is watched.
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }


def watched(environment, *words):
    return subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, env=environment)


@pytest.mark.slow
@pytest.mark.parametrize("past", [0, 1])
def test_a_planted_read_past_the_end_is_found(past, environment, tmp_path):
    code, made = tmp_path / "planted.cc", tmp_path / "planted.so"
    code.write_text(PLANTED)
    flags = [*build.FLAGS, *FLAGS, "-mavx2", f"-DPAST={past}", f"-I{build.OPERATIONS}", "-isystem", build.headers()]
    subprocess.run(["g++", *flags, code, "-o", made], check=True)
    done = watched(environment, "-c", CALL, made)
    assert (done.returncode == 0) == (past == 0), done.stderr[-3000:]
    assert ("heap-buffer-overflow" in done.stderr) == (past == 1), done.stderr[-3000:]


@pytest.mark.slow
def test_no_kernel_does_what_is_undefined(environment, monkeypatch):
    built = list(find().libraries)
    if not built:
        pytest.skip(f"no native library: {find().reason}")
    # The ones between differ from these in instructions, not in how they read and write.
    levels = sorted({built[0], built[-1]}, key=built.index)
    monkeypatch.setenv("HOME", environment["HOME"])
    build.build(build.own_folder(), levels, FLAGS)
    used = watched(environment, "-c", "from cupola.kernels.native import library; print(library.find().libraries)")
    assert used.stdout.count(environment["HOME"]) == len(levels), used.stdout + used.stderr
    # Compilers are not watched.
    which = [
        "--ignore-glob=*/native/test_build*.py",
        "-m",
        "(not slow and not gpu) or lower_level",
        "-k",
        "cpu or native",
    ]
    tests = ["-m", "pytest", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", *which, "tests/kernels"]
    done = subprocess.run(
        [sys.executable, *map(str, tests)], cwd=REPOSITORY, capture_output=True, text=True, env=environment
    )
    told = done.stdout[-4000:] + done.stderr[-6000:]
    assert done.returncode == 0, told
    assert "Sanitizer" not in told
    assert " passed" in done.stdout
