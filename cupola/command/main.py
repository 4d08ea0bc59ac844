"""`cupola`: the commands, and how they end.

Not here: what they do (each in its own file). Invariant: a mistake of the user ends in one message
that says what to type, exit code 2, and no traceback.
"""

import io
import sys

import typer
from rich.console import Console

from cupola import __version__
from cupola.command import complete, config, doctor, evaluate, extra, quickstart, train
from cupola.core.errors import CupolaError
from cupola.observe import log

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Define, train and use foundation models. Begin with: cupola quickstart",
)
app.command("quickstart")(quickstart.quickstart)
app.command("train")(train.train)
app.command("complete")(complete.complete)
app.command("eval")(evaluate.evaluate)
app.add_typer(config.app, name="config")
app.command("doctor")(doctor.doctor)
try:
    from cupola.command import bench, chat, fetch, keys, serve
except ModuleNotFoundError as error:
    extra.explain(app, "serve", error, commands=("fetch", "serve", "chat", "bench", "keys"))
else:
    app.command("fetch")(fetch.fetch)
    app.command("serve")(serve.serve)
    app.command("chat")(chat.chat)
    app.add_typer(bench.app, name="bench")
    app.add_typer(keys.app, name="keys")


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
        console = Console(stderr=True)
        console.print(f"[bold red]error[/] [dim]{type(error).__name__}[/]", highlight=False)
        console.print(str(error), highlight=False, markup=False, emoji=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
