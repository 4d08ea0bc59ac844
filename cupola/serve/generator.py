"""What the server, the router and the language see of an engine, and how they wait for its pieces.

Not here: the engine (`engine.py`). Invariant: whoever stops reading aborts, so that nothing is
generated for nobody.
"""

import asyncio
import dataclasses
import queue
from collections.abc import AsyncIterator, Iterator
from typing import Protocol, runtime_checkable

from cupola.data.tokenizer import Tokenizer
from cupola.interop.template import ChatTemplate
from cupola.serve.request import Piece, Receive, Request, Sampling


@dataclasses.dataclass(frozen=True)
class Stats:
    """What an engine is doing and has done; counters only grow.

    Args:
        running: requests with keys and values in memory.
        waiting: requests in the queue.
        pages: of keys and values in all.
        pages_used: held by running requests.
        pages_cached: held by the prefix cache alone; these can be freed at once.
        prompt_tokens, cached_tokens, completion_tokens, drafted_tokens, accepted_tokens: summed over
            requests.
        steps: of the model.
        retractions: requests that gave up their place and were queued again.
        finished: ended requests by reason.
        step_seconds: spent in steps.
        schedule_seconds: of the engine's thread between steps, when no step was running.
    """

    running: int = 0
    waiting: int = 0
    pages: int = 0
    pages_used: int = 0
    pages_cached: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    steps: int = 0
    retractions: int = 0
    finished: dict[str, int] = dataclasses.field(default_factory=dict)
    step_seconds: float = 0.0
    schedule_seconds: float = 0.0


@runtime_checkable
class Generator(Protocol):
    """Takes requests and answers each with pieces."""

    def submit(self, request: Request, receive: Receive) -> None:
        """Queues a request; `receive` gets its pieces, on another thread.

        Raises:
            RequestError: it cannot be served (too long, unknown adapter, bad grammar, queue full); then
                `receive` is never called.
        """

    def abort(self, request_id: str) -> None:
        """Ends a request with Reason.ABORT; nothing happens where it has ended already."""

    def stats(self) -> Stats:
        """Returns what it is doing, at once, whatever step is running."""


@dataclasses.dataclass(frozen=True)
class Served:
    """A model under the name that clients ask for.

    Args:
        name: what clients send as `model`.
        engine: generates.
        tokenizer: of the model.
        max_length: most tokens of prompt and output together.
        template: turns messages into a prompt; None: the model does not chat.
        begin_tokens: stand before a prompt that is text and no template wrote.
        stop_tokens: ends of turn and document.
        sampling: what holds where a client says nothing.
        adapter: name of the engine's adapter behind this name; None is the base model.
        parent: name of the base model, for an adapter.
        created: seconds since 1970.
    """

    name: str
    engine: Generator
    tokenizer: Tokenizer
    max_length: int
    template: ChatTemplate | None = None
    begin_tokens: tuple[int, ...] = ()
    stop_tokens: frozenset[int] = frozenset()
    sampling: Sampling = Sampling()
    adapter: str | None = None
    parent: str | None = None
    created: int = 0


async def stream(engine: Generator, request: Request) -> AsyncIterator[Piece]:
    """Yields the pieces of a request as they come; leaving the loop early aborts it.

    Raises:
        RequestError: as `Generator.submit`.
    """
    loop = asyncio.get_running_loop()
    arrived: asyncio.Queue[Piece] = asyncio.Queue()

    def receive(piece: Piece) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(arrived.put_nowait, piece)

    engine.submit(request, receive)
    finished = False
    try:
        while not finished:
            piece = await arrived.get()
            finished = piece.finish is not None
            yield piece
    finally:
        if not finished:
            engine.abort(request.id)


def iterate(engine: Generator, request: Request) -> Iterator[Piece]:
    """Yields the pieces of a request as they come, to a thread that may wait; else as `stream`."""
    arrived: queue.SimpleQueue[Piece] = queue.SimpleQueue()
    engine.submit(request, arrived.put)
    finished = False
    try:
        while not finished:
            piece = arrived.get()
            finished = piece.finish is not None
            yield piece
    finally:
        if not finished:
            engine.abort(request.id)
