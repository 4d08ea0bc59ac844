"""`cupola complete`: a trained model goes on with a text."""

from typing import Annotated

import jax
import typer
from rich.console import Console

from cupola.command.options import Run, Step, begin
from cupola.models.completion import Sampling
from cupola.models.completion import complete as completed
from cupola.observe import log
from cupola.train.folder import RunFolder
from cupola.train.load import Trained, load


def complete(
    run: Run,
    prompt: Annotated[str, typer.Argument(help="The text to go on with.")] = "",
    tokens: Annotated[int, typer.Option(min=1, help="At most so many tokens, as far as the context reaches.")] = 200,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token.")] = 0.8,
    top_k: Annotated[int | None, typer.Option(help="Draw from so many of the likeliest tokens.")] = None,
    top_p: Annotated[float, typer.Option(help="Draw from the likeliest tokens of this probability.")] = 0.95,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same text.")] = 0,
    step: Step = None,
) -> None:
    """Continues a text with a trained model.

    \b
    cupola complete runs/quickstart "def read_lines(path):"
    """
    log.set_up(console=Console(stderr=True))  # standard output holds the text alone
    begin()
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p)
    trained = load(RunFolder.open(run), step)
    print_completion(trained, prompt, limit_tokens=tokens, sampling=sampling, seed=seed)


def print_completion(trained: Trained, prompt: str, *, limit_tokens: int, sampling: Sampling, seed: int) -> None:
    """Prints the prompt and, as it comes, what the model adds, up to its end token."""
    tokenizer = trained.tokenizer
    prompt_tokens = [tokenizer.end, *tokenizer.encode(prompt).tolist()]
    limit_tokens = min(limit_tokens, max(trained.model.max_length - len(prompt_tokens), 1))
    stream = tokenizer.stream()
    # Not the console's print, which would take ":key:" for a picture and tabs for spaces.
    typer.secho(prompt, bold=True, nl=False)
    drawn = completed(
        trained.model,
        trained.params,
        prompt_tokens,
        limit_tokens=limit_tokens,
        sampling=sampling,
        key=jax.random.key(seed),
    )
    for each in drawn:
        if each.token == tokenizer.end:
            break
        typer.echo(stream.feed(each.token), nl=False)
    typer.echo(stream.flush())
