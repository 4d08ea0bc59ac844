"""`cupola kernels`: the operations, which implementation of each is chosen here and why, and how to change that."""

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import jax
import typer

from cupola.command.options import begin, say
from cupola.core.errors import ConfigError, Unsupported
from cupola.kernels import measured, tune
from cupola.kernels.choose import Choice
from cupola.kernels.example import FLOATS, Example
from cupola.kernels.native import build as native
from cupola.kernels.native.library import find
from cupola.kernels.operations import OPERATIONS, examples_of
from cupola.observe import machine

app = typer.Typer(no_args_is_help=True, help="List operations, explain a choice, build and measure kernels.")
Name = Annotated[str, typer.Argument(metavar="OPERATION", help="Such as dot; `cupola kernels list` has all.")]


@app.command("list")
def list_operations() -> None:
    """Lists every operation and kind of call, a line each, and which implementation is chosen here."""
    say(f"{'operation':21}{'weights':13}{'chosen here':17}{'time':>11}  others that can")
    lines: dict[str, None] = {}  # Kinds of call that read alike are one line.
    for operation in OPERATIONS.values():
        for example in examples_of(operation.name):
            choice = _choice(example, FLOATS[0], example.sizes({}))
            chosen = next((v for v in choice.verdicts if v.implementation is choice.chosen), None)
            seconds = _milli(chosen.seconds) if chosen and chosen.seconds is not None else "-"
            others = sum(1 for v in choice.verdicts if not v.reasons and v is not chosen)
            lines[f"{operation.name:21}{_forms_of(example):13}{_chosen(choice):17}{seconds:>11}  {others}"] = None
    for line in lines:
        say(line)
    say("Why: cupola kernels explain OPERATION")


@app.command("explain")
def explain(
    operation: Name,
    words: Annotated[
        list[str] | None, typer.Argument(metavar="SIZE=NUMBER", help="Such as M=32, and dtype=bfloat16.")
    ] = None,
) -> None:
    """Tells which implementation of an operation is chosen for given sizes, by what measurement, and why not others.

    \b
    cupola kernels explain dot M=8 K=4096 F=4096 dtype=bfloat16
    """
    dtype, sizes = _read(words or [])
    for example in examples_of(operation):
        full = example.sizes(sizes)
        choice = _choice(example, dtype, full)
        say(f"{operation} {' '.join(f'{k}={v}' for k, v in full.items())}: {_call(example, dtype, full).kind}")
        for names, told in _entries(choice):
            mark = "*" if choice.chosen and choice.chosen.name in names else " "
            say(f"  {mark} {_named(names):20} {told}")
        if choice.nearest is None:
            say("    nothing like it was measured: the first that can is chosen. To measure: cupola kernels tune")
        else:
            shapes = " ".join("x".join(map(str, shape)) for shape in choice.nearest.call.shapes)
            say(f"    measured at {shapes} on {choice.nearest.source}")


@app.command("build")
def build(
    compiler: Annotated[str | None, typer.Option(help="Its command; the first that is here, if not given.")] = None,
) -> None:
    """Compiles the native kernels for this user, where they are found before those of the installation."""
    try:
        folder = native.own_folder()
        native.build(folder, compiler=compiler)
    except native.CannotBuild as error:
        raise Unsupported(str(error), where="kernels") from None
    find.cache_clear()
    found = find()
    say(f"built {folder}")
    say(found.reason or f"this processor uses {', '.join(level.value for level in found.libraries)}")


@app.command("tune")
def tune_here(
    operation: Annotated[list[str] | None, typer.Argument(help="To measure; all, if not given.")] = None,
    seconds: Annotated[float, typer.Option(min=0.001, help="For each measurement.")] = 0.2,
    into: Annotated[Path | None, typer.Option(help="The file of results; your own, if not given.")] = None,
) -> None:
    """Measures the implementations on this machine; from then on they are chosen by what was measured here."""
    begin()
    examples = [example for name in operation or OPERATIONS for example in examples_of(name)]
    path = into or _own_file()
    rows = {}
    for example in examples:
        for row in tune.rows(example, seconds):
            rows[row.operation, row.device, row.call] = row
            best = min(row.seconds, key=lambda name: row.seconds[name])
            shapes = " ".join("x".join(map(str, shape)) for shape in row.call.shapes)
            say(f"{row.operation} {shapes} {row.call.kind}: {best} {_milli(row.seconds[best])}")
    if not rows:
        say("there is one implementation of each here: nothing to measure")
        return
    kept = {(row.operation, row.device, row.call): row for row in measured.read(path)}
    measured.write(path, _here(), (kept | rows).values())
    measured.forget()
    say(f"kept in {path}")


def _own_file() -> Path:
    try:
        return native.own_folder() / measured.FILE
    except native.CannotBuild as error:
        raise Unsupported(str(error), where="kernels", remedy="Name a file: cupola kernels tune --into FILE") from None


def _here() -> str:
    # The name alone: the rates take seconds to measure.
    return f"{machine.processor()}, {machine.cores()} cores, jax {jax.__version__}, {datetime.date.today()}"


def _read(words: list[str]) -> tuple[str, dict[str, int]]:
    dtype, sizes = FLOATS[0], {}
    for word in words:
        name, _, value = word.partition("=")
        if name == "dtype" and value in FLOATS:
            dtype = value
        elif value.isdigit():
            sizes[name] = int(value)
        else:
            raise ConfigError(f"{word!r} is no size", remedy=f"Type SIZE=NUMBER, or dtype={' or dtype='.join(FLOATS)}.")
    return dtype, sizes


def _abstractly(example: Example, dtype: str, sizes: dict[str, int], told: Callable[[tuple[Any, ...]], Any]) -> Any:
    """Returns what a function tells of the arguments, none of which is computed."""
    found = []
    jax.eval_shape(lambda: found.append(told(example.make(dtype, **sizes))))
    return found[0]


def _choice(example: Example, dtype: str, sizes: dict[str, int]) -> Choice:
    return _abstractly(example, dtype, sizes, lambda args: example.operation.weigh(None, *args))


def _call(example: Example, dtype: str, sizes: dict[str, int]) -> measured.Call:
    return _abstractly(example, dtype, sizes, measured.call_of)


def _forms_of(example: Example) -> str:
    """Returns the forms of the weights of a call, which stand among its dtypes as class names."""
    return " ".join(word for word in _call(example, FLOATS[0], example.sizes({})).kind.split() if word[0].isupper())


def _entries(choice: Choice) -> list[tuple[tuple[str, ...], str]]:
    """Returns what is told of each implementation; those that are refused for the same reasons are one entry."""
    entries: dict[tuple[str, str], list[str]] = {}
    for verdict in choice.verdicts:
        name = verdict.implementation.name
        alone = name if not verdict.reasons else name.split("/")[0]
        entries.setdefault((alone, _told(verdict)), []).append(name)
    return [(tuple(names), told) for (_, told), names in entries.items()]


def _named(names: tuple[str, ...]) -> str:
    """Returns one name; of several, what they have in common."""
    return names[0] if len(names) == 1 else names[0].split("/")[0]


def _chosen(choice: Choice) -> str:
    return choice.chosen.name if choice.chosen else "none can"


def _told(verdict: Any) -> str:
    if verdict.reasons:
        return "; ".join(verdict.reasons)
    return "can, not measured" if verdict.seconds is None else _milli(verdict.seconds)


def _milli(seconds: float) -> str:
    return f"{1e3 * seconds:.4g} ms"
