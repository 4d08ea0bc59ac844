"""Clients of a server, ours or SpiceDB: one that waits, and one for asyncio, of the same methods.

Not here: the requests (`calls.py`), where each method is described.
Invariant: which of the two a program has is what it says, never whether a loop happens to run. A token travels in
the clear only where that was allowed in words. What the server refuses is raised as the error that it was.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Concatenate, ParamSpec, TypeVar

import grpc
import grpc.aio
from authzed.api.v1 import permission_service_pb2_grpc, schema_service_pb2_grpc, watch_service_pb2_grpc
from google.rpc import status_pb2

from cupola.access import calls
from cupola.access.calls import Asked, Followed, Sending
from cupola.access.errors import AccessError, InvalidArgument
from cupola.access.server.grpc.status import DETAILS, read_error
from cupola.access.server.tls import Insecure

P = ParamSpec("P")
T = TypeVar("T")

Stubs = dict[str, Callable[..., Any]]

_PAGES = ("LookupResources", "LookupSubjects", "ReadRelationships")
_SLOW = (*_PAGES, "ImportBulkRelationships", "ExportBulkRelationships", "Watch")
_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.keepalive_time_ms", 30_000)]


def _waited(build: Callable[P, Asked[T]]) -> Callable[Concatenate["Client", P], T]:
    def method(self: "Client", *args: P.args, **options: P.kwargs) -> T:
        return self._ask(build(*args, **options))

    return _described(method, build)


def _listened(build: Callable[P, Followed[T]]) -> Callable[Concatenate["Client", P], Iterator[T]]:
    def method(self: "Client", *args: P.args, **options: P.kwargs) -> Iterator[T]:
        return self._follow(build(*args, **options))

    return _described(method, build)


def _awaited(build: Callable[P, Asked[T]]) -> Callable[Concatenate["AsyncClient", P], Awaitable[T]]:
    def method(self: "AsyncClient", *args: P.args, **options: P.kwargs) -> Awaitable[T]:
        return self._ask(build(*args, **options))

    return _described(method, build)


def _streamed(build: Callable[P, Followed[T]]) -> Callable[Concatenate["AsyncClient", P], AsyncIterator[T]]:
    def method(self: "AsyncClient", *args: P.args, **options: P.kwargs) -> AsyncIterator[T]:
        return self._follow(build(*args, **options))

    return _described(method, build)


def _described(method: Callable[P, T], build: Callable[..., Any]) -> Callable[P, T]:
    method.__name__, method.__doc__ = build.__name__, build.__doc__
    return method


class _Connected:
    """A channel to a server, of the kind that the client needs."""

    _transport: Any

    def __init__(
        self,
        address: str,
        token: str = "",
        *,
        roots: bytes | None = None,
        insecure: Insecure = Insecure.REFUSED,
        timeout_seconds: float | int = 60.0,
    ):
        credentials = _credentials(roots, insecure)
        if credentials is None:
            self._channel = self._transport.insecure_channel(address, options=_OPTIONS)
        else:
            self._channel = self._transport.secure_channel(address, credentials, options=_OPTIONS)
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self._timeout, self._stubs = float(timeout_seconds), _stubs(self._channel)


class Client(_Connected):
    """Asks a server, and waits for the answers.

    Args:
        address: such as `access.example.org:50051`.
        token: key or token; "": none.
        roots: certificates of the authorities that the server's is checked by, PEM; None: those of the system.
        insecure: whether to speak in the clear, to whatever host; `roots` has no meaning then.
        timeout_seconds: that an answer may take; streams, imports and pages may take any time.

    Raises:
        InvalidArgument: roots are given and not to be used.
    """

    _transport = grpc

    check = _waited(calls.check)
    check_many = _waited(calls.check_many)
    expand = _waited(calls.expand)
    lookup_resources = _waited(calls.lookup_resources)
    lookup_subjects = _waited(calls.lookup_subjects)
    read = _waited(calls.read)
    write = _waited(calls.write)
    delete = _waited(calls.delete)
    load = _waited(calls.load)
    read_schema = _waited(calls.read_schema)
    write_schema = _waited(calls.write_schema)
    export = _listened(calls.export)
    watch = _listened(calls.watch)

    def close(self) -> None:
        """Lets go of the server."""
        self._channel.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, asked: Asked[T]) -> T:
        with _typed(asked.request):
            answer = self._stubs[asked.method](
                asked.request, metadata=self._metadata, timeout=_timeout(asked.method, self._timeout)
            )
            return asked.read(answer)

    def _follow(self, followed: Followed[T]) -> Iterator[T]:
        stream = self._stubs[followed.method](followed.request, metadata=self._metadata)
        try:
            with _typed():
                for message in stream:
                    yield from followed.read(message)
        finally:
            stream.cancel()


class AsyncClient(_Connected):
    """Asks a server from asyncio; arguments as those of `Client`."""

    _transport = grpc.aio

    check = _awaited(calls.check)
    check_many = _awaited(calls.check_many)
    expand = _awaited(calls.expand)
    lookup_resources = _awaited(calls.lookup_resources)
    lookup_subjects = _awaited(calls.lookup_subjects)
    read = _awaited(calls.read)
    write = _awaited(calls.write)
    delete = _awaited(calls.delete)
    load = _awaited(calls.load)
    read_schema = _awaited(calls.read_schema)
    write_schema = _awaited(calls.write_schema)
    export = _streamed(calls.export)
    watch = _streamed(calls.watch)

    async def close(self) -> None:
        """Lets go of the server."""
        await self._channel.close()

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _ask(self, asked: Asked[T]) -> T:
        with _typed(asked.request):
            call = self._stubs[asked.method](
                asked.request, metadata=self._metadata, timeout=_timeout(asked.method, self._timeout)
            )
            answer = [one async for one in call] if asked.method in _PAGES else await call
            return asked.read(answer)

    async def _follow(self, followed: Followed[T]) -> AsyncIterator[T]:
        stream = self._stubs[followed.method](followed.request, metadata=self._metadata)
        try:
            with _typed():
                async for message in stream:
                    for one in followed.read(message):
                        yield one
        finally:
            stream.cancel()


@contextlib.contextmanager
def _typed(request: Any = None) -> Iterator[None]:
    """Raises what the server refused as our error, and what stopped the sending of a stream as itself."""
    try:
        yield
    except (grpc.RpcError, asyncio.CancelledError) as error:
        if isinstance(request, Sending) and request.error is not None:
            raise request.error from None
        if not isinstance(error, grpc.RpcError):
            raise
        raise _error(error) from None


def _error(error: Any) -> AccessError:
    """The error of a call: by its details, where the server gave any."""
    status = status_pb2.Status(code=error.code().value[0], message=error.details() or "")
    for name, value in error.trailing_metadata() or ():
        if name == DETAILS:
            status = status_pb2.Status.FromString(value)
    return read_error(status)


def _credentials(roots: bytes | None, insecure: Insecure) -> grpc.ChannelCredentials | None:
    if insecure is Insecure.REFUSED:
        return grpc.ssl_channel_credentials(roots)
    if roots is not None:
        raise InvalidArgument(
            "certificates are given, and the channel is to be in the clear",
            where="roots",
            remedy="Give one of the two.",
        )
    return None


def _timeout(method: str, seconds: float) -> float | None:
    return None if method in _SLOW else seconds


def _stubs(channel: Any) -> Stubs:
    return {
        **vars(permission_service_pb2_grpc.PermissionsServiceStub(channel)),
        **vars(schema_service_pb2_grpc.SchemaServiceStub(channel)),
        **vars(watch_service_pb2_grpc.WatchServiceStub(channel)),
    }
