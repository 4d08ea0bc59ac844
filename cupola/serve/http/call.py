"""One HTTP call: who asks, for what, until when; every route but /health is behind `Guarded`.

Not here: what each route answers (`chat.py`, `completions.py`, ...), the table of routes (`app.py`).
Invariant: no handler runs before the guard knows the caller, and when a call ends, however it ends,
nothing that it asked of an engine goes on.
"""

import asyncio
import base64
import binascii
import collections
import contextlib
import dataclasses
import enum
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import starlette.requests
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from cupola.config.suggest import did_you_mean
from cupola.core.errors import CupolaError
from cupola.serve.errors import Busy, InvalidRequest, NotFound, Unauthorized, Unavailable
from cupola.serve.generator import Served
from cupola.serve.http.answers import Answers
from cupola.serve.http.body import parse, parse_json
from cupola.serve.http.errors import (
    BodyTimedOut,
    ModelNotFound,
    SlowReader,
    TooLarge,
    WrongMediaType,
    as_request_error,
    error_response,
)
from cupola.serve.http.guard import Action, Caller, Guard
from cupola.serve.http.limits import Limits
from cupola.serve.http.metrics import Metrics
from cupola.serve.http.skills import Skilled
from cupola.serve.request import Request

logger = logging.getLogger(__name__)

Record = TypeVar("Record")

_LARGE_BYTES = 65_536
"""Larger bodies are read on another thread, since others wait meanwhile."""


class State(enum.Enum):
    """Whether the server takes requests."""

    SERVING = "serving"
    STOPPING = "stopping"
    """What runs is finished; whatever else comes is refused."""


@dataclasses.dataclass(eq=False)
class Service:
    """What all calls share.

    Args:
        models: by name; adapters come and go.
        guard: asked by every route but /health.
        limits: of each call.
        others: models that hear or speak, by name.
        hosts: names by which the server may be called, in lower case; None: any. Naming them keeps a page
            of another site from reaching a server on this machine through a name that it lets point here.
    """

    models: dict[str, Served]
    guard: Guard
    limits: Limits
    others: Mapping[str, Skilled] = dataclasses.field(default_factory=dict)
    hosts: frozenset[str] | None = None
    state: State = State.SERVING
    calls: "set[Call]" = dataclasses.field(default_factory=set)
    by_caller: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    started: float = dataclasses.field(default_factory=time.time)

    def __post_init__(self):
        self.metrics = Metrics(self.models)

    def halt(self) -> None:
        """Ends every running call with an error that says that the server stops."""
        for call in list(self.calls):
            for answers in call.open:
                answers.fail(stopping())


def stopping() -> Unavailable:
    """The error for whoever asks while the server stops."""
    return Unavailable("the server is shutting down", remedy="Send it again in a while.", retry_after_seconds=5)


@dataclasses.dataclass(eq=False)
class Call:
    """One authenticated call.

    Args:
        service: what all calls share.
        http: headers, query and path as they came; its body has been read.
        caller: who asks.
        body: bytes of a POST.
        value: the JSON object in them, where they are many.
        open: pieces that are waited for; closed when the call ends.
    """

    service: Service
    http: starlette.requests.Request
    caller: Caller
    body: bytes = dataclasses.field(default=b"", repr=False)
    value: dict[str, Any] | None = dataclasses.field(default=None, repr=False)
    open: list[Answers] = dataclasses.field(default_factory=list)

    @property
    def id(self) -> str:
        """The request id, unique, as the answer's x-request-id says it."""
        return self.http.scope["state"]["request_id"]

    @property
    def media_type(self) -> str:
        """What the body is, by its own account; "" where it does not say."""
        return self.http.headers.get("content-type", "").split(";")[0].strip().lower()

    def parse(self, kind: type[Record], refused: dict[str, str] | None = None) -> Record:
        """Returns the body as a record; `refused` gives the reason for fields that cannot be honoured.

        Raises:
            InvalidRequest: the body is something else.
        """
        sent = self.media_type
        if sent != "application/json":
            raise WrongMediaType(
                f"the body is {sent[:100] or 'of no declared type'}",
                remedy="Send it with Content-Type: application/json.",
            )
        return parse(self.body if self.value is None else self.value, kind, refused)

    async def visible(self) -> list[str]:
        """Returns the names of models that the caller may know of."""
        names = {_object(served): name for name, served in self.service.models.items()}
        return [names[object] for object in await self.service.guard.visible(self.caller, names)]

    async def skilled(self) -> list[Skilled]:
        """Returns the models that hear or speak of which the caller may know."""
        names = {f"model:{name}": other for name, other in self.service.others.items()}
        return [names[object] for object in await self.service.guard.visible(self.caller, names)]

    async def model(self, name: str, action: Action) -> Served:
        """Returns the model of this name, for this action.

        Raises:
            ModelNotFound: there is none, or the caller may not know of it.
            Forbidden: the caller may not do this to it.
        """
        # What is asked of the guard before a refusal does not depend on the name, nor does the time that it takes.
        visible = await self.visible()
        served = self.service.models.get(name) if name in visible else None
        if served is not None:
            try:
                await self.service.guard.check(self.caller, action, _object(served))
                return served
            except NotFound:
                visible.remove(name)
        other = next((each for each in await self.skilled() if each.name == name), None)
        if other is not None:
            raise InvalidRequest(
                f"the model {name} {other.skill.value} and does nothing else",
                where="model",
                remedy=f"Send it to {other.skill.path}.",
            )
        raise ModelNotFound(
            f"there is no model {name[:200]!r}", where="model", remedy=did_you_mean(name[:200], visible)
        )

    def namespace(self, salt: str | None = None) -> str:
        """Returns whose cached prefixes are shared: the caller's, divided further by the client's salt."""
        return json.dumps([self.caller.namespace, salt or ""])

    async def answers(self, served: Served, requests: Sequence[Request]) -> Answers:
        """Gives requests to a model's engine and returns their pieces.

        Raises:
            RequestError: the engine refuses one of them.
        """
        metrics = self.service.metrics
        made = Answers(
            served.engine,
            requests,
            window=self.service.limits.window,
            record=lambda times: metrics.generated(served.name, times),
        )
        self.open.append(made)
        await made.start()
        return made


Handler = Callable[[Call], Awaitable[Response]]


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """A row of the table of routes.

    Args:
        method: of HTTP.
        path: in Starlette's notation, such as "/v1/models/{id}".
        handler: answers a call; what it raises becomes an error in OpenAI's shape.
    """

    method: str
    path: str
    handler: Handler


class Guarded:
    """An ASGI application that asks the guard, reads the body and ends the work when the client goes."""

    def __init__(self, service: Service, endpoint: Endpoint):
        self.service, self.endpoint = service, endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["route"] = self.endpoint.path
        http = starlette.requests.Request(scope)
        sending = _bounded(send, self.service.limits.write_seconds)
        try:
            caller = await self.service.guard.authenticate(_credentials(http))
        except CupolaError as error:
            page = "text/html" in http.headers.get("accept", "")
            await error_response(as_request_error(error), page=page)(scope, receive, sending)
            return
        call = Call(self.service, http, caller)
        self.service.by_caller[caller.name] += 1
        self.service.calls.add(call)
        try:
            await self._run(call, receive, sending)
        except SlowReader:
            logger.warning("%s: the client did not read its answer; aborted", call.id)
        finally:
            for answers in call.open:
                answers.close()
            self.service.calls.discard(call)
            self.service.by_caller[caller.name] -= 1
            if not self.service.by_caller[caller.name]:
                del self.service.by_caller[caller.name]

    async def _run(self, call: Call, receive: Receive, send: Send) -> None:
        """Reads the body and answers, unless the client goes before."""
        try:
            self._check_share(call.caller)
            if call.http.method == "POST":
                call.body = await _body(call.http, receive, self.service.limits)
                if len(call.body) > _LARGE_BYTES and not call.media_type.startswith("multipart/"):
                    call.value = await asyncio.to_thread(parse_json, call.body)
        except CupolaError as error:
            await error_response(as_request_error(error))(call.http.scope, receive, send)
            return
        work = asyncio.ensure_future(self._answer(call, receive, send))
        gone = asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            work.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await work

    async def _answer(self, call: Call, receive: Receive, send: Send) -> None:
        try:
            response = await self.endpoint.handler(call)
        except CupolaError as error:
            response = error_response(as_request_error(error))
        await response(call.http.scope, receive, send)

    def _check_share(self, caller: Caller) -> None:
        if self.service.by_caller[caller.name] > self.service.limits.requests_per_caller:
            raise Busy(
                f"{self.service.limits.requests_per_caller} requests of {caller.name} are being answered",
                remedy="Wait for some of them.",
                retry_after_seconds=1,
            )


def _object(served: Served) -> str:
    """What the guard is asked about a model: an adapter is an object of its own."""
    return f"model:{served.name}" if served.adapter is None else f"adapter:{served.name}"


def _credentials(http: starlette.requests.Request) -> str | None:
    """The key in the Authorization header: a bearer token, or the password that a browser asked its user for."""
    kind, _, value = http.headers.get("authorization", "").strip().partition(" ")
    if not kind:
        return None
    if kind.lower() == "bearer":
        return value.strip()
    if kind.lower() == "basic":
        with contextlib.suppress(binascii.Error, UnicodeDecodeError):
            return base64.b64decode(value.strip(), validate=True).decode().partition(":")[2]
    raise Unauthorized("the Authorization header is not understood", remedy="Send Authorization: Bearer KEY.")


async def _body(http: starlette.requests.Request, receive: Receive, limits: Limits) -> bytes:
    too_large = TooLarge(
        f"the body is larger than {limits.body_bytes} bytes", remedy="Send less in one request, or raise the limit."
    )
    declared = http.headers.get("content-length", "")
    if declared.isdigit() and (len(declared) > 18 or int(declared) > limits.body_bytes):
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(limits.body_seconds):
            more = True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise InvalidRequest("the client went before its body had come")
                body += message.get("body", b"")
                if len(body) > limits.body_bytes:
                    raise too_large
                more = message.get("more_body", False)
    except TimeoutError:
        raise BodyTimedOut(
            f"the body had not come after {limits.body_seconds:g} seconds", remedy="Send it faster."
        ) from None
    return bytes(body)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _bounded(send: Send, seconds: float) -> Send:
    async def sending(message: Message) -> None:
        try:
            async with asyncio.timeout(seconds):
                await send(message)
        except TimeoutError:
            raise SlowReader from None

    return sending
