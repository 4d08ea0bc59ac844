"""Options that several commands share, and what every command that computes begins with."""

from pathlib import Path
from typing import Annotated

import typer

from cupola.core import host
from cupola.observe.log import CONSOLE as CONSOLE

Runs = Annotated[Path, typer.Option("--runs", help="Folder of all runs.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Changes as path=value, such as model.width=384.", show_default=False)
]

CACHE = Path.home() / ".cache" / "cupola"
"""Compiled programs, kept between runs."""


def begin() -> None:
    """Readies the process for compiled steps."""
    host.keep_freed_memory()
    host.cache_compilations(CACHE / "xla")
