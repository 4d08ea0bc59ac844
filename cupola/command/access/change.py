"""`cupola access write`, `import`, `export` and `watch`: relationships in and out, one on a line.

Invariant: what `export` prints, `import` reads. An import by `create` is made whole or not at all.
"""

import itertools
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from cupola.access.errors import AccessError, InvalidArgument, NotFound
from cupola.access.relation import Operation, Relationship, Update
from cupola.access.server.tls import Insecure
from cupola.access.validate import FileError, Place, read_suites
from cupola.access.validate.read import SUFFIXES
from cupola.access.validate.suite import Fact, SchemaText
from cupola.command.access.target import PAGE, Address, Asked, Clear, Key, Roots, Target, Tenant, opened

STREAM = Path("-")
How = Annotated[
    Operation, typer.Option("--operation", help="create: must not be there; touch: be there afterwards; delete.")
]


class Read(NamedTuple):
    """What a file brings.

    Args:
        facts: relationships, each with its place.
        schema: that stands in it.
    """

    facts: Iterable[Fact]
    schema: SchemaText | None = None


def write(
    address: Address,
    relationships: Annotated[
        list[str], typer.Argument(metavar="RELATIONSHIPS", help="Such as model:kiln#reader@user:ada.")
    ],
    operation: How = Operation.TOUCH,
    key: Key = None,
    roots: Roots = None,
    insecure: Clear = Insecure.REFUSED,
    tenant: Tenant = "default",
) -> None:
    """Writes relationships, and prints the token of that.

    All are written or none.

    \b
    cupola access write access.db model:kiln#reader@group:research#member group:research#member@user:ada
    """
    updates = [Update(operation, Relationship.parse(one)) for one in relationships]
    with opened(Asked(address, key, roots, insecure, tenant)) as target:
        typer.echo(target.write(*updates))


def load(
    address: Address,
    files: Annotated[
        list[Path], typer.Argument(metavar="FILES", help="Lines, validation files or stores; - is standard input.")
    ],
    operation: Annotated[
        Operation, typer.Option(help="create: all at once, none may be there; touch: batch by batch.")
    ] = Operation.CREATE,
    key: Key = None,
    roots: Roots = None,
    insecure: Clear = Insecure.REFUSED,
    tenant: Tenant = "default",
) -> None:
    """Imports relationships, one on a line.

    // begins a comment. The schema of a validation or store file is written where there is none yet.

    \b
    cupola access import access.db facts.txt
    """
    if operation is Operation.DELETE:
        raise InvalidArgument("an import deletes nothing", where="--operation", remedy="Use: cupola access write")
    read = [_read(path) for path in files]
    began = time.monotonic()
    with opened(Asked(address, key, roots, insecure, tenant), make=any(one.schema for one in read)) as target:
        for one in read:
            if one.schema is not None:
                _write_first(target, one.schema)
        count = _load(target, itertools.chain.from_iterable(one.facts for one in read), operation)
    _rate("imported", count, time.monotonic() - began)


def _read(path: Path) -> Read:
    if path.suffix not in SUFFIXES:
        return Read(_lines(path))
    stages = [stage for suite in read_suites(path) for stage in suite.stages]
    if len(stages) != 1:
        raise InvalidArgument("it has many stores", where=str(path), remedy="Import a validation or store file.")
    return Read(stages[0].facts, stages[0].schema)


def _lines(path: Path) -> Iterator[Fact]:
    try:
        with sys.stdin if path == STREAM else path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                text = line.strip()
                if text and not text.startswith("//"):
                    place = Place(str(path), number, 1)
                    try:
                        yield Fact(Relationship.parse(text), place)
                    except AccessError as error:
                        raise FileError(error.problem, place, remedy=error.remedy) from None
    except OSError as error:
        raise InvalidArgument(f"cannot be read: {error.strerror}", where=str(path), remedy="Look at it.") from None
    except UnicodeDecodeError:
        raise InvalidArgument("it is no UTF-8 text", where=str(path), remedy="Save it as UTF-8.") from None


def _write_first(target: Target, schema: SchemaText) -> None:
    try:
        target.schema()
    except NotFound:
        target.write_schema(schema.text)
        typer.echo(f"wrote the schema of {schema.source}", err=True)
    else:
        typer.echo(f"the schema that is there stays; that of {schema.source} was not written", err=True)


def _load(target: Target, facts: Iterable[Fact], operation: Operation) -> int:
    relationships = (fact.relationship for fact in facts)
    if operation is Operation.CREATE:
        return target.load(relationships)
    count = 0
    while batch := list(itertools.islice(relationships, PAGE)):
        # Of two lines about one relationship the later counts, as if each were a write.
        last = {one.key: one for one in batch}
        target.write(*(Update(operation, one) for one in last.values()))
        count += len(batch)
    return count


def _rate(what: str, count: int, seconds: float) -> None:
    per_second = count / max(seconds, 1e-9)
    typer.echo(f"{what} {count:,} relationships in {seconds:.2f} s ({per_second:,.0f}/s)", err=True)


def export(
    address: Address,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="To write to; - is standard output.")] = STREAM,
    key: Key = None,
    roots: Roots = None,
    insecure: Clear = Insecure.REFUSED,
    tenant: Tenant = "default",
) -> None:
    """Exports all relationships, one on a line.

    \b
    cupola access export access.db facts.txt
    """
    began, count = time.monotonic(), 0
    # Under another name until it is whole, so that a file of before is not lost to a failure.
    part = file.with_name(f"{file.name}.part")
    with opened(Asked(address, key, roots, insecure, tenant)) as target:
        try:
            out = sys.stdout if file == STREAM else part.open("w", encoding="utf-8")
        except OSError as error:
            raise InvalidArgument(f"cannot be written: {error.strerror}", where=str(file)) from None
        try:
            for one in target.export():
                out.write(f"{one}\n")
                count += 1
            out.flush()
        finally:
            if out is not sys.stdout:
                out.close()
    if file != STREAM:
        os.replace(part, file)
    _rate("exported", count, time.monotonic() - began)


def watch(
    address: Address,
    after: Annotated[str, typer.Option("--from", help="Token to go on from; what is written from now on.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    key: Key = None,
    roots: Roots = None,
    insecure: Clear = Insecure.REFUSED,
    tenant: Tenant = "default",
) -> None:
    """Prints changes as they are made, until Ctrl-C.

    Each has the token to go on from.

    \b
    cupola access watch access.db --from TOKEN
    """
    with opened(Asked(address, key, roots, insecure, tenant)) as target:
        for seen in target.watch(after):
            changes = [(one.operation.value, str(one.relationship)) for one in seen.updates]
            changes += [("schema", "")] if seen.schema else []
            if as_json:
                told = [{"change": what, "relationship": which} for what, which in changes]
                line = {"revision": seen.revision, "changes": told}
                typer.echo(json.dumps(line | ({"metadata": dict(seen.metadata)} if seen.metadata else {})))
            elif changes:
                for what, which in changes:
                    typer.echo("\t".join((what, which, seen.revision)))
            else:
                typer.echo("\t".join(("now", "", seen.revision)))
