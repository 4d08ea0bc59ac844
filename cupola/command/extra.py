"""Commands whose packages are not installed: they say what to install.

Invariant: a missing extra never keeps the other commands from working.
"""

import sys
from collections.abc import Iterable

import typer

from cupola.core.errors import ConfigError

ANYTHING = {"allow_extra_args": True, "ignore_unknown_options": True}


def explain(app: typer.Typer, extra: str, error: ModuleNotFoundError, *, commands: Iterable[str]) -> None:
    """Adds commands that answer with how to install an extra; "": the package itself, without what it depends on.

    Raises:
        ModuleNotFoundError: what is missing is a module of our own, which no extra brings.
    """
    missing = str(error.name)
    package = f"cupola[{extra}]" if extra else "cupola"
    if missing.split(".")[0] == "cupola":
        raise error

    def answer() -> None:
        raise ConfigError(
            f"the package {missing} is not installed",
            where=extra or "cupola",
            remedy=f"Type: {sys.executable} -m pip install '{package}'",
        )

    for name in commands:
        app.command(name, context_settings=ANYTHING, help=f"Needs {package}.")(answer)
