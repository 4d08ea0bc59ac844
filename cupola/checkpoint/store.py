"""A folder of checkpoints: save without waiting, restore what is whole, let go of what is not kept.

Not here: how one is written (`write.py`), read (`read.py`) or chosen to stay (`retain.py`).
Invariant: at most one save is under way; its failure is raised once, by the next
`save`, `restore`, `wait` or `close`.
"""

import enum
import logging
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from cupola.checkpoint import manifest, place, read
from cupola.checkpoint.leaves import Tree, taken
from cupola.checkpoint.manifest import Damaged, Manifest
from cupola.checkpoint.retain import Best, Retention, best_step
from cupola.checkpoint.write import Draft, json_text
from cupola.config.suggest import did_you_mean
from cupola.core.errors import CheckpointError

log = logging.getLogger(__name__)


class Fallback(enum.Enum):
    """What `restore` does when the checkpoint that it was to read is damaged."""

    REFUSE = "refuse"
    """Raise, and name the newest older one that is whole."""
    OLDER = "older"
    """Read the newest older one that is whole, and log which was passed over."""


class Checkpoints:
    """The checkpoints in one folder.

    On many processes every one of them makes the same calls, on a folder that all of them see.

    Args:
        folder: where they stand; it is made by the first save.
        retention: which stay, applied after every completed save.

    Example:
        with Checkpoints(Path("runs/first/checkpoints")) as checkpoints:
            checkpoints.save(100, state, extra={"config": text}, metrics={"loss": 2.1})
            state, extra, manifest = checkpoints.restore(like=state)

    Raises:
        CheckpointError: the folder's path is a file.
    """

    def __init__(self, folder: str | Path, *, retention: Retention = Retention()):
        self.folder, self.retention = Path(folder), retention
        if self.folder.exists() and not self.folder.is_dir():
            raise CheckpointError("this is a file", where=str(folder), remedy="Name a folder for the checkpoints.")
        self._owner = place.owner()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None
        if jax.process_index() == 0:
            place.remove_leftovers(self.folder)

    def save(
        self,
        step: int,
        state: Tree,
        *,
        extra: Mapping[str, Any] | None = None,
        metrics: Mapping[str, int | float] | None = None,
    ) -> None:
        """Copies `state` and returns; the copy is written in the background.

        The state's buffers may be donated or overwritten at once. A checkpoint of the same step is
        replaced. A save that is still under way is waited for first.

        Args:
            step: training steps done.
            state: a tree of arrays, random keys and numbers.
            extra: what JSON can hold, such as the data position and the configuration's text;
                equal on every process.
            metrics: numbers to choose the best by.

        Raises:
            CheckpointError: this save cannot begin, or the one before it failed.
        """
        self.wait()
        if step < 0:
            raise CheckpointError(f"there is no step {step}", where="step", remedy="Steps count from 0.")
        leaves, arrays = taken(state)
        draft = Draft(
            folder=self.folder,
            owner=self._owner,
            step=int(step),
            leaves=leaves,
            arrays=arrays,
            extra=json_text(dict(extra or {})),
            metrics={name: float(value) for name, value in (metrics or {}).items()},
        )
        self._pending = self._worker.submit(self._finish, draft, self._start(draft))

    def wait(self) -> None:
        """Returns when no save is under way.

        Raises:
            CheckpointError: the save failed; it is raised once.
        """
        if self._pending is None:
            return
        pending, self._pending = self._pending, None
        problem = pending.exception()
        if not place.everyone(problem is None):
            raise problem or CheckpointError(
                "another process could not write its share", where=str(self.folder), remedy="See that process's error."
            )

    def close(self) -> None:
        """Waits for the save under way and ends the background thread; closing twice is harmless.

        Raises:
            CheckpointError: the save failed.
        """
        try:
            self.wait()
        finally:
            self._worker.shutdown()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def steps(self) -> list[int]:
        """Returns the steps of the complete checkpoints, oldest first."""
        return place.steps(self.folder)

    def latest(self) -> int | None:
        """Returns the highest step; None if there is none."""
        return max(self.steps(), default=None)

    def best(self, metric: str, best_is: Best = Best.LOWEST) -> int | None:
        """Returns the step with the best finite `metric`; None if there is no checkpoint.

        Raises:
            CheckpointError: no checkpoint has this metric.
        """
        held = self._manifests()
        step = best_step(held, metric, best_is)
        if held and step is None:
            known = {name for m in held for name in m.metrics}
            raise CheckpointError(
                f"no checkpoint has a finite metric {metric!r}",
                where=str(self.folder),
                remedy=did_you_mean(metric, known - {metric}),
            )
        return step

    def manifest(self, step: int | None = None) -> Manifest:
        """Returns the manifest of `step`, or of the latest; the other files are not verified."""
        return manifest.read(self._folder_of(step))

    def extra(self, step: int | None = None) -> dict[str, Any]:
        """Returns the extra of `step`, or of the latest, verified; it may hold what is needed to make `like`."""
        folder = self._folder_of(step)
        return read.extra(folder, manifest.read(folder))

    def restore(
        self, like: Tree, step: int | None = None, *, fallback: Fallback = Fallback.REFUSE
    ) -> tuple[Tree, dict[str, Any], Manifest]:
        """Returns (state, extra, manifest) of `step`, or of the latest.

        Every file is compared with its checksum first. Arrays are laid out as `like` says, on
        whatever mesh that is.

        Args:
            like: a tree of jax.ShapeDtypeStruct (with a sharding, or free to follow other arrays),
                or of arrays, keys and numbers; a numpy array there asks for numpy.
            step: which; None takes the latest.
            fallback: what to do when it is damaged.

        Raises:
            CheckpointError: there is none, a file is damaged, or a leaf differs from `like`.
        """
        self.wait()
        folder = self._folder_of(step)
        try:
            held = read.verified(folder)
        except Damaged as damage:
            older = self._whole_before(int(folder.name.removeprefix("step-")))
            if older is None or fallback is Fallback.REFUSE:
                raise _with_remedy(damage, older) from None
            log.warning("%s: reading step %d instead", damage.where, older)
            folder = place.step_folder(self.folder, older)
            held = manifest.read(folder)
        return read.state(folder, held, like), read.extra(folder, held), held

    def _start(self, draft: Draft) -> ocp.StandardCheckpointer:
        problem = None
        try:
            draft.prepare()
        except OSError as error:
            problem = draft.failure(error)
        if not place.everyone(problem is None):
            raise problem or CheckpointError("process 0 could not make the folder", where=str(self.folder))
        try:
            return draft.start()
        except Exception as error:
            draft.discard()
            raise draft.failure(error) from error

    def _finish(self, draft: Draft, checkpointer: ocp.StandardCheckpointer) -> None:
        try:
            draft.finish(checkpointer)
            if jax.process_index() == 0:
                keep = self.retention.kept(self._manifests(), newest=draft.step)
                for step in set(self.steps()) - keep:
                    place.remove(self.folder, step, self._owner)
        except Exception as error:
            draft.discard()
            raise draft.failure(error) from error

    def _manifests(self) -> list[Manifest]:
        """The manifests that can be read; a damaged one is not chosen for anything."""
        held = []
        for step in self.steps():
            try:
                held.append(manifest.read(place.step_folder(self.folder, step)))
            except Damaged as damage:
                log.warning("%s", damage)
        return held

    def _folder_of(self, step: int | None) -> Path:
        known = self.steps()
        if not known:
            raise CheckpointError(
                "there is no complete checkpoint", where=str(self.folder), remedy="Name the folder of another run."
            )
        if step is not None and step not in known:
            raise CheckpointError(
                f"there is no complete checkpoint of step {step}",
                where=str(self.folder),
                remedy=f"There are steps {', '.join(map(str, known))}.",
            )
        return place.step_folder(self.folder, known[-1] if step is None else step)

    def _whole_before(self, step: int) -> int | None:
        for older in reversed([s for s in self.steps() if s < step]):
            try:
                read.verified(place.step_folder(self.folder, older))
            except Damaged:
                continue
            return older
        return None


def _with_remedy(damage: Damaged, older: int | None) -> Damaged:
    remedy = (
        f"Step {older} is whole: use restore(like, step={older}), or fallback=Fallback.OLDER."
        if older is not None
        else "No older checkpoint is whole: start the run anew."
    )
    return Damaged(damage.problem, where=damage.where, remedy=remedy)
