"""`cupola keys`: who may use a server."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from cupola.command.options import CONSOLE, say
from cupola.serve.http.keys import Role, make_key, read_keys, revoke_key

app = typer.Typer(no_args_is_help=True, help="Make, list and revoke the keys of a server.")
File = Annotated[Path, typer.Option("--file", help="The file of keys.")]
Holder = Annotated[str, typer.Argument(help="Who holds the key.")]
FILE = Path("keys.json")


@app.command("make")
def make(
    holder: Holder,
    file: File = FILE,
    model: Annotated[list[str] | None, typer.Option(help="Pattern of names of models; all, if not given.")] = None,
    namespace: Annotated[
        str | None, typer.Option(help="Whose cached prefixes it shares; its own, if not given.")
    ] = None,
    role: Annotated[Role, typer.Option(help="An operator may load adapters and read metrics.")] = Role.USER,
    subject: Annotated[str, typer.Option(help="Who that is in a permission graph, such as user:ada.")] = "",
) -> None:
    """Makes a key and prints it; it is never shown again."""
    say(make_key(file, holder, models=tuple(model or ("*",)), namespace=namespace, role=role, subject=subject))


@app.command("list")
def list_keys(file: File = FILE) -> None:
    """Lists who holds keys."""
    table = Table("holder", "subject", "models", "role", "made")
    for key in read_keys(file):
        table.add_row(key.name, key.subject, " ".join(key.models), key.role.value, key.created)
    CONSOLE.print(table)


@app.command("revoke")
def revoke(holder: Holder, file: File = FILE) -> None:
    """Takes a key away; a running server knows within a second."""
    revoke_key(file, holder)
    say(f"{holder} has no key any more")
