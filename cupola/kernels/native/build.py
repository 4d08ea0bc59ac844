"""Compiling the native kernels: one library a level of instructions, out of the `cpu.cc` of every operation.

Not here: which library is used (`library.py`).
Imports the standard library alone: the package's own build runs it where only jaxlib's headers are there.
Invariant: a library can say what it was made from (`stamp`). Levels are libraries of their own and share no code: a
linker that keeps one copy of a function could otherwise keep the one that an older processor cannot run.
"""

import concurrent.futures
import hashlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cupola.kernels.native.level import Level

HERE = Path(__file__).parent
OPERATIONS = HERE.parent
PROCESSOR = "processor.so"
FLAGS = (
    "-std=c++17",
    "-O3",
    "-fPIC",
    "-shared",
    "-fvisibility=hidden",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=fast",
    "-Wall",
    "-Wextra",
)


class CannotBuild(Exception):
    """The native kernels cannot be compiled here; the message says why and what to do."""


def name_of(level: Level) -> str:
    """Returns the file name of a level's library."""
    return f"kernels_{level.value}.so"


def sources() -> list[Path]:
    """Returns the code of every operation."""
    return sorted(OPERATIONS.glob("*/cpu.cc"))


def stamp() -> str:
    """Returns what tells one state of the code, and of jaxlib's interface, from another.

    Raises:
        CannotBuild: jaxlib's headers are not there.
    """
    made = hashlib.sha256(" ".join(FLAGS).encode())
    for path in [*sources(), *sorted(OPERATIONS.glob("*/*.h")), HERE / "processor.cc", HERE / "level.py"]:
        made.update(path.read_bytes())
    header = (headers() / "xla" / "ffi" / "api" / "c_api.h").read_text()
    made.update(repr(re.findall(r"#define XLA_FFI_API_M\w+ (\d+)", header)).encode())
    return made.hexdigest()[:16]


def headers() -> Path:
    """Returns the folder of jaxlib's headers.

    Raises:
        CannotBuild: jaxlib is not installed.
    """
    found = importlib.util.find_spec("jaxlib")
    if found is None or not found.submodule_search_locations:
        raise CannotBuild("jaxlib is not installed. Type: pip install jaxlib")
    return Path(found.submodule_search_locations[0]) / "include"


def build(folder: Path, levels: Sequence[Level] = tuple(Level), flags: Sequence[str] = ()) -> None:
    """Compiles the libraries of some levels into a folder; what was there stays if it fails.

    Args:
        flags: more of the compiler's, such as a sanitizer's.

    Raises:
        CannotBuild: there is no compiler or no kernels for this processor, or the compiler fails.
    """
    if platform.machine() not in ("x86_64", "AMD64"):
        raise CannotBuild(f"there are no native kernels for {platform.machine()}: XLA serves")
    compiler = next(
        filter(None, map(shutil.which, filter(None, (os.environ.get("CXX"), "c++", "g++", "clang++")))), None
    )
    if compiler is None:
        raise CannotBuild("no C++ compiler is here. On Debian and Ubuntu: apt install g++")
    code = "".join(f'#include "{path}"\n' for path in sources())
    code += '\nextern "C" __attribute__((visibility("default"))) const char* cupola_stamp() { return CUPOLA_STAMP; }\n'
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as made:
        unit = Path(made, "kernels.cc")
        unit.write_text(code)
        common = [*FLAGS, *flags, f"-I{OPERATIONS}", "-isystem", str(headers()), f'-DCUPOLA_STAMP="{stamp()}"']
        commands = [[compiler, *FLAGS, str(HERE / "processor.cc"), "-o", f"{made}/{PROCESSOR}"]]
        for level in levels:
            own = [*level.flags, f"-DCUPOLA_LEVEL={level.number}"]
            commands.append([compiler, *common, *own, str(unit), "-o", f"{made}/{name_of(level)}"])
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as workers:
            for path in workers.map(_run, commands):
                os.replace(path, folder / Path(path).name)


def _run(command: list[str]) -> str:
    told = subprocess.run(command, capture_output=True, text=True)
    if told.returncode:
        lines = "\n".join(told.stderr.strip().splitlines()[:20])
        raise CannotBuild(f"the compiler failed:\n  {' '.join(command)}\n{lines}")
    return command[-1]
