"""`cupola access schema`: reading, writing and comparing schemas."""

from pathlib import Path
from typing import Annotated

import typer

from cupola.access.schema.diff import Difference, diff
from cupola.access.schema.model import Language
from cupola.access.schema.read import read_schema
from cupola.access.server.tls import Insecure
from cupola.access.validate.schemas import schema_of
from cupola.command.access.ends import Exit
from cupola.command.access.target import Address, Asked, Clear, Key, Roots, Tenant, opened, read_input

app = typer.Typer(no_args_is_help=True, help="Read, write and compare schemas.")
File = Annotated[Path, typer.Argument(metavar="FILE", help=".zed, .fga, OpenFGA's JSON, fga.mod; - is standard input.")]


def text_of(path: Path) -> str:
    """Returns the text of a schema, what it imports and its modules included.

    Raises:
        FileError: it cannot be read or does not hold together.
    """
    if str(path) == "-":
        return read_input(path)
    text = read_input(path)
    modular = path.name == "fga.mod" or any(line.lstrip().startswith("import") for line in text.splitlines())
    language = Language.FGA if path.suffix in (".fga", ".mod", ".json") else Language.ZED
    return schema_of(path, language).text if modular else text


@app.command("read")
def read(
    address: Address,
    key: Key = None,
    roots: Roots = None,
    insecure: Clear = Insecure.REFUSED,
    tenant: Tenant = "default",
) -> None:
    """Prints the schema in force.

    \b
    cupola access schema read access.db
    """
    with opened(Asked(address, key, roots, insecure, tenant)) as target:
        typer.echo(target.schema().rstrip("\n"))


@app.command("write")
def write(
    address: Address,
    file: File,
    key: Key = None,
    roots: Roots = None,
    insecure: Clear = Insecure.REFUSED,
    tenant: Tenant = "default",
) -> None:
    """Makes a file the schema from now on.

    The token of that is printed. A database is made where there is none.

    \b
    cupola access schema write access.db lab.zed
    """
    text = text_of(file)
    read_schema(text)
    with opened(Asked(address, key, roots, insecure, tenant), make=True) as target:
        typer.echo(target.write_schema(text))


@app.command("diff")
def compare(
    address: Address,
    file: File,
    key: Key = None,
    roots: Roots = None,
    insecure: Clear = Insecure.REFUSED,
    tenant: Tenant = "default",
) -> None:
    """Prints what a file would change.

    The exit code is 1 where it would change anything.

    \b
    cupola access schema diff access.db lab.zed
    """
    after = read_schema(text_of(file))
    with opened(Asked(address, key, roots, insecure, tenant)) as target:
        before = read_schema(target.schema())
    found = diff(before, after)
    for one in found:
        typer.echo(_line(one))
    raise typer.Exit(Exit.NO if found else Exit.YES)


def _line(one: Difference) -> str:
    name = f"{one.type}#{one.relation}" if one.relation else one.type or one.caveat
    name += f"({one.parameter})" if one.parameter else ""
    change = (
        f": {one.allowed}" if one.allowed else f": {one.before or '-'} -> {one.after or '-'}" if one.parameter else ""
    )
    return f"{one.kind.value.replace('_', ' ')}  {name}{change}"
