"""The servers behind a router: which of them can take a request, and one exchange with one of them.

Not here: which is chosen (`policy.py`), what a client is told (`app.py`).
Invariant: a worker that fails repeatedly is left alone for a while, then tried with one request.
The client is httpx2: kept up, asynchronous, and it gives an answer's bytes as they come.
"""

import asyncio
import contextlib
import dataclasses
import enum
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator, Mapping
from typing import TypeVar

import httpx2

from cupola.config.suggest import did_you_mean
from cupola.config.value import Value
from cupola.core.errors import ConfigError
from cupola.serve.router.policy import Load

logger = logging.getLogger(__name__)

Given = TypeVar("Given")

_HOP = {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "upgrade"}
_HOP |= {"transfer-encoding", "host", "content-length", "expect", "date", "server"}
"""Headers about one connection, which are not passed on."""


class Watch(Value):
    """How workers are watched, and when they are left alone.

    Args:
        every_seconds: between questions to /health.
        health_seconds: that an answer to it may take.
        unhealthy_after: failed questions in a row that take a worker out; one good answer brings it back.
        broken_after: failed requests in a row that take it out, whatever it says of its health.
        broken_seconds: for which it is left alone then, before one request is tried.
        connect_seconds: that a connection may take.
    """

    every_seconds: float = 2.0
    health_seconds: float = 5.0
    unhealthy_after: int = 3
    broken_after: int = 3
    broken_seconds: float = 10.0
    connect_seconds: float = 5.0

    def check(self) -> None:
        for name in ("every_seconds", "health_seconds", "broken_seconds", "connect_seconds"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name}={getattr(self, name)} is no time", where=name, remedy="Use more than 0.")
        for name in ("unhealthy_after", "broken_after"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)}", where=name, remedy="Use 1 or more.")


class Circuit(enum.Enum):
    """Whether requests are sent to a worker."""

    CLOSED = "closed"
    """They are."""
    OPEN = "open"
    """They are not."""
    TRIAL = "trial"
    """One is, and decides."""


class Lost(Exception):
    """A worker did not answer, or broke off its answer."""


@dataclasses.dataclass
class Answer:
    """What a worker answers.

    Args:
        status: of HTTP.
        headers: without those about the connection.
        first: the first bytes of a stream, or all bytes of what is none.
        rest: more bytes; None: there are none.
    """

    status: int
    headers: list[tuple[bytes, bytes]]
    first: bytes
    rest: AsyncIterator[bytes] | None = None


class Worker:
    """One server.

    Args:
        url: without a path.
        watch: how it is watched.
    """

    def __init__(self, url: str, watch: Watch):
        self.url, self._watch = url, watch
        self.running = 0
        self.healthy = True
        self.circuit = Circuit.CLOSED
        self._failed_questions = self._failed_requests = 0
        self._open_until = 0.0
        self._trying = False
        self._gone = asyncio.Event()
        """Set when it is found unhealthy: whoever waits for it waits no longer."""
        timeout = httpx2.Timeout(None, connect=watch.connect_seconds)
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=128)
        self._client = httpx2.AsyncClient(timeout=timeout, limits=limits, trust_env=False)
        for name in ("accept", "accept-encoding", "user-agent"):
            del self._client.headers[name]  # what the client sends is passed on, and nothing in its name

    @property
    def takes(self) -> bool:
        """Whether it can be sent a request now."""
        if self.circuit is Circuit.OPEN and time.monotonic() >= self._open_until:
            self.circuit, self._trying = Circuit.TRIAL, False
        return self.healthy and (self.circuit is Circuit.CLOSED or (self.circuit is Circuit.TRIAL and not self._trying))

    @contextlib.asynccontextmanager
    async def ask(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> AsyncIterator[Answer]:
        """Gives what it answers to a request; leaving ends the request there.

        Args:
            method: of HTTP.
            target: path and query.
            headers: of the client; those about its connection are left out.
            body: of the request.

        Raises:
            Lost: it did not answer, or not to the end; also while `rest` is read.
        """
        sent = [(name, value) for name, value in headers.items() if name.lower() not in _HOP]
        request = self._client.build_request(method, self.url + target, headers=sent, content=body)
        self.running += 1
        self._trying = self.circuit is Circuit.TRIAL
        response: httpx2.Response | None = None
        try:
            response = await self._unless_gone(self._client.send(request, stream=True))
            yield await self._begun(response)
            self._answered()
        except (httpx2.TransportError, Lost) as error:
            self._lost(error)
            raise Lost(f"{self.url}: {type(error).__name__}: {error}") from None
        finally:
            self.running -= 1
            self._trying = False
            if response is not None:
                await response.aclose()

    async def question(self) -> None:
        """Asks for its health, and notes the answer."""
        try:
            response = await self._client.get(f"{self.url}/health", timeout=self._watch.health_seconds)
            good = response.status_code == 200
        except httpx2.TransportError:
            good = False
        self._failed_questions = 0 if good else self._failed_questions + 1
        if good:
            if not self.healthy:
                logger.info("%s is well again", self.url)
                self._gone = asyncio.Event()
            self.healthy = True
        elif self._failed_questions >= self._watch.unhealthy_after and self.healthy:
            logger.warning("%s is not well: it gets no more requests", self.url)
            self.healthy = False
            self._gone.set()

    async def close(self) -> None:
        """Ends its connections."""
        self._gone.set()
        await self._client.aclose()

    async def _begun(self, response: httpx2.Response) -> Answer:
        """The answer from its first bytes on: until there are some, another worker can still be asked."""
        headers = [(k, v) for k, v in response.headers.raw if k.decode("latin-1").lower() not in _HOP]
        if response.headers.get("content-type", "").startswith("text/event-stream") and response.is_success:
            rest = response.aiter_raw()
            try:
                first = await self._unless_gone(anext(rest))
            except StopAsyncIteration:
                raise Lost("its stream ended before it began") from None
            return Answer(response.status_code, headers, first, self._watched(rest))
        parts = [part async for part in self._watched(response.aiter_raw())]
        return Answer(response.status_code, headers, b"".join(parts))

    async def _watched(self, parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        while True:
            try:
                yield await self._unless_gone(anext(parts))
            except StopAsyncIteration:
                return

    async def _unless_gone(self, wanted: Awaitable[Given]) -> Given:
        """What is waited for, unless the worker is found gone before."""
        task = asyncio.ensure_future(wanted)
        gone = asyncio.ensure_future(self._gone.wait())
        try:
            await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise Lost("it is not well")
            return task.result()
        finally:
            gone.cancel()
            if not task.done():
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, httpx2.TransportError):
                    await task

    def _answered(self) -> None:
        self._failed_requests = 0
        self.circuit = Circuit.CLOSED

    def _lost(self, error: Exception) -> None:
        self._failed_requests += 1
        if self._failed_requests >= self._watch.broken_after or self.circuit is Circuit.TRIAL:
            logger.warning("%s failed: left alone for %g s (%s)", self.url, self._watch.broken_seconds, error)
            self.circuit = Circuit.OPEN
            self._open_until = time.monotonic() + self._watch.broken_seconds


class Workers:
    """Those behind one router; they come and go while it runs.

    Args:
        urls: of the first ones, such as "http://127.0.0.1:8001".
        watch: how they are watched.

    Raises:
        ConfigError: one of them is no address, or stands twice.
    """

    def __init__(self, urls: Iterable[str], watch: Watch = Watch()):
        self.watch = watch
        self._by_url: dict[str, Worker] = {}
        self._closing: set[asyncio.Task[None]] = set()
        for url in urls:
            self.add(url)

    def __iter__(self) -> Iterator[Worker]:
        return iter(list(self._by_url.values()))

    def __len__(self) -> int:
        return len(self._by_url)

    def __contains__(self, url: object) -> bool:
        return url in self._by_url

    def __getitem__(self, url: str) -> Worker:
        return self._by_url[url]

    def add(self, url: str) -> Worker:
        """Adds a worker and returns it.

        Raises:
            ConfigError: it is no address, or there already.
        """
        plain = checked_url(url)
        if plain in self._by_url:
            raise ConfigError(f"{plain} is there already", where="url", remedy="Leave it out.")
        self._by_url[plain] = Worker(plain, self.watch)
        return self._by_url[plain]

    def remove(self, url: str) -> Worker:
        """Takes a worker out: it gets no more requests, and finishes what it has.

        Raises:
            ConfigError: there is none of this address.
        """
        plain = url.rstrip("/")
        if plain not in self._by_url:
            raise ConfigError(f"there is no worker {url!r}", where="url", remedy=did_you_mean(url, self._by_url))
        worker = self._by_url.pop(plain)
        closing = asyncio.ensure_future(_close_idle(worker))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        return worker

    def loads(self, without: Iterable[str] = ()) -> list[Load]:
        """Returns those that can take a request now, save some."""
        left_out = set(without)
        return [Load(w.url, w.running) for w in self if w.url not in left_out and w.takes]

    async def keep_asking(self) -> None:
        """Asks for everyone's health again and again, until cancelled."""
        while True:
            await asyncio.gather(*(worker.question() for worker in self))
            await asyncio.sleep(self.watch.every_seconds)

    async def close(self) -> None:
        """Ends all connections."""
        for task in list(self._closing):
            task.cancel()
        await asyncio.gather(*(worker.close() for worker in self))


def checked_url(url: str) -> str:
    """Returns the address of a worker without a slash at its end.

    Raises:
        ConfigError: it is no http address, or has a path.
    """
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL:
        parsed = httpx2.URL("")
    if parsed.scheme not in ("http", "https") or not parsed.host or parsed.path not in ("", "/") or parsed.query:
        raise ConfigError(f"{url!r} is no address of a worker", where="url", remedy="Use http://127.0.0.1:8001 or so.")
    return url.rstrip("/")


async def _close_idle(worker: Worker) -> None:
    while worker.running:
        await asyncio.sleep(0.1)
    await worker.close()
