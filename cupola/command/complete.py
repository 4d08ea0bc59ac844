"""`cupola complete`: a trained model goes on with a text."""

from pathlib import Path
from typing import Annotated

import jax
import typer

from cupola.command.options import CONSOLE, begin
from cupola.models.completion import Sampling
from cupola.models.completion import complete as completed
from cupola.train.folder import RunFolder
from cupola.train.load import Trained, load


def complete(
    run: Annotated[Path, typer.Argument(help="Folder of the run, such as runs/quickstart.")],
    prompt: Annotated[str, typer.Argument(help="The text to go on with.")] = "",
    tokens: Annotated[int, typer.Option(help="At most so many tokens.")] = 200,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token.")] = 0.8,
    top_k: Annotated[int | None, typer.Option(help="Draw from so many of the likeliest tokens.")] = None,
    top_p: Annotated[float, typer.Option(help="Draw from the likeliest tokens of this probability.")] = 0.95,
    seed: Annotated[int, typer.Option(help="The same seed gives the same text.")] = 0,
    step: Annotated[int | None, typer.Option(help="Of the checkpoint; the latest if not given.")] = None,
) -> None:
    """Continues a text with a trained model, streaming."""
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
    CONSOLE.print(prompt, style="bold", end="", highlight=False, markup=False, soft_wrap=True)
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
        CONSOLE.print(stream.feed(each.token), end="", highlight=False, markup=False, soft_wrap=True)
        CONSOLE.file.flush()
    CONSOLE.print(stream.flush(), highlight=False, markup=False, soft_wrap=True)
