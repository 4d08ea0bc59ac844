"""`cupola eval`: how well a trained model predicts its held-out documents, or any text."""

from typing import Annotated

import typer
from rich.table import Table

from cupola.command.options import CONSOLE, Run, Step, begin, say
from cupola.data.mixture import Mixture, Part
from cupola.data.sources import Split, TextFiles
from cupola.train.corpus import split
from cupola.train.evaluate import Evaluator, compressed_bits_per_byte
from cupola.train.folder import RunFolder
from cupola.train.load import load


def evaluate(
    run: Run,
    text: Annotated[str | None, typer.Option(help="Score this file or folder; else the held-out part.")] = None,
    step: Step = None,
) -> None:
    """Scores a trained model in bits per byte, beside gzip and xz."""
    begin()
    trained = load(RunFolder.open(run), step)
    data = trained.experiment.data
    mixture = split(data, Split.HELD_OUT) if text is None else Mixture(parts=(Part(source=TextFiles(path=text)),))
    corpora = mixture.encode(trained.tokenizer)
    evaluator = Evaluator(trained.model, corpora, trained.experiment.evaluation, data.length_tokens)
    score = evaluator.all(trained.params)
    say(f"{run} at step {trained.step:,}")
    table = Table()
    table.add_column("")
    table.add_column("bits per byte", justify="right")
    table.add_row("model", f"{score.bits_per_byte:.4f}", style="bold")
    for name, bits in compressed_bits_per_byte(mixture.documents()).items():
        table.add_row(name, f"{bits:.4f}")
    CONSOLE.print(table)
    say(f"{score.tokens:,} tokens, {score.bytes:,.0f} bytes, {score.loss:.4f} nats a token")
