"""`cupola chat`: a conversation in the terminal."""

import contextlib
import itertools
import time
from typing import Annotated

import typer

from cupola.command.engines import Length, options_of, start
from cupola.command.options import begin, say
from cupola.command.source import Products, Source, find, precision_of, sampling_of
from cupola.core.errors import ConfigError
from cupola.interop.open import Pretrained
from cupola.serve.engine import Engine
from cupola.serve.generator import iterate
from cupola.serve.request import Request, Sampling

COMMANDS = "/new begins anew, /quit or Ctrl-D ends, Ctrl-C stops an answer."


def chat(
    model: Source,
    system: Annotated[str | None, typer.Option(help="What the model is told first.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 takes the likeliest token.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Draw from the likeliest tokens of this probability.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same answers.")] = None,
    tokens: Annotated[int, typer.Option(min=1, help="At most so many in an answer.")] = 512,
    length: Length = None,
    precision: Products = "auto",
) -> None:
    """Talks with a model in the terminal.

    \b
    cupola chat smollm2
    """
    begin()
    found = find(model, precision=precision_of(precision))
    if found.template is None:
        raise ConfigError(
            "the model has no chat template: it continues texts", where=model, remedy=f"Type: cupola complete {model}"
        )
    given = {"temperature": temperature, "top_p": top_p, "seed": seed}
    sampling = sampling_of(found)
    for name, value in given.items():
        sampling = sampling if value is None else sampling.replace(name, value)
    with contextlib.closing(start(found, options_of(running=1, length=length, memory=None))) as engine:
        say(COMMANDS)
        talk(engine, found, system=system, sampling=sampling, limit_tokens=tokens)


def talk(engine: Engine, found: Pretrained, *, system: str | None, sampling: Sampling, limit_tokens: int) -> None:
    """Reads questions and prints answers until the input ends."""
    first = [] if system is None else [{"role": "system", "content": system}]
    messages = list(first)
    for number in itertools.count():
        try:
            question = typer.prompt(typer.style("you", bold=True), prompt_suffix="> ")
        except (typer.Abort, EOFError):
            typer.echo()
            return
        match question.strip():
            case "/quit":
                return
            case "/new":
                messages = list(first)
                continue
        messages.append({"role": "user", "content": question})
        answer = _answer(engine, found, messages, sampling, limit_tokens, f"chat-{number}")
        messages.append({"role": "assistant", "content": answer})


def _answer(
    engine: Engine, found: Pretrained, messages: list[dict[str, str]], sampling: Sampling, limit_tokens: int, name: str
) -> str:
    """Prints an answer as it comes, and returns it; Ctrl-C stops it."""
    prompt = found.template.encode(found.tokenizer, messages) if found.template else ()
    room = engine.limits.max_length - len(prompt)
    while room < 1 and len(messages) > 2:
        del messages[1 if messages[0]["role"] == "system" else 0]
        prompt = found.template.encode(found.tokenizer, messages) if found.template else ()
        room = engine.limits.max_length - len(prompt)
    request = Request(
        id=name,
        prompt=prompt,
        limit_tokens=min(limit_tokens, room),
        sampling=sampling,
        stop_tokens=found.stop_tokens,
    )
    said, count, begun, first = "", 0, time.perf_counter(), 0.0
    try:
        for piece in iterate(engine, request):
            first = first or time.perf_counter() - begun
            count += len(piece.tokens)
            said += piece.text
            typer.echo(piece.text, nl=False)
    except KeyboardInterrupt:
        typer.secho(" (stopped)", dim=True, nl=False)
    rate = (count - 1) / max(time.perf_counter() - begun - first, 1e-9) if count > 1 else 0.0
    typer.secho(f"\n{count} tokens, {rate:.0f} tokens/s, first after {1e3 * first:.0f} ms", dim=True)
    return said
