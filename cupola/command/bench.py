"""`cupola bench serve`: how fast a model is served on this machine, as a table and a plot."""

import contextlib
from pathlib import Path
from typing import Annotated

import typer
from matplotlib.figure import Figure
from rich.table import Table

from cupola.command.engines import options_of, start
from cupola.command.options import CONSOLE, begin, say
from cupola.command.source import Products, Source, find, precision_of
from cupola.serve.engine import Engine
from cupola.serve.errors import ContextOverflow
from cupola.serve.measure import Report, run, streams
from cupola.serve.workloads import WORKLOADS, Words

app = typer.Typer(no_args_is_help=True, help="Measure.")


@app.command("serve")
def serve(
    model: Source,
    tokens: Annotated[int, typer.Option(min=2, help="To generate in each answer.")] = 64,
    prompt: Annotated[int, typer.Option(min=1, help="Tokens of a prompt.")] = 64,
    width: Annotated[list[int] | None, typer.Option(help="Streams at once; several times for several.")] = None,
    length: Annotated[int, typer.Option(help="Most tokens of prompt and answer.")] = 4096,
    precision: Products = "auto",
    plot: Annotated[Path, typer.Option(help="Where the plot goes.")] = Path("bench-serve.png"),
) -> None:
    """Measures how fast a model is served here.

    Throughput, time to the first token, time per token and hit rate, as a table and a plot.

    \b
    cupola bench serve smollm2
    """
    begin()
    widths = width or [1, 8, 32]
    found = find(model, precision=precision_of(precision))
    usable = [token for token in range(found.tokenizer.vocabulary) if token not in found.tokenizer.special]
    length = min(length, found.model.max_length)
    with contextlib.closing(start(found, options_of(running=max(widths), length=length, memory=None))) as engine:
        engine.wait_compiled()
        reports = {f"{n} streams" if n > 1 else "1 stream": _streams(engine, usable, n, prompt, tokens) for n in widths}
        for name, make in WORKLOADS.items():
            CONSOLE.print(f"measuring {name} ...", style="dim")
            engine.forget()
            try:
                reports[name] = run(engine, make(Words(usable, seed=0)), limit_tokens=min(tokens, 16))
            except ContextOverflow:
                say(f"{name}: its prompts do not fit a context of {length} tokens")
    _show(reports)
    _plot(found.name, {name: reports[name] for name in list(reports)[: len(widths)]}, plot)
    say(f"plot: {plot}")


def _streams(engine: Engine, usable: list[int], number: int, prompt: int, tokens: int) -> Report:
    CONSOLE.print(f"measuring {number} streams ...", style="dim")
    words = Words(usable, seed=number)
    return streams(engine, [words(prompt) for _ in range(number)], limit_tokens=tokens)


def _show(reports: dict[str, Report]) -> None:
    table = Table("load", "requests", "tokens/s", "first token, ms", "per token, ms", "hit rate", title_justify="left")
    for name, report in reports.items():
        table.add_row(
            name,
            str(len(report.answers)),
            f"{report.tokens_per_second:.0f}",
            f"{1e3 * report.first_seconds:.0f}",
            f"{1e3 * report.token_seconds:.1f}",
            f"{report.hit_rate:.0%}",
        )
    CONSOLE.print(table)


def _plot(name: str, reports: dict[str, Report], path: Path) -> None:
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    figure.suptitle(f"{name} on this machine")
    left, right = figure.subplots(1, 2)
    names = list(reports)
    left.bar(names, [report.tokens_per_second for report in reports.values()], color="#b5532a")
    left.set_ylabel("tokens/s, all streams")
    for place, report in enumerate(reports.values()):
        each = [1e3 * answer.token_seconds for answer in report.answers]
        right.plot([place] * len(each), each, ".", color="#b5532a", alpha=0.4)
    right.set_xticks(range(len(names)), names)
    right.set_ylabel("ms per token of a stream")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_ylim(bottom=0)
    figure.savefig(path, dpi=150)
