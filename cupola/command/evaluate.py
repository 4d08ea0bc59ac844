"""`cupola eval`: how well a trained model predicts its held-out documents, or any text."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from cupola.command.options import CONSOLE, begin
from cupola.data.mixture import Mixture, Part
from cupola.data.sources import Split, TextFiles
from cupola.train.corpus import split
from cupola.train.evaluate import Evaluator, compressed_bits_per_byte
from cupola.train.folder import RunFolder
from cupola.train.load import load


def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder of the run, such as runs/quickstart.")],
    text: Annotated[str | None, typer.Option(help="Score this file or folder; else the held-out part.")] = None,
    step: Annotated[int | None, typer.Option(help="Of the checkpoint; the latest if not given.")] = None,
) -> None:
    """Prints bits per byte beside what gzip and xz reach on the same documents."""
    begin()
    trained = load(RunFolder.open(run), step)
    data = trained.experiment.data
    mixture = split(data, Split.HELD_OUT) if text is None else Mixture(parts=(Part(source=TextFiles(path=text)),))
    corpora = mixture.encode(trained.tokenizer)
    evaluator = Evaluator(trained.model, corpora, trained.experiment.evaluation, data.length_tokens)
    score = evaluator.all(trained.params)
    table = Table(title=f"{run} at step {trained.step:,}", title_justify="left")
    table.add_column("")
    table.add_column("bits per byte", justify="right")
    table.add_row("model", f"{score.bits_per_byte:.4f}", style="bold")
    for name, bits in compressed_bits_per_byte(mixture.documents()).items():
        table.add_row(name, f"{bits:.4f}")
    CONSOLE.print(table)
    CONSOLE.print(f"{score.tokens:,} tokens, {score.bytes:,.0f} bytes, {score.loss:.4f} nats a token", highlight=False)
