"""What a process that runs compiled steps asks of its host, once, before the first step.

Neither call changes a number; both save time.
"""

import ctypes
import sys
from pathlib import Path

import jax

M_MMAP_MAX, M_TRIM_THRESHOLD = -4, -1
"""Options of glibc's mallopt (malloc.h)."""


def keep_freed_memory() -> None:
    """Asks the C library to keep freed memory for the next step instead of returning it.

    On a CPU, XLA allocates a step's temporaries anew at each call. Returned to the system in
    between, every page of them faults in again: a fifth of the time of a small model's step.
    Does nothing where the C library is not glibc.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def cache_compilations(folder: Path) -> None:
    """Keeps compiled programs in a folder, so that a second run of a step need not compile it.

    A folder that was configured before (`jax_compilation_cache_dir`) stays.
    """
    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
