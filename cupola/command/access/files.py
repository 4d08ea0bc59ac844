"""`cupola access validate` and `test`: files that say what must be answered."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from cupola.access.errors import InvalidArgument
from cupola.access.validate import FileError, Report, find_files
from cupola.access.validate import validate as run
from cupola.command.access.ends import Exit
from cupola.command.errors import show

Json = Annotated[bool, typer.Option("--json", help="Print a line of JSON for each file.")]


def validate(
    files: Annotated[list[Path], typer.Argument(metavar="FILES", help="Validation files, stores, staged tests.")],
    as_json: Json = False,
) -> None:
    """Runs what files claim, and prints each failure.

    The exit code is 1 where a claim fails, and 2 where a file cannot be read.

    \b
    cupola access validate lab.yaml
    """
    _report(files, as_json)


def run_all(
    paths: Annotated[list[Path], typer.Argument(metavar="PATHS", help="Files, and folders with all below them.")],
    as_json: Json = False,
) -> None:
    """Runs all files of folders, a line for each.

    Exit codes are those of validate.

    \b
    cupola access test tests/access
    """
    files = [file for path in paths for file in find_files(path)]
    if not files:
        raise InvalidArgument("there is no .yaml file below", where=", ".join(map(str, paths)), remedy="Name others.")
    _report(files, as_json)


def _report(files: Sequence[Path], as_json: bool) -> None:
    reports: list[Report] = []
    unreadable = 0
    for file in files:
        try:
            report = run(file)
        except FileError as error:
            unreadable += 1
            if as_json:
                typer.echo(json.dumps({"file": str(file), "error": str(error)}))
            show(error)
            continue
        reports.append(report)
        typer.echo(json.dumps(_record(report)) if as_json else str(report))
        if not as_json:
            for failure in report.failures:
                typer.echo(str(failure))
    failed = sum(not report.passed for report in reports)
    if len(files) > 1 and not as_json:
        bad = f", {unreadable} cannot be read" if unreadable else ""
        typer.echo(f"{len(files)} files: {len(reports) - failed} pass, {failed} fail{bad}")
    raise typer.Exit(Exit.MISTAKE if unreadable else Exit.NO if failed else Exit.YES)


def _record(report: Report) -> dict[str, object]:
    return {
        "file": report.source,
        "counts": {kind.value: dataclasses.asdict(count) for kind, count in report.counts.items()},
        "failures": [
            {
                "kind": one.kind.value,
                "place": str(one.place),
                "line": one.place.line,
                "claim": one.claim,
                "test": one.test,
                "expected": one.expected,
                "found": one.found,
                "why": one.why,
            }
            for one in report.failures
        ],
    }
