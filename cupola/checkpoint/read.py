"""Reading one checkpoint: every file is verified before any is used, every leaf compared before any is read.

Not here: which checkpoint to read (`store.py`).
Invariant: what comes back has exactly the paths, shapes, dtypes and shardings that were asked for.
"""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from cupola.checkpoint import leaves as forms
from cupola.checkpoint import manifest, place
from cupola.checkpoint.leaves import Tree
from cupola.checkpoint.manifest import Damaged, File, Leaf, Manifest
from cupola.checkpoint.write import ARRAYS, EXTRA
from cupola.core.errors import CheckpointError


def verified(folder: Path) -> Manifest:
    """Returns the manifest of a checkpoint after comparing every file with it.

    On many processes each compares its share of the files.

    Raises:
        Damaged: names the file that is missing, truncated or altered.
    """
    held = manifest.read(folder)
    problem = None
    for file in held.files[jax.process_index() :: jax.process_count()]:
        try:
            verify(folder, file)
        except Damaged as error:
            problem = error
            break
    if not place.everyone(problem is None):
        raise problem or Damaged("another process found a damaged file", where=str(folder))
    return held


def verify(folder: Path, file: File) -> None:
    """Compares one file with what the manifest says of it.

    Raises:
        Damaged: it is missing, truncated or altered.
    """
    path = folder / file.path
    if not path.is_file():
        raise Damaged("the file is missing", where=str(path))
    if (size := path.stat().st_size) != file.bytes:
        raise Damaged(f"the file has {size:,} bytes instead of {file.bytes:,}", where=str(path))
    if place.measure(path, folder).sha256 != file.sha256:
        raise Damaged("the file's content does not agree with its checksum", where=str(path))


def extra(folder: Path, held: Manifest) -> dict[str, Any]:
    """Returns what was saved beside the arrays, verified."""
    for file in held.files:
        if file.path == EXTRA:
            verify(folder, file)
            return json.loads((folder / EXTRA).read_text("utf-8"))
    raise Damaged("the manifest does not list the file", where=str(folder / EXTRA))


def state(folder: Path, held: Manifest, like: Tree) -> Tree:
    """Returns the tree in the form and with the shardings of `like`, from verified files.

    Raises:
        CheckpointError: a leaf differs; the message names it.
    """
    wanted = forms.flat(like)
    saved = {leaf.path: leaf for leaf in held.leaves}
    compare(saved, wanted, str(folder))
    stored = {path: leaf for path, leaf in wanted if saved[path].value is None and 0 not in saved[path].shape}
    arrays = _arrays(folder, {path: forms.target(leaf) for path, leaf in stored.items()})
    built = []
    for path, leaf in wanted:
        if saved[path].value is None and path not in arrays:
            arrays[path] = _empty(forms.target(leaf))
        built.append(forms.rebuilt(saved[path], leaf, arrays.get(path)))
    return jax.tree.unflatten(jax.tree.structure(like), built)


def compare(saved: dict[str, Leaf], wanted: list[tuple[str, Any]], where: str) -> None:
    """Raises a CheckpointError that names the leaf in which a checkpoint differs from what is wanted."""
    asked = dict(wanted)
    lacking, unused = [p for p in asked if p not in saved], [p for p in saved if p not in asked]
    if lacking or unused:
        sides = [f"it lacks {_some(lacking)}" if lacking else "", f"it also holds {_some(unused)}" if unused else ""]
        raise CheckpointError(
            f"it holds another tree: {' and '.join(s for s in sides if s)}",
            where=where,
            remedy="Restore it with the configuration that wrote it.",
        )
    for path, leaf in wanted:
        ask, have = forms.described(path, leaf), saved[path]
        if (ask.shape, ask.dtype) != (have.shape, have.dtype) or (ask.key and ask.key != have.key):
            raise CheckpointError(
                f"it holds {_form(have)}, but {_form(ask)} is asked for",
                where=f"{where}: {path}",
                remedy="Restore it with the configuration that wrote it.",
            )


def _arrays(folder: Path, targets: dict[str, Any]) -> dict[str, Any]:
    if not targets:
        return {}
    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(folder.absolute() / ARRAYS, targets)


def _empty(target: Any) -> Any:
    """An array without elements, of which nothing is stored."""
    empty = np.empty(target.shape, target.dtype)
    return empty if isinstance(target, np.ndarray) else jax.device_put(empty, target.sharding)


def _some(paths: list[str]) -> str:
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    return ", ".join(paths[:3]) + more


def _form(leaf: Leaf) -> str:
    return f"{leaf.dtype}{list(leaf.shape)}" if leaf.value is None else f"the Python {leaf.dtype} {leaf.value}"
