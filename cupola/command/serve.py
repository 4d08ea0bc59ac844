"""`cupola serve`: models behind an OpenAI-compatible API, with a chat page."""

import asyncio
import contextlib
import enum
import importlib
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer

from cupola.command.audio import open_audio
from cupola.command.engines import Guessing, Length, Memory, Running, options_of, start
from cupola.command.keys import FILE
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
    list[str] | None,
    typer.Argument(metavar="MODELS", help="Fetched names, runs' folders, Hugging Face folders, .gguf files."),
]

Access = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="Permission graph: a file, or a postgresql:// address.")
]
LetIn = Annotated[Exposure, typer.Option(help="Who may come in without keys on an open address.")]
Hear = Annotated[
    list[str] | None, typer.Option(metavar="WHISPER", help="A model that hears: a fetched name, or a folder.")
]
Speak = Annotated[list[str] | None, typer.Option(metavar="VOICE", help="A voice: a run's folder, or a voice file.")]
Draft = Annotated[str | None, typer.Option(help="A smaller model of the same tokens, for --speculate draft.")]


def serve(
    models: Models = None,
    hear: Hear = None,
    speak: Speak = None,
    host: Annotated[str, typer.Option(help="127.0.0.1 is reached from this machine only.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    keys: Annotated[Path | None, typer.Option(help="File of keys, made with `cupola keys make`.")] = None,
    access: Access = None,
    let_in: LetIn = Exposure.THIS_MACHINE,
    running: Running = 32,
    length: Length = None,
    memory: Memory = None,
    cache: Annotated[bool, typer.Option(help="Keep and share prefixes of prompts.")] = True,
    speculate: Guessing = SpeculationKind.NONE,
    adapters: Annotated[int, typer.Option(min=0, help="Places for low-rank adapters.")] = 0,
    adapter_rank: Annotated[int, typer.Option(min=1, help="Largest rank of an adapter.")] = 16,
    adapter_folder: Annotated[Path | None, typer.Option(help="Below which clients may load adapters.")] = None,
    draft: Draft = None,
    weights: Annotated[Weights, typer.Option(help="Quantized weights: made dense, or kept as stored.")] = Weights.AUTO,
    precision: Products = "auto",
    replicas: Annotated[int, typer.Option(min=1, help="Engine processes behind one address.")] = 1,
    allow_origin: Annotated[list[str] | None, typer.Option(help="A site whose pages may call this server.")] = None,
) -> None:
    """Serves models: an OpenAI-compatible API, a chat page.

    \b
    cupola serve smollm2
    cupola serve runs/quickstart --port 8080
    cupola serve smollm2 --host 0.0.0.0 --keys keys.json
    cupola serve smollm2 --access access.db
    cupola serve --hear whisper-base --speak crier.safetensors
    """
    _check_some(models, hear, speak)
    address = Address(host=host, port=port, exposure=let_in)
    address.check_guard(guard := _guard(keys, access, let_in))
    chosen: dict[str, Any] = {"running": running, "length": length, "memory": memory, "cache": cache}
    chosen |= {"speculate": speculate, "adapters": adapters, "adapter_rank": adapter_rank}
    options = options_of(**chosen)
    address.listen().close()  # What cannot be is said before a model is read.
    if replicas > 1:
        _refuse_behind_router(allow_origin, hear, speak)
        own = {"adapter_folder": adapter_folder, "draft": draft, "weights": weights, "precision": precision}
        # The router knows who calls; what a key may do, and whose prefixes it shares, is decided where models are.
        words = [*(models or ()), *_words(chosen | own | {"keys": keys, "access": access})]
        _serve_replicas(replicas, address, guard, words)
        return
    begin()
    products = precision_of(precision)
    guesses = None if draft is None else find(draft, precision=products)
    writing = [find(each, precision=products, weights=weights) for each in models or ()]
    audio = open_audio(hear, speak, products)
    _check_names([*(each.name for each in writing), *audio.names], access)
    with contextlib.ExitStack() as engines:
        ready = []
        for found in writing:
            engine = engines.enter_context(contextlib.closing(start(found, options, guesses)))
            ready.append(served(found, WithAdapters(engine, adapter_folder) if adapters else engine, engine.limits))
        more = audio.warmed() | {"guard": guard, "hosts": address.hosts, "allow_origins": allow_origin or ()}
        _say_where(address)
        serve_app(make_app(ready, **more), address)


def _guard(keys: Path | None, access: str | None, let_in: Exposure) -> Guard:
    """Returns who decides who may do what.

    Raises:
        ConfigError: what was asked for contradicts itself, or cannot be read.
    """
    if keys is None and access is None:
        return Open()
    if let_in is Exposure.ANYONE:
        raise ConfigError(
            "everyone is to be let in, and keys are asked for", where="--let-in", remedy="Leave out one of them."
        )
    file = FILE if keys is None else keys
    if access is None:
        return Keys(file)
    if not file.exists():
        raise ConfigError(
            "nobody has a key yet",
            where=str(file),
            remedy=f"Type: cupola keys make ada --subject user:ada --file {file}",
        )
    return _joining().open_guard(access, file, say=say)


def _refuse_behind_router(allow_origin: list[str] | None, hear: list[str] | None, speak: list[str] | None) -> None:
    if allow_origin:
        raise ConfigError(
            "the router lets no pages of other sites in", where="--allow-origin", remedy="Leave it out, or --replicas."
        )
    if hear:
        raise ConfigError("the router passes no recordings on", where="--hear", remedy="Leave it out, or --replicas.")
    if speak:
        raise ConfigError("the router passes no sound on", where="--speak", remedy="Leave it out, or --replicas.")


def _joining() -> ModuleType:
    """The module that joins serving and the permission graph, which needs packages of its own.

    Raises:
        ConfigError: they are not installed.
    """
    try:
        return importlib.import_module("cupola.recipes.guard")
    except ModuleNotFoundError as error:
        if str(error.name).split(".")[0] == "cupola":
            raise
        raise ConfigError(
            f"the package {error.name} is not installed",
            where="--access",
            remedy=f"Type: {sys.executable} -m pip install 'cupola[serve,access]'",
        ) from None


def _check_some(*asked: list[str] | None) -> None:
    if not any(asked):
        raise ConfigError("there is nothing to serve", where="MODELS", remedy="Type such as: cupola serve smollm2")


def _check_names(names: list[str], access: str | None) -> None:
    """Checks that no two models have one name, and says what they are called in the permission graph."""
    if len(set(names)) < len(names):
        raise ConfigError(f"two models are called {', '.join(names)}", where="serve", remedy="Rename a folder or file.")
    for name in names if access is not None else ():
        say(f"{name} is model:{_joining().object_id(name)} in the permission graph")


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
