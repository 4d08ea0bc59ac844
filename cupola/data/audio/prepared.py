"""Prepared recordings: resampled, trimmed, levelled and with their features, kept in a folder.

Not here: text (`spoken/`), batches (`batches.py`). Invariant: what is kept is used again only for the
same bytes' stamp (path, size, time of change) and an equal `Preparation`; anything else is made anew.
"""

import dataclasses
import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int16

from cupola.config.text import show
from cupola.config.value import Value
from cupola.core.errors import AudioError
from cupola.data.audio.clip import Clip
from cupola.data.audio.features import LogMel
from cupola.data.audio.files import read
from cupola.data.files import whole

_FORMAT = 1
_SAMPLES, _FEATURES = "samples.npy", "features.npy"


@dataclasses.dataclass(frozen=True, eq=False)
class Prepared:
    """A recording as a model is trained on it: samples of 16 bits, and the features of just these."""

    samples: Int16[np.ndarray, " N"]
    features: Float32[np.ndarray, "T M"]

    def clip(self, rate_hz: int) -> Clip:
        """Returns the samples as sound."""
        return Clip(self.samples.astype(np.float32) / 2**15, rate_hz)


class Preparation(Value):
    """What is done to each recording.

    Args:
        front: makes the features, and says at which rate.
        trim_below_db: silence at the ends is cut where it is so far below the loudest; None keeps it.
        peak: each recording is scaled to this peak; None keeps its level.
    """

    front: LogMel
    trim_below_db: float | None = 45.0
    peak: float | None = 0.95

    def prepare(self, path: str | os.PathLike[str]) -> Prepared:
        """Returns a recording prepared.

        Raises:
            AudioError: it cannot be read, is silent or too short; the message names the file.
        """
        try:
            clip = read(path, rate_hz=self.front.rate_hz)
            clip.check_sound()
            if self.trim_below_db is not None:
                clip = clip.trimmed(below_db=self.trim_below_db)
            if self.peak is not None:
                clip = clip.at_peak(self.peak)
            samples = np.clip(np.rint(clip.samples * 2**15), -(2**15), 2**15 - 1).astype(np.int16)
            return Prepared(samples, self.front.of(Clip(samples.astype(np.float32) / 2**15, clip.rate_hz)))
        except AudioError as error:
            raise AudioError(error.problem, where=os.fspath(path), remedy=error.remedy) from error

    def kept(self, path: str | os.PathLike[str], folder: str | os.PathLike[str]) -> Prepared:
        """Returns a recording prepared, its arrays mapped from the folder, where they are made if they are not there.

        Raises:
            AudioError: it cannot be read, is silent or too short; the message names the file.
            OSError: the folder cannot be written.
        """
        target = self.target(path, folder)
        found = mapped(target)
        if found is None:
            made = self.prepare(path)
            _keep(made, target)
            found = mapped(target)
        return found or made

    def target(self, path: str | os.PathLike[str], folder: str | os.PathLike[str]) -> Path:
        """Returns where in a folder `kept` keeps a recording.

        Raises:
            AudioError: there is no such recording.
        """
        return Path(folder) / self.fingerprint[:16] / _stamp(path)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of its text: equal for equal preparations."""
        return hashlib.sha256(f"{_FORMAT}\n{show(self)}".encode()).hexdigest()


def _stamp(path: str | os.PathLike[str]) -> str:
    try:
        told = Path(path).stat()
    except OSError as error:
        raise AudioError(
            f"cannot be read ({error.strerror})", where=os.fspath(path), remedy="Name a sound file that exists."
        ) from None
    said = f"{Path(path).absolute()}\n{told.st_size}\n{told.st_mtime_ns}"
    return hashlib.sha256(said.encode(errors="surrogateescape")).hexdigest()[:32]


def _keep(made: Prepared, target: Path) -> None:
    # What stands there cannot be read.
    shutil.rmtree(target, ignore_errors=True)
    try:
        with whole(target) as unfinished:
            unfinished.mkdir()
            np.save(unfinished / _SAMPLES, made.samples)
            np.save(unfinished / _FEATURES, made.features)
    except OSError:
        # Another process was first; what it made is the same.
        if mapped(target) is None:
            raise


def mapped(target: Path) -> Prepared | None:
    """Returns what `kept` keeps at this place; None where nothing whole stands there."""
    try:
        samples, features = (np.load(target / name, mmap_mode="r") for name in (_SAMPLES, _FEATURES))
    except (OSError, ValueError, EOFError):
        return None
    return Prepared(samples, features)
