"""Options that several commands share, and what every command that computes begins with."""

from pathlib import Path
from typing import Annotated

import typer

from cupola.core import host
from cupola.observe.log import CONSOLE as CONSOLE

NAMED = typer.Argument(metavar="EXPERIMENT", help="A recipe, a run's folder, or a file of its text.")
Named = Annotated[str, NAMED]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="PATH=VALUE", help="Changes, such as model.width=384; `cupola config show` lists the paths."
    ),
]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of the run, such as runs/quickstart.")]
Runs = Annotated[Path, typer.Option(help="Folder of all runs.")]
Step = Annotated[int | None, typer.Option(help="Of the checkpoint; the latest if not given.")]

CACHE = Path.home() / ".cache" / "cupola"
"""Compiled programs, kept between runs."""


def say(line: str) -> None:
    """Prints a line as it is: not wrapped, and nothing in it taken for markup."""
    CONSOLE.print(line, highlight=False, markup=False, emoji=False, soft_wrap=True)


def begin() -> None:
    """Readies the process for compiled steps."""
    host.keep_freed_memory()
    host.cache_compilations(CACHE / "xla")
