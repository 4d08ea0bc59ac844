"""`cupola config`: what an experiment is made of, and how two differ."""

from typing import Annotated

import typer

from cupola.command.options import Overrides
from cupola.config import diff as difference
from cupola.config import text
from cupola.config.override import override
from cupola.recipes import book

app = typer.Typer(no_args_is_help=True, help="Show and compare experiments.", rich_markup_mode=None)

Named = Annotated[str, typer.Argument(help="A recipe, a run's folder, or a file of its text.")]


@app.command("show")
def show(experiment: Named, overrides: Overrides = None) -> None:
    """Prints an experiment, one leaf a line; the text can be trained with `cupola train FILE`."""
    print(text.show(override(book.find(experiment), overrides or [])), end="")


@app.command("diff")
def diff(first: Named, second: Named) -> None:
    """Prints the leaves in which two experiments differ; exit code 1 when there are any."""
    changes = difference.diff(book.find(first), book.find(second))
    if changes:
        print(difference.text(changes))
        raise typer.Exit(1)
    print("no difference")
