"""The gRPC server: a port, threads, and the methods behind the gate.

Not here: the methods (`methods.py`), who may call them (`gate.py`).
Invariant: when it is told to stop it takes nothing new, ends what is being watched with a token to go on from, and
lets what runs end, as long as the grace lasts. Calls and streams have threads of their own, so that callers who
read slowly do not keep others from being answered.
"""

import dataclasses
import threading
import time
from collections.abc import Callable, Mapping
from concurrent import futures
from types import SimpleNamespace
from typing import Any

import grpc
from authzed.api.v1 import (
    experimental_service_pb2_grpc,
    permission_service_pb2_grpc,
    schema_service_pb2_grpc,
    watch_service_pb2_grpc,
)
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from cupola.access.errors import StoreUnavailable
from cupola.access.server.grpc.gate import Gate, Lends, Method, Served
from cupola.access.server.grpc.methods import EXPERIMENTAL, PERMISSIONS, SCHEMA, WATCH
from cupola.access.server.identity import Authenticator
from cupola.access.server.quota import Quota, Work
from cupola.access.server.tls import Certificate, Insecure, require_secure

_PACKAGE = "authzed.api.v1"
_SENDS = ("ImportBulkRelationships", "BulkImportRelationships")
_SERVICES: Mapping[str, tuple[Mapping[str, Method], Callable[[Any, grpc.Server], None]]] = {
    "PermissionsService": (PERMISSIONS, permission_service_pb2_grpc.add_PermissionsServiceServicer_to_server),
    "SchemaService": (SCHEMA, schema_service_pb2_grpc.add_SchemaServiceServicer_to_server),
    "WatchService": (WATCH, watch_service_pb2_grpc.add_WatchServiceServicer_to_server),
    "ExperimentalService": (EXPERIMENTAL, experimental_service_pb2_grpc.add_ExperimentalServiceServicer_to_server),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """How a server listens, and how much it does at the same time.

    Args:
        host: to listen at.
        port: likewise; 0: any that is free.
        certificate: None: in the clear.
        insecure: whether it may listen in the clear where others than this machine can hear.
        calls: that are answered at the same time; more wait.
        streams: that are open at the same time: lookups, exports, imports, watches; more wait.
        waiting: calls and streams that wait, before more are refused.
        message_bytes: of a message that comes in.
        pulse_seconds: between two checkpoints of a watch in which nothing happens.
    """

    host: str = "127.0.0.1"
    port: int = 50051
    certificate: Certificate | None = None
    insecure: Insecure = Insecure.REFUSED
    calls: int = 8
    streams: int = 64
    waiting: int = 1024
    message_bytes: int = 16 << 20
    pulse_seconds: float | int = 10.0


class Server:
    """Serves the graphs of tenants; used as a context, it starts and stops.

    Args:
        graphs: of the tenants, such as `Tenants`.
        authenticator: knows the callers.
        quota: of the tenants; None: without bounds.
        options: how it listens.
        observe: is told of every call that ended, for metrics and the audit log; must not raise or block.

    Raises:
        InvalidArgument: it would listen in the clear, and nobody said that it may.
        StoreUnavailable: the port is taken.
    """

    def __init__(
        self,
        graphs: Lends,
        authenticator: Authenticator,
        *,
        quota: Quota | None = None,
        options: Options = Options(),
        observe: Callable[[Served], None] = lambda _: None,
    ):
        require_secure(options.host, options.certificate, options.insecure)
        self._options = options
        self._gate = Gate(
            graphs, authenticator, quota or Quota(), observe=observe, pulse_seconds=float(options.pulse_seconds)
        )
        self._calls = futures.ThreadPoolExecutor(options.calls, thread_name_prefix="grpc-call")
        self._streams = futures.ThreadPoolExecutor(options.streams, thread_name_prefix="grpc-stream")
        self._server = grpc.server(
            self._calls,
            options=_channel_options(options),
            maximum_concurrent_rpcs=options.calls + options.streams + options.waiting,
        )
        self._health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        for service, (methods, register) in _SERVICES.items():
            register(SimpleNamespace(**{name: self._handler(name, one) for name, one in methods.items()}), self._server)
            self._health.set(f"{_PACKAGE}.{service}", health_pb2.HealthCheckResponse.SERVING)
        self.port = self._listen()
        self._stopping = threading.Lock()

    @property
    def address(self) -> str:
        """Where it listens, as a client takes it."""
        host = self._options.host
        return f"[{host}]:{self.port}" if ":" in host and not host.startswith("[") else f"{host}:{self.port}"

    def start(self) -> None:
        """Begins to answer."""
        self._server.start()
        self._health.set("", health_pb2.HealthCheckResponse.SERVING)

    def stop(self, grace_seconds: float | int = 10.0) -> None:
        """Ends it, and returns when what ran has ended, or was cut off after the grace."""
        with self._stopping:
            self._health.enter_graceful_shutdown()
            self._gate.stopping.set()
            began = time.monotonic()
            self._server.stop(float(grace_seconds)).wait()
            left = max(grace_seconds - (time.monotonic() - began), 0.0)
            _join((self._calls, self._streams), left)

    def wait(self, timeout_seconds: float | int | None = None) -> bool:
        """Waits until it has ended; returns whether it has."""
        timeout = None if timeout_seconds is None else float(timeout_seconds)
        return not self._server.wait_for_termination(timeout)

    def __enter__(self) -> "Server":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _handler(self, name: str, method: Method) -> Callable[..., Any]:
        if method.work is Work.CALLS:
            return self._gate.one(name, method)
        handler = self._gate.one(name, method) if name in _SENDS else self._gate.many(name, method)
        # gRPC's way to give a method threads of its own.
        vars(handler)["experimental_thread_pool"] = self._streams
        return handler

    def _listen(self) -> int:
        where, certificate = f"{self._options.host}:{self._options.port}", self._options.certificate
        try:
            if certificate is None:
                return self._server.add_insecure_port(where)
            return self._server.add_secure_port(where, _credentials(certificate))
        except RuntimeError:
            self._server.stop(None)
            raise StoreUnavailable(
                "the server cannot listen there: the port is taken, or not ours",
                where=where,
                remedy="Give another port, or 0 for any that is free.",
            ) from None


def _credentials(certificate: Certificate) -> grpc.ServerCredentials:
    pair = (certificate.key.read_bytes(), certificate.chain.read_bytes())
    callers = None if certificate.callers is None else certificate.callers.read_bytes()
    return grpc.ssl_server_credentials([pair], callers, require_client_auth=callers is not None)


def _channel_options(options: Options) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", options.message_bytes),
        ("grpc.max_send_message_length", -1),
        # Two servers on one port would share the callers between them.
        ("grpc.so_reuseport", 0),
        # A caller whose machine has gone away without a word is found out, and its streams end.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ]


def _join(pools: tuple[futures.ThreadPoolExecutor, ...], seconds: float) -> None:
    """Waits for threads to end, but not for ever: one may be in the middle of a long answer to nobody."""
    ends = [threading.Thread(target=pool.shutdown, daemon=True) for pool in pools]
    for end in ends:
        end.start()
    until = time.monotonic() + max(seconds, 1.0)
    for end in ends:
        end.join(max(until - time.monotonic(), 0.0))
