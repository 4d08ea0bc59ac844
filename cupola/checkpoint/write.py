"""Writing one checkpoint: a temporary folder, the arrays, the rest, the manifest last, then its name.

Orbax writes the arrays, every process its own shards; process 0 writes everything else.
Invariant: whatever fails, at whatever moment, older checkpoints stay as they are and no half
checkpoint has a name.
"""

import dataclasses
import datetime
import errno
import importlib.metadata
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from cupola.checkpoint import manifest, place
from cupola.checkpoint.manifest import Leaf, Manifest
from cupola.core.errors import CheckpointError

ARRAYS = "arrays"
EXTRA = "extra.json"


def _not_of_orbax(record: logging.LogRecord) -> bool:
    return "orbax" not in record.pathname


# Orbax logs through absl and prints each failure with several tracebacks; ours raise a typed error instead.
logging.getLogger("absl").addFilter(_not_of_orbax)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Draft:
    """A checkpoint on its way to the disk: prepare, start, then finish or discard.

    Args:
        folder: where checkpoints stand.
        owner: names the temporary folder (`place.owner`).
        step: training steps done.
        leaves: what the manifest will say of every leaf.
        arrays: the arrays by path, as `taken` gives them.
        extra: JSON text of what goes beside the arrays.
        metrics: numbers to choose the best by.
    """

    folder: Path
    owner: str
    step: int
    leaves: tuple[Leaf, ...]
    arrays: dict[str, Any]
    extra: str
    metrics: dict[str, float]

    @property
    def temporary(self) -> Path:
        """The folder in which it is written."""
        return self.folder / f".writing-{place.step_folder(self.folder, self.step).name}-{self.owner}"

    @property
    def bytes(self) -> int:
        """Size of its arrays, before compression."""
        return sum(array.nbytes for array in self.arrays.values())

    def prepare(self) -> None:
        """Makes an empty temporary folder."""
        if jax.process_index() == 0:
            shutil.rmtree(self.temporary, ignore_errors=True)
            self.temporary.mkdir(parents=True)

    def start(self) -> ocp.StandardCheckpointer:
        """Brings the arrays from the devices to the host and begins to write them in the background.

        Processes meet inside, so it runs in the thread that runs the training steps.
        """
        checkpointer = ocp.StandardCheckpointer()
        if self.arrays:
            checkpointer.save(self.temporary.absolute() / ARRAYS, self.arrays)
        return checkpointer

    def finish(self, checkpointer: ocp.StandardCheckpointer) -> None:
        """Waits until everything has reached the disk and gives the checkpoint its name."""
        try:
            checkpointer.wait_until_finished()
        finally:
            checkpointer.close()
        if jax.process_index() == 0:
            place.put(self.temporary / EXTRA, self.extra)
            place.settle(self.temporary)
            place.put(self.temporary / manifest.FILE, self._manifest().text())
            place.sync(self.temporary)
            place.publish(self.temporary, self.folder, self.step, self.owner)

    def discard(self) -> None:
        """Removes what was written so far."""
        if jax.process_index() == 0:
            shutil.rmtree(self.temporary, ignore_errors=True)

    def failure(self, error: Exception) -> CheckpointError:
        """Returns what the user is told of `error`, with the remedy for a full disk."""
        where = str(place.step_folder(self.folder, self.step))
        reason = (str(error) or type(error).__name__).splitlines()[0]
        if not is_full(error):
            return CheckpointError(
                f"the checkpoint could not be written ({reason})",
                where=where,
                remedy="Older checkpoints are untouched. Mend the cause and save again.",
            )
        free = shutil.disk_usage(self.folder if self.folder.is_dir() else self.folder.absolute().anchor).free
        return CheckpointError(
            f"the disk is full: the checkpoint needs up to {self.bytes / 1e6:,.1f} MB and {free / 1e6:,.1f} MB are free",
            where=where,
            remedy="Older checkpoints are untouched. Free some space, or keep fewer: Retention(last=1).",
        )

    def _manifest(self) -> Manifest:
        files = sorted(path for path in self.temporary.rglob("*") if path.is_file())
        return Manifest(
            step=self.step,
            time=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            versions={name: importlib.metadata.version(name) for name in ("cupola", "jax", "orbax-checkpoint")},
            metrics=self.metrics,
            leaves=self.leaves,
            files=tuple(place.measure(path, self.temporary) for path in files),
        )


def is_full(error: Exception) -> bool:
    """Returns whether a disk or a quota had no room; tensorstore says so only in its text."""
    codes = (errno.ENOSPC, errno.EDQUOT)
    return getattr(error, "errno", None) in codes or any(f"os_error_code='{c}'" in str(error) for c in codes)


def json_text(extra: dict[str, Any]) -> str:
    """Returns `extra` as JSON.

    Raises:
        CheckpointError: something in it would not come back as it is.
    """
    for name, held in extra.items():
        try:
            same = isinstance(name, str) and json.loads(json.dumps(held, allow_nan=False)) == held
        except (TypeError, ValueError, RecursionError):
            same = False
        if not same:
            raise CheckpointError(
                f"{type(held).__name__} {held!r:.60} would not come back from JSON as it is",
                where=f"extra.{name}",
                remedy="Use dicts with text keys, lists, text, finite numbers, true, false and None.",
            )
    return json.dumps(extra, indent=2, sort_keys=True) + "\n"
