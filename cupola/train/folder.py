"""The folder of a run: what stands where, and that only one process trains in it.

Invariant: every file is written whole or not at all; what was there before a failure is still there.
"""

import fcntl
import json
import os
import shutil
from pathlib import Path
from typing import IO, Any, TypeVar

from cupola.config import text
from cupola.config.reference import name_of
from cupola.core.errors import ConfigError, TrainingError
from cupola.data.files import whole
from cupola.data.tokenizer import Tokenizer
from cupola.train.experiment import Experiment, Training

Kind = TypeVar("Kind", bound=Training)


class RunFolder:
    """Paths of a run's files, by what they hold.

    Args:
        path: the folder, such as runs/quickstart.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.config = self.path / "config.txt"
        self.tokenizer = self.path / "tokenizer.json"
        self.data = self.path / "data"
        self.checkpoints = self.path / "checkpoints"
        self.metrics = self.path / "metrics.jsonl"
        self.tensorboard = self.path / "tensorboard"
        self.curve = self.path / "loss.png"
        self.card = self.path / "card.md"
        self.summary = self.path / "summary.json"
        self._lock: IO[str] | None = None

    @classmethod
    def create(cls, root: str | Path, experiment: Training) -> "RunFolder":
        """Makes the folder of a new run, named after the experiment, with a number where that is taken.

        Raises:
            TrainingError: it cannot be written.
        """
        number, base = 1, Path(root) / experiment.name
        path = base
        try:
            base.parent.mkdir(parents=True, exist_ok=True)
            while True:
                try:
                    path.mkdir()
                    break
                except FileExistsError:
                    number += 1
                    path = base.with_name(f"{base.name}-{number}")
        except OSError as error:
            raise unwritable(path, error) from None
        folder = cls(path)
        try:
            folder.write(folder.config, text.show(experiment))
        except TrainingError:
            folder.discard_unbegun()
            raise
        return folder

    @classmethod
    def open(cls, path: str | Path) -> "RunFolder":
        """Opens the folder of a run that was begun.

        Raises:
            TrainingError: there is no run.
        """
        folder = cls(path)
        if not folder.config.is_file():
            parent = folder.path.parent
            runs = sorted(p.parent.name for p in parent.glob("*/config.txt")) if parent.is_dir() else []
            known = f"Runs in {parent}: {', '.join(runs)}." if runs else "Start one with `cupola quickstart`."
            raise TrainingError("there is no run here (no config.txt)", where=str(path), remedy=known)
        return folder

    def experiment(self) -> Training:
        """Returns the experiment that the run was begun with.

        Raises:
            ConfigError: its text does not describe one.
        """
        try:
            made = text.parse(self.config.read_text(encoding="utf-8"))
        except UnicodeDecodeError:
            raise ConfigError(
                "is not text", where=str(self.config), remedy="Restore the file, or start a new run."
            ) from None
        if not isinstance(made, Training):
            raise ConfigError(
                f"describes a {type(made).__name__}, not an Experiment",
                where=str(self.config),
                remedy="Start a new run; `cupola config show quickstart` prints what one looks like.",
            )
        return made

    def experiment_of(self, kind: type[Kind]) -> Kind:
        """Returns the experiment that the run was begun with, for what is done with this kind alone.

        Raises:
            ConfigError: its text does not describe one.
            TrainingError: it is of another kind.
        """
        made = self.experiment()
        if not isinstance(made, kind):
            raise TrainingError(
                f"this run trains a {type(made.model).__name__} ({type(made).__name__}), "
                f"which is no {kind.__name__} as is needed here",
                where=str(self.path),
                remedy=f"Name the folder of a run whose config.txt begins with . = {name_of(kind)}.",
            )
        return made

    def load_tokenizer(self) -> Tokenizer:
        """Returns the tokenizer of the run of a decoder of text.

        Raises:
            TrainingError: it is the run of another model.
            TokenizerError: it is missing, corrupt or of another vocabulary than the model.
        """
        vocabulary = self.experiment_of(Experiment).model.vocabulary
        tokenizer = Tokenizer.load(self.tokenizer)
        tokenizer.check_exact_vocabulary(vocabulary)
        return tokenizer

    def write(self, path: Path, content: str) -> None:
        """Writes a text file whole or not at all."""
        try:
            with whole(path) as unfinished:
                unfinished.write_text(content, encoding="utf-8")
        except OSError as error:
            raise unwritable(path, error) from None

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Writes summary.json."""
        self.write(self.summary, json.dumps(summary, indent=2) + "\n")

    def discard_unbegun(self) -> None:
        """Removes the folder of a run that has no checkpoint: there is nothing in it to go on from."""
        if not any(self.checkpoints.glob("step-*")):
            shutil.rmtree(self.path, ignore_errors=True)

    def __enter__(self) -> "RunFolder":
        """Takes the folder for this process.

        Raises:
            TrainingError: another process trains in it.
        """
        try:
            self._lock = (self.path / ".lock").open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.__exit__()
            raise TrainingError(
                "another process is training in this folder",
                where=str(self.path),
                remedy="Wait for it, stop it, or start a run of another name.",
            ) from None
        except OSError as error:
            raise unwritable(self.path, error) from None
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def unwritable(path: Path, error: OSError) -> TrainingError:
    """Returns what the user is told of a file that could not be written."""
    return TrainingError(
        f"could not be written ({error.strerror or error})",
        where=os.fspath(error.filename or path),
        remedy="Free some space or name another folder with --runs; what was saved before is whole.",
    )
