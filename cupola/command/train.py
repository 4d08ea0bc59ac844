"""`cupola train`: a recipe, a configuration, or a run to go on with."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cupola.command.options import CONSOLE, NAMED, Overrides, Runs, begin, say
from cupola.config import diff
from cupola.config.override import override
from cupola.core.errors import ConfigError, CupolaError
from cupola.observe import machine
from cupola.recipes import book
from cupola.recipes.hardware.machine import fit
from cupola.train.experiment import Training
from cupola.train.folder import RunFolder
from cupola.train.run import run


def train(
    experiment: Annotated[str | None, NAMED] = None,
    overrides: Overrides = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with the run in this folder.")] = None,
    runs: Runs = Path("runs"),
) -> None:
    """Trains a model, or goes on with a run.

    \b
    cupola train quickstart model.width=384 budget.minutes=10
    cupola train --resume runs/quickstart
    cupola train --resume runs/quickstart budget.minutes=20

    Ctrl-C saves and stops; once more stops at once, at the last checkpoint.
    """
    begin()
    if resume is not None:
        folder, made = _resumed(resume, [*([experiment] if experiment else []), *(overrides or [])])
        summary = run(made, folder, CONSOLE)
    elif experiment is None:
        raise ConfigError("nothing to train", where="train", remedy="Type `cupola train quickstart`, or --resume RUN.")
    else:
        made = override(fitted(book.find(experiment), experiment), overrides or [])
        folder, summary = start(made, runs)
    if summary is None:
        raise typer.Exit(130)
    say(f"held out: {summary['score']}; see {folder.card if folder.card.is_file() else folder.summary}")


def start(made: Training, runs: Path) -> tuple[RunFolder, dict[str, Any] | None]:
    """Makes the run's folder and runs; a run that fails before its first checkpoint leaves no folder."""
    folder = RunFolder.create(runs, made)
    try:
        return folder, run(made, folder, CONSOLE)
    except CupolaError:
        folder.discard_unbegun()
        raise


def fitted(made: Training, name: str) -> Training:
    """Returns a recipe's experiment fitted to this machine, and says what that changed."""
    if name not in book.RECIPES:
        return made
    here = fit(made, machine.measure())
    if changes := diff.diff(made, here):
        say(f"fitted to this machine:\n{diff.text(changes)}")
    return here


def _resumed(path: Path, edits: list[str]) -> tuple[RunFolder, Training]:
    folder = RunFolder.open(path)
    began = folder.experiment()
    made = override(began, edits)
    if made != began:
        say(diff.text(diff.diff(began, made)))
    return folder, made
