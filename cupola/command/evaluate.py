"""`cupola eval`: how good a trained model is, by what it was trained for.

Invariant: `cupola eval RUN` is `cupola eval text RUN`: a run's folder that has the name of a command is ./NAME.
"""

from typing import Annotated, Any

import typer
from rich.table import Table
from typer.core import TyperGroup

from cupola.command.evaluate_speech import evaluate_speech
from cupola.command.options import CONSOLE, Run, Step, begin, say
from cupola.data.sources import TextFiles
from cupola.data.tokens import TokenCorpus
from cupola.train.corpus import held_out
from cupola.train.evaluate import Evaluator, compressed_bits_per_byte
from cupola.train.folder import RunFolder
from cupola.train.load import load


class _TextIfNothingElse(TyperGroup):
    """A group in which the command `text` need not be said."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        return super().resolve_command(ctx, args if args and args[0] in self.commands else ["text", *args])


app = typer.Typer(
    cls=_TextIfNothingElse,
    # What stands before the run is an option of `text`.
    context_settings={"ignore_unknown_options": True},
    no_args_is_help=True,
    help="Says how good a trained model is.",
)


@app.command("text")
def evaluate(
    run: Run,
    text: Annotated[str | None, typer.Option(help="Score this file or folder; else the held-out part.")] = None,
    step: Step = None,
) -> None:
    """Scores a trained model in bits per byte, beside gzip and xz."""
    begin()
    folder = RunFolder.open(run)
    trained = load(folder, step)
    tokenizer = trained.tokenizer
    if text is None:
        corpora = held_out(trained.experiment, folder, tokenizer)
    else:
        corpora = (TokenCorpus.encode(TextFiles(path=text), tokenizer),)
    evaluator = Evaluator(trained.model, corpora, trained.experiment.evaluation, trained.experiment.data.length_tokens)
    score = evaluator.all(trained.params)
    say(f"{run} at step {trained.step:,}")
    table = Table()
    table.add_column("")
    table.add_column("bits per byte", justify="right")
    table.add_row("model", f"{score.bits_per_byte:.4f}", style="bold")
    texts = (document for corpus in corpora for document in corpus.texts(tokenizer))
    for name, bits in compressed_bits_per_byte(texts).items():
        table.add_row(name, f"{bits:.4f}")
    CONSOLE.print(table)
    say(f"{score.tokens:,} tokens, {score.bytes:,.0f} bytes, {score.loss:.4f} nats a token")


app.command("speech")(evaluate_speech)
