"""A request on its way: to a worker, to another one where the first fails, and its answer back.

Not here: routes (`app.py`), one worker (`workers.py`).
Invariant: a request is sent again only while its client has seen no byte of an answer; a stream that breaks
after that ends with an error object, never silently.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Callable

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from cupola.config.value import Value
from cupola.core.errors import ConfigError
from cupola.serve.errors import InvalidRequest, Unavailable
from cupola.serve.http.call import Call
from cupola.serve.http.errors import REQUEST_ID, error_body
from cupola.serve.http.sse import event
from cupola.serve.router.key import key_of
from cupola.serve.router.measures import Measures
from cupola.serve.router.policy import Choice
from cupola.serve.router.workers import Answer, Lost, Workers

logger = logging.getLogger(__name__)

_ELSEWHERE = (429, 502, 503, 504)
"""Statuses by which a worker says that another may serve."""


class Retry(Value):
    """How often a request is sent again.

    Args:
        attempts: in all, on one worker after the other.
        wait_seconds: before the second attempt; doubled for each that follows, and jittered by half.
        longest_seconds: between two attempts.
    """

    attempts: int = 5
    wait_seconds: float = 0.05
    longest_seconds: float = 2.0

    def check(self) -> None:
        if self.attempts < 1 or self.wait_seconds < 0 or self.longest_seconds < self.wait_seconds:
            raise ConfigError(
                f"attempts={self.attempts}, wait_seconds={self.wait_seconds}, longest_seconds={self.longest_seconds}",
                where="Retry",
                remedy="Use 1 attempt or more, and waits from 0 up to the longest.",
            )

    def pause_seconds(self, attempt: int) -> float:
        """Returns how long to wait after an attempt, counted from 1."""
        usual = min(self.longest_seconds, self.wait_seconds * 2 ** (attempt - 1))
        return usual * random.uniform(0.5, 1.5)


class Forwarder:
    """Sends requests to workers.

    Args:
        workers: which there are.
        choice: among them.
        retry: where one fails.
        measures: of what was sent.
    """

    def __init__(self, workers: Workers, choice: Choice, retry: Retry, measures: Measures):
        self.workers, self.choice, self.retry, self.measures = workers, choice, retry, measures

    async def send(self, call: Call, only: str | None = None) -> Response:
        """Returns what a worker answers to a call.

        Args:
            call: of a client.
            only: address of the one worker that can answer it.

        Raises:
            Unavailable: no worker could be reached.
        """
        key = key_of(call.body, call.http.headers.get("authorization", ""))
        tried: list[str] = []
        refusal: Answer | None = None
        for attempt in range(1, self.retry.attempts + 1):
            url = self._choose(key, tried, only)
            if url is not None:
                tried.append(url)
                outcome = await self._attempt(call, url, key)
                if isinstance(outcome, Passed) and outcome.answer.status not in _ELSEWHERE:
                    return outcome
                if isinstance(outcome, Passed):
                    await outcome.close()
                    refusal = outcome.answer
            if attempt < self.retry.attempts:
                self.measures.retried()
                await asyncio.sleep(self.retry.pause_seconds(attempt))
        if refusal is not None:
            return answered(refusal)
        raise Unavailable(
            f"none of {len(self.workers)} servers answered",
            remedy="Send it again in a while.",
            retry_after_seconds=2,
        )

    async def ask_all(self, call: Call) -> dict[str, Answer]:
        """Returns what each worker that is well answers to a call; those that fail are left out.

        Raises:
            Unavailable: none answered.
        """

        async def one(url: str) -> Answer | None:
            try:
                async with self.workers[url].ask(
                    call.http.method, target(call), call.http.headers, call.body
                ) as answer:
                    return answer
            except (Lost, KeyError):
                return None

        urls = [worker.url for worker in self.workers if worker.healthy]
        answers = await asyncio.gather(*map(one, urls))
        found = {url: answer for url, answer in zip(urls, answers, strict=True) if answer is not None}
        if not found:
            raise Unavailable(
                f"none of {len(self.workers)} servers answered",
                remedy="Send it again in a while.",
                retry_after_seconds=2,
            )
        return found

    def _choose(self, key: str, tried: list[str], only: str | None) -> str | None:
        """Someone who was not tried yet; else someone who was."""
        loads = self.workers.loads(tried) or self.workers.loads()
        if only is not None:
            loads = [load for load in loads if load.name == only]
        if not loads:
            return None
        chosen = self.choice.choose(loads, key)
        self.measures.chosen(chosen, len(key), self.choice.held(chosen, key))
        self.choice.sent(chosen, key)
        return chosen

    async def _attempt(self, call: Call, url: str, key: str) -> "Passed | None":
        stack = contextlib.AsyncExitStack()
        try:
            asked = self.workers[url].ask(call.http.method, target(call), call.http.headers, call.body)
            answer = await stack.enter_async_context(asked)
        except (Lost, KeyError) as error:
            logger.warning("%s: %s", call.id, error)
            self.measures.lost(url)
            # It has begun anew, if it comes back, with an empty cache.
            self.choice.forget(url)
            return None
        self.measures.answered(url, answer.status)
        return Passed(answer, stack, lambda: self.measures.lost(url))


class Passed(Response):
    """A worker's answer, passed on byte for byte, and whole events at a time.

    Args:
        answer: of the worker.
        stack: ends the exchange with it.
        lost: called when it breaks off.
    """

    def __init__(self, answer: Answer, stack: contextlib.AsyncExitStack, lost: Callable[[], None]):
        self.answer, self._stack, self._lost = answer, stack, lost
        self.background, self.status_code = None, answer.status

    async def close(self) -> None:
        """Ends the exchange unread."""
        with contextlib.suppress(Lost):
            await self._stack.aclose()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.answer.rest is None:
            await self.close()
            await answered(self.answer)(scope, receive, send)
            return
        headers = _passed_on(self.answer)
        await send({"type": "http.response.start", "status": self.answer.status, "headers": headers})
        try:
            async with self._stack:
                async for data in _whole_events(self.answer.first, self.answer.rest):
                    await send({"type": "http.response.body", "body": data, "more_body": True})
        except Lost as error:
            logger.warning("%s: broke off: %s", scope["state"]["request_id"], error)
            self._lost()
            told = Unavailable("the server behind this address failed in the middle", remedy="Send it again.")
            await send({"type": "http.response.body", "body": event(error_body(told)), "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def answered(answer: Answer) -> Response:
    """Returns an answer that came whole."""
    response = Response(answer.first, answer.status)
    response.raw_headers = [*_passed_on(answer), (b"content-length", str(len(answer.first)).encode())]
    return response


def told(value: object) -> Response:
    """Returns an answer of the router's own."""
    return Response(orjson.dumps(value), media_type="application/json")


def target(call: Call) -> str:
    """Returns path and query as the client sent them.

    Raises:
        InvalidRequest: it is no path, which would change the address that it is added to.
    """
    scope = call.http.scope
    raw = scope.get("raw_path") or scope["path"].encode()
    query = scope.get("query_string", b"")
    if not raw.startswith(b"/"):
        raise InvalidRequest("the request's target is no path", remedy="Send one that begins with a slash.")
    return raw.decode("latin-1") + (f"?{query.decode('latin-1')}" if query else "")


def _passed_on(answer: Answer) -> list[tuple[bytes, bytes]]:
    # The router's own id stands in its log, and the envelope writes it.
    return [(name, value) for name, value in answer.headers if name.lower() != REQUEST_ID.encode()]


async def _whole_events(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yields the same bytes, cut at the ends of events, so that an error never stands inside one."""
    held = first
    while True:
        end = max(held.rfind(b"\n\n") + 2, held.rfind(b"\r\n\r\n") + 4)
        if end > 3 or held[:2] == b"\n\n":
            yield held[:end]
            held = held[end:]
        try:
            held += await anext(rest)
        except StopAsyncIteration:
            break
    if held:
        yield held
