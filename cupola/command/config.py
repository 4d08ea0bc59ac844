"""`cupola config`: what an experiment is made of, and how two differ."""

from typing import Annotated

import typer

from cupola.command.options import Named, Overrides
from cupola.config import diff as difference
from cupola.config import text
from cupola.config.override import override
from cupola.recipes import book

Other = Annotated[str, typer.Argument(metavar="OTHER", help="Another one.")]

app = typer.Typer(no_args_is_help=True, help="Shows and compares experiments.", rich_markup_mode=None)


@app.command("show")
def show(experiment: Named, overrides: Overrides = None) -> None:
    """Prints an experiment, one leaf a line.

    \b
    cupola config show quickstart model.width=384 > wide.txt
    cupola train wide.txt
    """
    print(text.show(override(book.find(experiment), overrides or [])))


@app.command("diff")
def diff(first: Named, second: Other) -> None:
    """Prints the leaves in which two experiments differ.

    The exit code is 1 when there are any, and 0 when there are none.
    """
    changes = difference.diff(book.find(first), book.find(second))
    if changes:
        print(difference.text(changes))
        raise typer.Exit(1)
    print("no difference")
