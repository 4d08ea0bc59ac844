"""Compiling the native kernels: one library a level of instructions, out of the `cpu.cc` of every operation.

Not here: which library is used (`library.py`).
Imports the standard library alone: the package's own build runs it where only jaxlib's headers are there. As a
program it brings a folder up to date, says so in one line, and never fails: without a library XLA serves.
Invariant: beside libraries stands what they were made from (`stamp`) and what is in them, so that none that is stale,
cut short or damaged is ever loaded: the loader itself would crash. Levels are libraries of their own and share no code: a
linker that keeps one copy of a function could otherwise keep the one that an older processor cannot run.
"""

import concurrent.futures
import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cupola.kernels.native.level import Level

HERE = Path(__file__).parent
OPERATIONS = HERE.parent
INSTALLED = HERE / "lib"
"""Where the package's build leaves the libraries."""
COMPILERS = ("c++", "g++", "clang++")
PROCESSOR = "processor.so"
MADE = "made.json"
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
    # Headers of GCC before 13 give a vector its own value first, and are warned of wherever they are inlined.
    "-Wno-uninitialized",
    "-Wno-maybe-uninitialized",
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
    interface = headers() / "xla" / "ffi" / "api" / "c_api.h"
    if not interface.is_file():
        raise CannotBuild(f"jaxlib came without its headers: there is no {interface}")
    made = hashlib.sha256(" ".join(FLAGS).encode())
    for path in [*sources(), *sorted(OPERATIONS.glob("*/*.h")), HERE / "processor.cc", HERE / "level.py"]:
        made.update(path.read_bytes())
    made.update(repr(re.findall(r"#define XLA_FFI_API_M\w+ (\d+)", interface.read_text())).encode())
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


def own_folder() -> Path:
    """Returns where `cupola kernels build` leaves the libraries of this code, and `cupola kernels tune` its results.

    Raises:
        CannotBuild: jaxlib's headers are not there.
    """
    return Path.home() / ".cache" / "cupola" / "kernels" / stamp()


def is_current(folder: Path, levels: Sequence[Level] = tuple(Level)) -> bool:
    """Returns whether a folder has the libraries of these levels, made from this code.

    Raises:
        CannotBuild: jaxlib's headers are not there.
    """
    return {PROCESSOR, *map(name_of, levels)} <= made_in(folder, stamp())


def made_in(folder: Path, wanted: str) -> set[str]:
    """Returns the names of the libraries in a folder that are whole and were made from the code of a stamp.

    Raises:
        OSError: the folder cannot be read.
    """
    try:
        made = json.loads((folder / MADE).read_text(encoding="utf-8"))
        files = dict(made["files"]) if made["stamp"] == wanted else {}
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return set()
    return {name for name, whole in files.items() if (folder / name).is_file() and _digest(folder / name) == whole}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def build(
    folder: Path,
    levels: Sequence[Level] = tuple(Level),
    flags: Sequence[str] = (),
    compiler: str | None = None,
) -> None:
    """Compiles the libraries of some levels into a folder; what was there stays if it fails.

    Args:
        flags: more of the compiler's, such as a sanitizer's.
        compiler: its command; None takes the first that is here.

    Raises:
        CannotBuild: there is no compiler or no kernels for this processor, or the compiler fails.
    """
    if platform.machine() not in ("x86_64", "AMD64"):
        raise CannotBuild(f"there are no native kernels for {platform.machine()}: XLA serves")
    found = next(filter(None, map(shutil.which, [compiler] if compiler else COMPILERS)), None)
    if found is None:
        raise CannotBuild(f"there is no {compiler or 'C++ compiler'} here. On Debian and Ubuntu: apt install g++")
    code = "".join(f'#include "{path}"\n' for path in sources())
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as made:
        unit = Path(made, "kernels.cc")
        unit.write_text(code)
        common = [*FLAGS, *flags, f"-I{OPERATIONS}", "-isystem", str(headers())]
        commands = [[found, *FLAGS, str(HERE / "processor.cc"), "-o", f"{made}/{PROCESSOR}"]]
        for level in levels:
            own = [*level.flags, f"-DCUPOLA_LEVEL={level.number}"]
            commands.append([found, *common, *own, str(unit), "-o", f"{made}/{name_of(level)}"])
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as workers:
            paths = [Path(path) for path in workers.map(_run, commands)]
        wanted = stamp()
        files = {name: _digest(folder / name) for name in made_in(folder, wanted)}
        files |= {path.name: _digest(path) for path in paths}
        Path(made, MADE).write_text(json.dumps({"stamp": wanted, "files": files}, indent=1), encoding="utf-8")
        for path in [*paths, Path(made, MADE)]:
            os.replace(path, folder / path.name)


def _run(command: list[str]) -> str:
    told = subprocess.run(command, capture_output=True, text=True)
    if told.returncode:
        lines = "\n".join(told.stderr.strip().splitlines()[:20])
        raise CannotBuild(f"the compiler failed:\n  {' '.join(command)}\n{lines}")
    return command[-1]


def bring_up_to_date(folder: Path) -> str:
    """Compiles what a folder lacks, and returns one line that says how that went; it never fails."""
    try:
        if is_current(folder):
            return "native kernels: up to date"
        build(folder)
    except (CannotBuild, OSError) as error:
        return f"native kernels: not built, XLA serves: {error}"
    return f"native kernels: built for {', '.join(level.value for level in Level)}"


if __name__ == "__main__":
    print(bring_up_to_date(Path(sys.argv[1]) if len(sys.argv) > 1 else INSTALLED))
