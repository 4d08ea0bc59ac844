"""`cupola`: the commands, and how they end.

Not here: what they do (each in its own file). Invariant: a mistake of the user ends in one message
that says what to type, exit code 2, and no traceback.
"""

import io
import sys

import typer

from cupola import __version__
from cupola.command.errors import show
from cupola.command.later import Later, group_of
from cupola.core.errors import CupolaError
from cupola.observe import log

COMMANDS = {
    "quickstart": Later("cupola.command.quickstart", "quickstart"),
    "train": Later("cupola.command.train", "train"),
    "complete": Later("cupola.command.complete", "complete"),
    "eval": Later("cupola.command.evaluate", "app"),
    "config": Later("cupola.command.config", "app"),
    "transcribe": Later("cupola.command.transcribe", "transcribe", "serve"),
    "speak": Later("cupola.command.speak", "speak", "speech"),
    "export": Later("cupola.command.export", "export", "serve"),
    "doctor": Later("cupola.command.doctor", "doctor"),
    "kernels": Later("cupola.command.kernels", "app"),
    "fetch": Later("cupola.command.fetch", "fetch", "serve"),
    "serve": Later("cupola.command.serve", "serve", "serve"),
    "chat": Later("cupola.command.chat", "chat", "serve"),
    "bench": Later("cupola.command.bench", "app", "serve"),
    "keys": Later("cupola.command.keys", "app", "serve"),
    "access": Later("cupola.command.access.main", "app", "access"),
}
app = typer.Typer(
    cls=group_of(COMMANDS),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def cupola() -> None:
    """Define, train and use foundation models. Begin with: cupola quickstart"""


@app.command("version")
def version() -> None:
    """Prints the version."""
    print(__version__)


def main() -> None:
    """Runs a command; exit codes: 0 done, 2 a mistake to mend, 130 interrupted."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that lacks a character shows "?" for it, rather than ending the run.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    log.set_up()
    try:
        app(prog_name="cupola")
    except CupolaError as error:
        show(error)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
