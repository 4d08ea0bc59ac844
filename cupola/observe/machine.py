"""What this machine has and how fast it is, measured.

Not here: how much of it a model uses (`account.py`).
Invariant: rates are measured with the compiler that runs the models, never looked up, and measured
once in a process.
"""

import dataclasses
import functools
import importlib.metadata
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import psutil

from cupola.observe.units import Number, bytes_text, quantity

DTYPES = ("float32", "bfloat16")
PACKAGES = ("jax", "jaxlib", "cupola")
CPU_SIZES, ACCELERATOR_SIZES = (1024, 2048), (4096, 8192)
MEASURE_SECONDS = 0.2
"""Time for each measurement after its first run, which compiles."""
TRIAD_BYTES = 128 * 2**20
"""Size of each array of the bandwidth measurement: no cache holds three."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Machine:
    """One machine, as this process may use it.

    Args:
        platform: operating system and architecture.
        processor: the CPU's name.
        cores: CPU cores that this process may use.
        memory_bytes: main memory that this process may use.
        devices: jax's devices, (kind, how many).
        device_memory_bytes: of one accelerator; None where models run in main memory.
        matmul_flops_per_second: best rate of one device's matrix products, by dtype of the operands;
            bfloat16 products are summed in float32.
        memory_bytes_per_second: of a triad b = b + s * c on one device, its three streams counted.
        versions: of Python and packages, by name.
    """

    platform: str
    processor: str
    cores: int
    memory_bytes: int
    devices: tuple[tuple[str, int], ...]
    device_memory_bytes: int | None
    matmul_flops_per_second: dict[str, float]
    memory_bytes_per_second: float
    versions: dict[str, str]

    def share(self, flops_per_second: Number, dtype: str | None = None) -> float:
        """Returns which share of the measured matmul rate a rate is.

        Args:
            flops_per_second: of one device.
            dtype: of which rate; None takes the machine's best.
        """
        rates = self.matmul_flops_per_second
        return flops_per_second / (max(rates.values()) if dtype is None else rates[dtype])

    def describe(self) -> list[tuple[str, str]]:
        """Returns (what, value) rows for a person."""
        rows = [
            ("platform", self.platform),
            ("processor", self.processor),
            ("cores", str(self.cores)),
            ("memory", bytes_text(self.memory_bytes)),
            ("devices", ", ".join(f"{count} x {kind}" for kind, count in self.devices)),
        ]
        if self.device_memory_bytes is not None:
            rows.append(("device memory", bytes_text(self.device_memory_bytes)))
        rates = self.matmul_flops_per_second.items()
        rows += [(f"{dtype} matmul", quantity(rate, "FLOP/s")) for dtype, rate in rates]
        rows.append(("bandwidth", quantity(self.memory_bytes_per_second, "B/s")))
        return rows + list(self.versions.items())


@functools.cache
def measure() -> Machine:
    """Returns this machine; the first call measures for one or two seconds."""
    device = jax.local_devices()[0]
    kinds = [d.device_kind for d in jax.devices()]
    memory = _memory_bytes()
    return Machine(
        platform=f"{platform.system()} {platform.machine()}",
        processor=processor(),
        cores=cores(),
        memory_bytes=memory,
        devices=tuple((kind, kinds.count(kind)) for kind in sorted(set(kinds))),
        device_memory_bytes=None if device.platform == "cpu" else (device.memory_stats() or {}).get("bytes_limit"),
        matmul_flops_per_second={dtype: _matmul_rate(device, dtype) for dtype in DTYPES},
        memory_bytes_per_second=_bandwidth(device, min(TRIAD_BYTES, memory // 32)),
        versions={"python": platform.python_version()} | {p: importlib.metadata.version(p) for p in PACKAGES},
    )


@jax.jit
def _matmul(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, preferred_element_type=jnp.float32)


@functools.partial(jax.jit, donate_argnums=0)
def _triad(b: jax.Array, c: jax.Array) -> jax.Array:
    """In place: a result in fresh memory would measure how fast the system hands out pages."""
    return b + 3.0 * c


def _matmul_rate(device: Any, dtype: str) -> float:
    rates = []
    for size in CPU_SIZES if device.platform == "cpu" else ACCELERATOR_SIZES:
        a = jax.device_put(jnp.full((size, size), 0.5, dtype), device)
        rates.append(2 * size**3 / _best_seconds(lambda a=a: _matmul(a, a)))
    return max(rates)


def _bandwidth(device: Any, size_bytes: int) -> float:
    held, c = (jax.device_put(jnp.full(size_bytes // 4, value, jnp.float32), device) for value in (1.0, 2.0))

    def run() -> jax.Array:
        nonlocal held
        held = _triad(held, c)
        return held

    return 3 * c.nbytes / _best_seconds(run)


def _best_seconds(run: Callable[[], jax.Array]) -> float:
    run().block_until_ready()
    best, end = float("inf"), time.perf_counter() + MEASURE_SECONDS
    while best == float("inf") or time.perf_counter() < end:
        start = time.perf_counter()
        run().block_until_ready()
        best = min(best, time.perf_counter() - start)
    return best


def cores() -> int:
    """Returns how many CPU cores this process may use."""
    # macOS and Windows have no sched_getaffinity: there every core may be used.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory_bytes() -> int:
    """A container may have less than the machine: its control group says so."""
    total = psutil.virtual_memory().total
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        limit = Path("/sys/fs/cgroup") / name
        if limit.is_file() and (text := limit.read_text().strip()).isdigit():
            total = min(total, int(text))
    return total


def processor() -> str:
    """Returns the CPU's name."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        if names:
            return names[0]
    return platform.processor() or platform.machine()
