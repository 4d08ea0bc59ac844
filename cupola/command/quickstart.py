"""`cupola quickstart`: from nothing to a model that completes code, in minutes."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from cupola.command.complete import print_completion
from cupola.command.options import CONSOLE, Overrides, Runs, begin, say
from cupola.command.train import fitted, start
from cupola.config.override import override
from cupola.data.sources import PythonLibrary, TextFiles
from cupola.models.completion import Sampling
from cupola.recipes.quickstart import quickstart as recipe
from cupola.train.load import load

PROMPT = "def read_lines(path):"
"""What the new model continues when it learnt from the Python library."""


def quickstart(
    overrides: Overrides = None,
    text: Annotated[str | None, typer.Option(help="Learn from this file or folder of text instead.")] = None,
    minutes: Annotated[float, typer.Option(help="How long to train.")] = 3.0,
    runs: Runs = Path("runs"),
) -> None:
    """Trains a small language model here and lets you use it.

    It learns the source of Python's own library, or --text, is measured beside gzip and xz on what it
    has not seen, and continues a text. Nothing is downloaded; everything is left in runs/quickstart.
    Ctrl-C saves and stops.
    """
    begin()
    source = PythonLibrary() if text is None else TextFiles(path=text)
    made = override(fitted(recipe(source, minutes), "quickstart"), overrides or [])
    folder, summary = start(made, runs)
    if summary is None:
        raise typer.Exit(130)
    CONSOLE.print(_table(summary))
    trained = load(folder)
    prompt = PROMPT if text is None else ""
    print_completion(trained, prompt, limit_tokens=60, sampling=Sampling(temperature=0.4), seed=1)
    say(
        f"\nmodel card: {folder.card}   loss curve: {folder.curve}\n\ntry next:\n"
        f'  cupola complete {folder.path} "class Queue:"\n'
        f"  cupola train quickstart model.width=384 budget.minutes=20\n"
        f"  cupola config show {folder.path}"
    )


def _table(summary: dict[str, Any]) -> Table:
    table = Table()
    table.add_column("on held-out files")
    table.add_column("bits per byte", justify="right")
    rows = {
        "this model": summary["bits_per_byte"],
        "xz -9e": summary["xz_bits_per_byte"],
        "gzip -9": summary["gzip_bits_per_byte"],
    }
    for name, bits in sorted(rows.items(), key=lambda row: row[1]):
        table.add_row(name, f"{bits:.3f}", style="bold" if name == "this model" else "")
    return table
