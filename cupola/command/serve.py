"""`cupola serve`: models behind an OpenAI-compatible API, with a chat page."""

import asyncio
import contextlib
import enum
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from cupola.command.engines import Guessing, Length, Memory, Running, options_of, start
from cupola.command.options import begin, say
from cupola.command.source import Products, find, precision_of, sampling_of
from cupola.core.errors import ConfigError
from cupola.interop.open import Pretrained, Weights
from cupola.serve.admit import Limits
from cupola.serve.generator import Generator, Served
from cupola.serve.http.adapters import WithAdapters
from cupola.serve.http.app import make_app
from cupola.serve.http.guard import Guard, Open
from cupola.serve.http.keys import Keys
from cupola.serve.http.server import Address, Exposure
from cupola.serve.http.server import serve as serve_app
from cupola.serve.router.app import Router, RouterServer, make_router
from cupola.serve.router.replicas import run_replicas
from cupola.serve.speculate import SpeculationKind

Models = Annotated[
    list[str],
    typer.Argument(metavar="MODELS", help="Fetched names, runs' folders, Hugging Face folders, .gguf files."),
]


def serve(
    models: Models,
    host: Annotated[str, typer.Option(help="127.0.0.1 is reached from this machine only.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    keys: Annotated[Path | None, typer.Option(help="File of keys, made with `cupola keys make`.")] = None,
    let_in: Annotated[
        Exposure, typer.Option(help="Who may come in without keys on an open address.")
    ] = Exposure.THIS_MACHINE,
    running: Running = 32,
    length: Length = None,
    memory: Memory = None,
    cache: Annotated[bool, typer.Option(help="Keep and share prefixes of prompts.")] = True,
    speculate: Guessing = SpeculationKind.NONE,
    adapters: Annotated[int, typer.Option(min=0, help="Places for low-rank adapters.")] = 0,
    adapter_rank: Annotated[int, typer.Option(min=1, help="Largest rank of an adapter.")] = 16,
    adapter_folder: Annotated[Path | None, typer.Option(help="Below which clients may load adapters.")] = None,
    draft: Annotated[
        str | None, typer.Option(help="A smaller model of the same tokens, for --speculate draft.")
    ] = None,
    weights: Annotated[Weights, typer.Option(help="Quantized weights: made dense, or kept as stored.")] = Weights.DENSE,
    precision: Products = "auto",
    replicas: Annotated[int, typer.Option(min=1, help="Engine processes behind one address.")] = 1,
    allow_origin: Annotated[list[str] | None, typer.Option(help="A site whose pages may call this server.")] = None,
) -> None:
    """Serves models: an OpenAI-compatible API, a chat page.

    \b
    cupola serve smollm2
    cupola serve runs/quickstart --port 8080
    cupola serve smollm2 --host 0.0.0.0 --keys keys.json
    """
    address = Address(host=host, port=port, exposure=let_in)
    guard: Guard = Open() if keys is None else Keys(keys)
    address.check_guard(guard)
    chosen: dict[str, Any] = {
        "running": running,
        "length": length,
        "memory": memory,
        "cache": cache,
        "speculate": speculate,
        "adapters": adapters,
        "adapter_rank": adapter_rank,
    }
    if replicas > 1:
        own = {"adapter_folder": adapter_folder, "draft": draft, "weights": weights, "precision": precision}
        words = _words(chosen | own)
        _serve_replicas(replicas, address, guard, [*models, *words])
        return
    begin()
    options = options_of(**chosen)
    products = precision_of(precision)
    guesses = None if draft is None else find(draft, precision=products)
    with contextlib.ExitStack() as engines:
        ready = []
        for found in _distinct([find(each, precision=products, weights=weights) for each in models]):
            engine = engines.enter_context(contextlib.closing(start(found, options, guesses)))
            ready.append(served(found, WithAdapters(engine, adapter_folder) if adapters else engine, engine.limits))
        app = make_app(ready, guard=guard, hosts=address.hosts, allow_origins=allow_origin or ())
        _say_where(address)
        serve_app(app, address)


def _distinct(found: list[Pretrained]) -> list[Pretrained]:
    """Returns the models, none of which is called like another."""
    names = [each.name for each in found]
    if len(set(names)) < len(names):
        raise ConfigError(f"two models are called {', '.join(names)}", where="serve", remedy="Rename a folder or file.")
    return found


def served(found: Pretrained, engine: Generator, limits: Limits) -> Served:
    """Returns a model under its name."""
    return Served(
        name=found.name,
        engine=engine,
        tokenizer=found.tokenizer,
        max_length=limits.max_length,
        template=found.template,
        begin_tokens=found.begin_tokens,
        stop_tokens=found.stop_tokens,
        sampling=sampling_of(found),
        created=int(time.time()),
    )


def _say_where(address: Address) -> None:
    if address.port:
        say(
            f"chat at http://{address.host}:{address.port}, API at http://{address.host}:{address.port}/v1; Ctrl-C stops"
        )


def _serve_replicas(count: int, address: Address, guard: Guard, words: list[str]) -> None:
    """Serves from several processes, each of which runs `cupola serve` with these words, behind a router."""
    command = [sys.executable, "-m", "cupola", "serve", *words, "--host", "{host}", "--port", "{port}"]

    async def run() -> None:
        async with run_replicas(command, count) as urls:
            app = make_router(Router(urls), guard=guard, hosts=address.hosts)
            _say_where(address)
            await RouterServer(app, address).serve(sockets=[address.listen()])

    asyncio.run(run())


def _words(options: dict[str, object]) -> list[str]:
    """Returns options as one would type them."""
    words = []
    for name, value in options.items():
        option = "--" + name.replace("_", "-")
        match value:
            case None:
                pass
            case bool():
                words.append(option if value else option.replace("--", "--no-", 1))
            case enum.Enum():
                words += [option, str(value.value)]
            case _:
                words += [option, str(value)]
    return words
