"""One call: who asks, with what body, of whose graph; and the table's rows, which answer it.

Not here: what the rows do, what stands around every call (`envelope.py`).
Invariant: no handler runs before the caller is known and of the row's role; when the client goes, what it waited for
is let go.
"""

import asyncio
import base64
import binascii
import contextlib
import dataclasses
import enum
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, TypeVar

import starlette.requests
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from cupola.access.decision import Decision
from cupola.access.errors import AccessError, InvalidArgument, Unauthenticated
from cupola.access.graph import Graph
from cupola.access.server.audit import Audit
from cupola.access.server.http.body import check_media_type, parse
from cupola.access.server.http.bounds import Bounds
from cupola.access.server.http.errors import BodyLate, SlowReader, TooLarge, as_access_error, error_response
from cupola.access.server.http.metrics import Metrics
from cupola.access.server.http.workers import Workers
from cupola.access.server.identity import Authenticator, Everybody, Identity, Role, bearer
from cupola.access.server.keys import Keys
from cupola.access.server.quota import Quota, Spending, Work
from cupola.access.server.stores import Stores
from cupola.access.server.tenants import Tenants

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")
Record = TypeVar("Record")


class State(enum.Enum):
    """Whether the server takes on new calls."""

    SERVING = "serving"
    STOPPING = "stopping"


@dataclasses.dataclass(eq=False)
class Service:
    """What all calls share.

    Args:
        tenants: whose graphs.
        authenticator: asked by every route but the open ones of `app.py`.
        audit: told of writes and of a sample of decisions.
        bounds: of each call.
        quota: of each tenant.
        hosts: names by which the server may be called, in lower case; None: any. Naming them keeps a page of
            another site from reaching a server on this machine through a name that it lets point here.
        base_url: under which clients know the server; "": as they called it.
    """

    tenants: Tenants
    authenticator: Authenticator
    audit: Audit = dataclasses.field(default_factory=Audit)
    bounds: Bounds = Bounds()
    quota: Quota = dataclasses.field(default_factory=Quota)
    hosts: frozenset[str] | None = None
    base_url: str = ""
    state: State = State.SERVING
    running: int = 0

    def __post_init__(self) -> None:
        bounds = self.bounds
        self.stores = Stores(self.tenants)
        self.workers = Workers("questions", threads=bounds.workers, waiting=bounds.waiting, seconds=bounds.seconds)
        self.watchers = Workers("watchers", threads=bounds.watchers, waiting=0, seconds=bounds.seconds)
        # Of the playground's own: what strangers try out there must not hold up the questions of others.
        self.scratch = Workers("playgrounds", threads=1, waiting=8, seconds=bounds.seconds)
        self.metrics = Metrics()
        self.metrics.watch("http_running", "HTTP requests under way.", lambda: self.running)
        self.metrics.watch("graphs_open", "Tenants whose graph is open.", lambda: len(self.tenants))
        self.metrics.watch("workers_taken", "Questions under way or waiting.", lambda: self.workers.taken)
        self.metrics.watch("watchers", "Clients that watch.", lambda: self.watchers.taken)
        self.metrics.watch("audit_left_out", "Decisions that the audit log left out.", lambda: self.audit.left_out)

    def close(self) -> None:
        """Ends the threads."""
        for workers in (self.workers, self.watchers, self.scratch):
            workers.close()


@dataclasses.dataclass(eq=False)
class Call:
    """One authenticated call.

    Args:
        service: what all calls share.
        http: headers, query and path as they came; its body has been read.
        caller: who asks.
        body: bytes of it.
    """

    service: Service
    http: starlette.requests.Request
    caller: Identity
    body: bytes = dataclasses.field(default=b"", repr=False)

    @property
    def id(self) -> str:
        """The request's id, as the answer says it."""
        return self.http.scope["state"]["request_id"]

    def parse(self, kind: type[Record]) -> Record:
        """Returns the body as a record.

        Raises:
            InvalidArgument: the body is something else.
            WrongMediaType: it says that it is not JSON.
        """
        if self.body:
            check_media_type(self.http.headers.get("content-type", ""))
        return parse(self.body, kind)

    def query(self, *known: str) -> dict[str, str]:
        """Returns the query's parameters, each once.

        Raises:
            InvalidArgument: one is unknown, or stands twice.
        """
        found: dict[str, str] = {}
        for name, value in self.http.query_params.multi_items():
            if name not in known or name in found:
                problem = "stands twice" if name in found else "is no parameter here"
                raise InvalidArgument(
                    f"{name[:100]!r} {problem}", where=name[:100], remedy=f"There are: {', '.join(known) or 'none'}."
                )
            found[name] = value
        return found

    async def ask(self, task: Callable[[Graph], Answer], tenant: str = "") -> Answer:
        """Returns what a task returns, which is given a tenant's graph on a worker's thread.

        Args:
            tenant: "": the caller's own.
        """

        def run() -> Answer:
            with self.service.tenants.graph(tenant or self.caller.tenant) as graph:
                return task(graph.within(self.service.bounds.seconds))

        return await self.service.workers.run(run)

    def stream(self, task: Callable[[Graph], Iterator[Answer]], tenant: str = "") -> AsyncIterator[list[Answer]]:
        """Yields what a task's iterator yields, some at a time; the graph is held until it ends."""

        def run() -> Iterator[Answer]:
            with self.service.tenants.graph(tenant or self.caller.tenant) as graph:
                yield from task(graph)

        return self.service.workers.stream(run())

    def spend(self, spending: Spending, amount: int) -> None:
        """Takes from what the caller's tenant has left.

        Raises:
            OverQuota: nothing is left.
        """
        self.service.quota.spend(self.caller.tenant, spending, amount)

    def decided(self, decision: Decision, question: str, tenant: str = "") -> None:
        """Counts an answer to a check, and tells the audit log."""
        self.service.metrics.decided(decision)
        if self.service.audit.samples():
            told = {"question": question, "verdict": decision.verdict.value, "revision": decision.revision}
            self.service.audit.write("decision", **self._who(tenant), **told)

    def wrote(self, kind: str, tenant: str = "", *, updates: int = 0, **facts: Any) -> None:
        """Counts a write, and tells the audit log."""
        self.service.metrics.wrote(updates)
        self.service.audit.write(kind, **self._who(tenant), **facts)

    def _who(self, tenant: str) -> dict[str, Any]:
        return {"request": self.id, "by": self.caller.name, "tenant": tenant or self.caller.tenant}


Handler = Callable[[Call], Awaitable[Response]]


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """A row of the table of routes.

    Args:
        method: of HTTP.
        path: in Starlette's notation, such as "/v1/check".
        role: that a caller must have.
        handler: answers a call.
        refuse: how an error is written.
        work: how long a call goes on.
    """

    method: str
    path: str
    role: Role
    handler: Handler
    refuse: Callable[[AccessError], Response] = error_response
    work: Work = Work.CALLS


class Guarded:
    """An ASGI application that knows the caller, reads the body, and ends the work when the client goes."""

    def __init__(self, service: Service, endpoint: Endpoint):
        self.service, self.endpoint = service, endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["route"] = self.endpoint.path
        http = starlette.requests.Request(scope)
        sending = _bounded(send, self.service.bounds.write_seconds)
        self.service.running += 1
        try:
            caller = await self._caller(http)
            caller.require(self.endpoint.role)
            with self.service.quota.working(caller.tenant, self.endpoint.work):
                call = Call(self.service, http, caller, await _body(http, receive, self.service.bounds))
                call.spend(Spending.QUESTIONS, 1)
                await self._run(call, receive, sending)
        except AccessError as error:
            page = "text/html" in http.headers.get("accept", "") and isinstance(error, Unauthenticated)
            answer = error_response(error, page=True) if page else self.endpoint.refuse(error)
            await answer(scope, receive, sending)
        finally:
            self.service.running -= 1

    async def _caller(self, http: starlette.requests.Request) -> Identity:
        ways, credential = self.service.authenticator, _credential(http)
        # On a thread where it may have to ask somebody else for keys.
        quick = isinstance(ways, Everybody | Keys)
        return ways.authenticate(credential) if quick else await asyncio.to_thread(ways.authenticate, credential)

    async def _run(self, call: Call, receive: Receive, send: Send) -> None:
        work = asyncio.ensure_future(self._answer(call, receive, send))
        gone = asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            if not work.done():
                work.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await work

    async def _answer(self, call: Call, receive: Receive, send: Send) -> None:
        try:
            response = await self.endpoint.handler(call)
        except Exception as error:
            if not isinstance(error, AccessError):
                logger.exception("%s: %s %s failed", call.id, call.http.method, call.http.url.path)
            response = self.endpoint.refuse(as_access_error(error))
        await response(call.http.scope, receive, send)


def _credential(http: starlette.requests.Request) -> str:
    """What the Authorization header brings: a bearer token, or the password that a browser asked its user for."""
    header = http.headers.get("authorization", "")
    kind, _, value = header.strip().partition(" ")
    if kind.lower() == "basic":
        with contextlib.suppress(binascii.Error, UnicodeDecodeError):
            return base64.b64decode(value.strip(), validate=True).decode().partition(":")[2]
    return bearer(header)


async def _body(http: starlette.requests.Request, receive: Receive, bounds: Bounds) -> bytes:
    too_large = TooLarge(
        f"the body is larger than {bounds.body_bytes} bytes", where="body", remedy="Send less in one request."
    )
    declared = http.headers.get("content-length", "")
    if declared.isdigit() and (len(declared) > 18 or int(declared) > bounds.body_bytes):
        raise too_large
    body, began = bytearray(), time.monotonic()
    try:
        async with asyncio.timeout(bounds.body_seconds):
            more = True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise InvalidArgument("the client went before its body had come", where="body")
                body += message.get("body", b"")
                if len(body) > bounds.body_bytes:
                    raise too_large
                more = message.get("more_body", False)
    except TimeoutError:
        took = time.monotonic() - began
        raise BodyLate(f"the body had not come after {took:.0f} seconds", where="body", remedy="Send faster.") from None
    return bytes(body)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _bounded(send: Send, seconds: float | int) -> Send:
    async def sending(message: Message) -> None:
        try:
            async with asyncio.timeout(seconds):
                await send(message)
        except TimeoutError:
            raise SlowReader from None

    return sending
