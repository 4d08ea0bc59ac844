"""The pieces of several requests, as they come, in one stream: choices and batches interleave.

Not here: one request alone (`generator.stream`), what is written to the client. Unlike that, requests
are with the engine before the first piece is waited for, so that a refusal still has a status.
Invariant: after `close` the engine works on none of them, whoever was waiting for what.
"""

import asyncio
import functools
import logging
import time
from collections.abc import Callable, Sequence

from cupola.core.errors import CupolaError
from cupola.serve.errors import RequestError, Unavailable
from cupola.serve.generator import Generator
from cupola.serve.http.errors import Internal, TimedOut, as_request_error
from cupola.serve.http.metrics import Times
from cupola.serve.request import Finish, Piece, Reason, Request

logger = logging.getLogger(__name__)


class Answers:
    """Yields (index of the request, piece); a request that fails raises its error.

    Args:
        engine: answers them.
        requests: with ids of their own.
        window: so many are with the engine at the same time; the others follow as these end.
        record: is told the times of each that ended.
    """

    def __init__(self, engine: Generator, requests: Sequence[Request], *, window: int, record: Callable[[Times], None]):
        self._engine, self._requests, self._window, self._record = engine, requests, window, record
        self._loop = asyncio.get_running_loop()
        self._arrived: asyncio.Queue[tuple[int, Piece, float] | RequestError] = asyncio.Queue()
        self._live: set[int] = set()
        self._next = 0
        self._submitted = [0.0] * len(requests)
        self._first: list[float | None] = [None] * len(requests)

    async def start(self) -> None:
        """Gives the first of them to the engine.

        Raises:
            RequestError: the engine refuses one of them.
        """
        while self._next < len(self._requests) and len(self._live) < self._window:
            await self._submit()

    def __aiter__(self) -> "Answers":
        return self

    async def __anext__(self) -> tuple[int, Piece]:
        if not self._live:
            raise StopAsyncIteration
        arrived = await self._arrived.get()
        if isinstance(arrived, RequestError):
            raise arrived
        index, piece, now = arrived
        if piece.tokens and self._first[index] is None:
            self._first[index] = now
        if piece.finish is not None:
            self._live.discard(index)
            tokens = piece.finish.usage.completion_tokens
            self._record(Times(self._submitted[index], self._first[index], now, tokens))
            _check(self._requests[index].id, piece.finish)
            await self.start()
        return index, piece

    async def finishes(self) -> list[Finish]:
        """Waits for all of them and returns how each ended, in the order of the requests."""
        ended: dict[int, Finish] = {}
        async for index, piece in self:
            if piece.finish is not None:
                ended[index] = piece.finish
        return [ended[index] for index in range(len(self._requests))]

    def fail(self, error: RequestError) -> None:
        """Ends the waiting for further pieces with an error."""
        self._arrived.put_nowait(error)

    def close(self) -> None:
        """Aborts whatever has not ended."""
        self._next = len(self._requests)
        while self._live:
            self._engine.abort(self._requests[self._live.pop()].id)

    async def _submit(self) -> None:
        index = self._next
        request = self._requests[index]
        self._next += 1
        self._submitted[index] = time.monotonic()
        receive = functools.partial(self._receive, index)
        if request.grammar is None:
            self._engine.submit(request, receive)
            self._live.add(index)
            return
        # A grammar is compiled first, which takes longer than anybody else should wait.
        submitting = asyncio.ensure_future(asyncio.to_thread(self._engine.submit, request, receive))
        try:
            await asyncio.shield(submitting)
        except asyncio.CancelledError:
            submitting.add_done_callback(functools.partial(self._forget, request.id))
            raise
        self._live.add(index)

    def _forget(self, request_id: str, submitted: "asyncio.Future[None]") -> None:
        if submitted.exception() is None:
            self._engine.abort(request_id)

    def _receive(self, index: int, piece: Piece) -> None:
        """Called on the engine's thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._arrived.put_nowait, (index, piece, time.monotonic()))


def _check(request_id: str, finish: Finish) -> None:
    if finish.reason is Reason.TIMEOUT:
        raise TimedOut("the answer was not ready in time", remedy="Ask for fewer tokens, or again when less is asked.")
    if finish.reason is Reason.ABORT:
        raise Unavailable("the request was aborted", remedy="Send it again.", retry_after_seconds=1)
    if finish.reason is Reason.ERROR:
        if not isinstance(finish.error, CupolaError):
            logger.error("%s: the engine failed", request_id, exc_info=finish.error)
        raise as_request_error(finish.error) if finish.error else Internal("the engine failed without a reason")
