"""The native library that this processor can run, and calls of its kernels.

Not here: compiling (`build.py`); which kernel serves an operation (`kernels/choose.py`).
Invariant: a library that was made from other code, for another interface of jaxlib, or for another processor is never
called: there is a reason instead, and XLA serves.
"""

import ctypes
import dataclasses
import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from jaxtyping import Array

from cupola.kernels.choose import Implementation
from cupola.kernels.native.build import INSTALLED, PROCESSOR, CannotBuild, made_in, name_of, own_folder, stamp
from cupola.kernels.native.level import Level

REMEDY = "Type: cupola kernels build"
LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Found:
    """What was found of the native kernels.

    Args:
        libraries: by the levels that the processor can run.
        highest: what the processor can run, built or not; None where that is none or not known.
        reason: why there are no libraries, "" where there are.
    """

    libraries: dict[Level, Path]
    highest: Level | None = None
    reason: str = ""


@functools.cache
def find(folders: tuple[Path, ...] | None = None) -> Found:
    """Returns what there is on this machine, looked for once.

    Args:
        folders: to look in, the first that has what this code needs; None: the user's own, then the installed one.
    """
    found = Found({}, None, f"the native library was not built. {REMEDY}")
    try:
        wanted = stamp()
        for folder in (own_folder(), INSTALLED) if folders is None else folders:
            if (folder / PROCESSOR).is_file():
                found = _look(folder, wanted)
                if found.libraries:
                    return found
                # What is there and cannot be used is worth a word; what is not there is told by `cupola doctor`.
                LOG.warning("XLA serves: %s: %s", folder, found.reason)
    except CannotBuild as error:
        found = Found({}, None, str(error))
    return found


def _look(folder: Path, wanted: str) -> Found:
    try:
        there = made_in(folder, wanted)
        if PROCESSOR not in there:
            return Found({}, None, f"the native library was made from other code, or is damaged. {REMEDY}")
        number = ctypes.CDLL(str(folder / PROCESSOR)).cupola_level()
        if not number:
            return Found({}, None, "this processor has no AVX2: XLA serves")
        levels = list(Level)[:number]
        libraries = {level: folder / name_of(level) for level in levels if name_of(level) in there}
    except (OSError, AttributeError) as error:
        return Found({}, None, f"the native library cannot be loaded ({error}). {REMEDY}")
    return Found(libraries, levels[-1], "" if libraries else f"the native library lacks {levels[-1].value}. {REMEDY}")


def reasons(level: Level) -> list[str]:
    """Returns why kernels of a level cannot be called here; an empty list if they can."""
    found = find()
    if not found.libraries:
        return [found.reason]
    if jax.default_backend() != "cpu":
        return [f"it is for CPUs, and the device is a {jax.default_backend()}"]
    if level not in found.libraries:
        above = found.highest is not None and level.number > found.highest.number
        return [f"this processor has no {level.value}" if above else f"{level.value} was not built. {REMEDY}"]
    return []


def call(
    kernel: str, level: Level, results: Any, *arguments: Array, aliases: dict[int, int] | None = None, **attributes: Any
) -> Any:
    """Returns what a kernel computes.

    Args:
        kernel: its name in C++, `CUPOLA_KERNEL(name, ...)`.
        results: shape and dtype of each result, as `jax.ShapeDtypeStruct`.
        aliases: arguments that a result is written over, (argument, result).
        attributes: numbers that the kernel takes beside arrays, as numpy scalars of the width that it decodes.
    """
    made = jax.ffi.ffi_call(
        _target(kernel, level), results, vmap_method="sequential", input_output_aliases=aliases or {}
    )
    return made(*arguments, **attributes)


@functools.cache
def _target(kernel: str, level: Level) -> str:
    """Makes a kernel known to XLA under a name of its own for each level, and returns the name."""
    name = f"cupola_{kernel}_{level.value}"
    address = getattr(ctypes.CDLL(str(find().libraries[level])), f"cupola_{kernel}")
    jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(address), platform="cpu")
    return name


def implementations(function: Callable[..., Any], refuses: Callable[..., list[str]]) -> tuple[Implementation, ...]:
    """Returns an operation's native implementations, one a level, the highest first: "cpu/amx", "cpu/avx512_bf16", ...

    Args:
        function: computes the operation; takes `level` beside the operation's own arguments.
        refuses: the reasons of its own, given the operation's arguments and `level`.
    """

    def made(level: Level) -> Implementation:
        def why(*args: Any, **kwargs: Any) -> list[str]:
            # What cannot be called is not asked further.
            return reasons(level) or refuses(*args, level=level, **kwargs)

        return Implementation(f"cpu/{level.value}", functools.partial(function, level=level), why)

    return tuple(made(level) for level in reversed(Level))
