"""Engines for commands: options from the shell, a start that shows what it is doing.

Not here: the engine (`serve/engine.py`).
"""

import re
import time
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from cupola.command.options import CONSOLE, say
from cupola.core.errors import ConfigError
from cupola.interop.open import Pretrained
from cupola.serve.admit import Cache
from cupola.serve.engine import Engine
from cupola.serve.options import Options
from cupola.serve.shapes import Shape
from cupola.serve.speculate import Speculation, SpeculationKind

Length = Annotated[int | None, typer.Option(help="Most tokens of prompt and answer; what the model can, if not given.")]
Memory = Annotated[str | None, typer.Option(help="For keys and values, such as 2GB; a part of what is free.")]
Running = Annotated[int, typer.Option(min=1, help="Requests that run at once.")]
Guessing = Annotated[SpeculationKind, typer.Option(help="Guess ahead: from the text itself, or with --draft.")]

_UNITS = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def bytes_of(text: str) -> int:
    """Returns a number of bytes from a text such as "2GB" or "512MiB".

    Raises:
        ConfigError: it is none.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower())
    if found is None or found[2] not in _UNITS:
        raise ConfigError(f"{text!r} is no amount of memory", where="--memory", remedy="Write such as 2GB or 512MB.")
    return int(float(found[1]) * _UNITS[found[2]])


def options_of(
    *,
    running: int,
    length: int | None,
    memory: str | None,
    cache: bool = True,
    speculate: SpeculationKind = SpeculationKind.NONE,
    adapters: int = 0,
    adapter_rank: int = 16,
) -> Options:
    """Returns the options of an engine as the shell gave them."""
    return Options(
        max_running=running,
        max_length=length,
        memory_bytes=None if memory is None else bytes_of(memory),
        cache=Cache.ON if cache else Cache.OFF,
        speculation=Speculation(kind=speculate),
        adapters=adapters,
        adapter_rank=adapter_rank,
    )


def start(found: Pretrained, options: Options, draft: Pretrained | None = None) -> Engine:
    """Returns an engine that has begun, and shows the compilations that this takes.

    Raises:
        ConfigError: the draft model has other tokens.
    """
    begun = time.perf_counter()
    guesses = None
    if draft is not None:
        if draft.tokenizer.fingerprint != found.tokenizer.fingerprint:
            raise ConfigError(
                f"{draft.name} splits text otherwise than {found.name}",
                where="--draft",
                remedy="Name a smaller model of the same family, with the same tokenizer.",
            )
        guesses = draft.model, draft.params
    engine = Engine(found.model, found.params, found.tokenizer, options, stop_tokens=found.stop_tokens, draft=guesses)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, TimeElapsedColumn(), console=CONSOLE, transient=True) as shown:
        task = shown.add_task("compiling", total=len(engine.shapes.essential))

        def progress(shape: Shape, number: int, total: int) -> None:
            shown.update(task, completed=number, description=f"compiling a step of {shape} tokens")

        engine.start(progress)
    tokens = engine.limits.pool_tokens
    say(
        f"{found.name}: {found.model.count() / 1e6:.0f}M parameters, context {engine.limits.max_length:,}, "
        f"room for {tokens:,} tokens, ready in {time.perf_counter() - begun:.1f} s"
    )
    return engine
