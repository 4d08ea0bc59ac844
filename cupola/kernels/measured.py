"""What implementations of operations take, as it was measured: tables in the package, and one of this machine's own.

Not here: measuring (`tune.py`), choosing (`choose.py`).
Invariant: read once in a process, so that the same call finds the same row, whenever it is traced.
"""

import dataclasses
import functools
import json
import logging
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from cupola.core.dtype import Precision
from cupola.kernels.native.build import CannotBuild, own_folder

COMMITTED = Path(__file__).parent / "machines"
"""A table for each machine that was measured."""
FILE = "measured.json"
INDICES = ("int32", "int64", "uint32", "bool")
"""Dtypes of what says where: tables, targets, segments. What takes the time is in the other arrays."""
LOG = logging.getLogger(__name__)


class Call(NamedTuple):
    """What a call of an operation is to the table.

    Args:
        kind: dtypes and forms of the arrays, and the dtype in which products are computed: they have to agree.
        shapes: of the arrays: the nearest ones are looked for.
    """

    kind: str
    shapes: tuple[tuple[int, ...], ...]


@dataclasses.dataclass(frozen=True)
class Row:
    """One measurement.

    Args:
        operation: its name.
        device: "cpu", "gpu": what jax calls the platform.
        call: what was called.
        seconds: of each implementation, by name.
        source: where it was measured.
    """

    operation: str
    device: str
    call: Call
    seconds: Mapping[str, float]
    source: str = ""


def call_of(args: Iterable[Any], kwargs: Mapping[str, Any] | None = None) -> Call:
    """Returns what a call is to the table, given the arguments of an implementation."""
    words: list[str] = []
    shapes: list[tuple[int, ...]] = []
    for arg in [*args, *(value for _, value in sorted((kwargs or {}).items()))]:
        if isinstance(arg, Precision):
            words.append(f"@{arg.compute.name}")
            continue
        arrays = [x for x in jax.tree.leaves(arg) if hasattr(x, "shape") and np.dtype(x.dtype).name not in INDICES]
        if arrays and arrays[0] is not arg:
            words.append(type(arg).__name__)
        words += [np.dtype(x.dtype).name for x in arrays]
        shapes += [tuple(x.shape) for x in arrays]
    return Call(" ".join(words), tuple(shapes))


def nearest(operation: str, call: Call, names: Iterable[str]) -> Row | None:
    """Returns the measurement of the same kind whose shapes are nearest, of this machine's own if it has any.

    Args:
        names: implementations, all of which it has to compare: so of machines, those with this one's instructions.
    """
    return _nearest(operation, jax.default_backend(), call, frozenset(names))


@functools.lru_cache(maxsize=4096)
def _nearest(operation: str, device: str, call: Call, names: frozenset[str]) -> Row | None:
    for rows in (own(), committed()):
        alike = [
            r
            for r in rows
            if (r.operation, r.device, r.call.kind) == (operation, device, call.kind) and names <= r.seconds.keys()
        ]
        if alike:
            return min(alike, key=lambda row: distance(row.call.shapes, call.shapes))
    return None


def distance(shapes: tuple[tuple[int, ...], ...], others: tuple[tuple[int, ...], ...]) -> float:
    """Returns how far apart shapes are: by factors in each dim, and in how much there is in all."""
    far = 0.0
    for one, other in zip(shapes, others, strict=True):
        dims = max(len(one), len(other))
        # Dims that one lacks are before its own: [tokens, width] is near [1, tokens, width].
        pairs = zip((1,) * (dims - len(one)) + one, (1,) * (dims - len(other)) + other, strict=True)
        far += sum(_factor(a, b) for a, b in pairs) + 2 * _factor(math.prod(one), math.prod(other))
    return far


def _factor(a: int, b: int) -> float:
    return abs(math.log(max(a, 1) / max(b, 1)))


@functools.cache
def committed() -> tuple[Row, ...]:
    """Returns the tables that come with the package."""
    return tuple(row for path in sorted(COMMITTED.glob("*.json")) for row in read(path))


@functools.cache
def own() -> tuple[Row, ...]:
    """Returns what `cupola kernels tune` measured here; nothing if it never did, or other code."""
    try:
        return read(own_folder() / FILE)
    except CannotBuild:
        return ()


def forget() -> None:
    """Reads the tables anew when they are asked next."""
    for kept in (committed, own, _nearest):
        kept.cache_clear()


def read(path: Path) -> tuple[Row, ...]:
    """Returns the rows of a file; none, and a word in the log, if there is no such file or it is damaged."""
    if not path.is_file():
        return ()
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return tuple(
            Row(
                row["operation"],
                row["device"],
                Call(row["kind"], tuple(map(tuple, row["shapes"]))),
                {name: 1e-6 * float(micro) for name, micro in row["microseconds"].items()},
                found["machine"],
            )
            for row in found["rows"]
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        LOG.warning("%s cannot be read (%r) and is ignored. Type: cupola kernels tune", path, error)
        return ()


def write(path: Path, machine: str, rows: Iterable[Row]) -> None:
    """Writes a table, a row a line, sorted, so that two are compared line by line."""
    lines = [
        {
            "operation": row.operation,
            "device": row.device,
            "kind": row.call.kind,
            "shapes": row.call.shapes,
            "microseconds": {name: float(f"{1e6 * seconds:.4g}") for name, seconds in row.seconds.items()},
        }
        for row in rows
    ]
    text = ",\n".join(sorted(json.dumps(line) for line in lines))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'{{"machine": {json.dumps(machine)}, "rows": [\n{text}\n]}}\n', encoding="utf-8")
