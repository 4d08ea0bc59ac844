"""One command's servers: gRPC, HTTP and the playground over the same graphs, started and stopped together.

Not here: what they answer (`grpc/`, `http/`), where the command is typed.
Invariant: no address that others can reach is served without asking who calls, or in the clear, unless that was said
in words. A server that is told to stop finishes what it has begun, within its time, and then closes its graphs.
"""

import contextlib
import dataclasses
import enum
import logging
import signal
import socket
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

import uvicorn

from cupola.access.errors import InvalidArgument, StoreUnavailable
from cupola.access.server.audit import Audit
from cupola.access.server.grpc.server import Options
from cupola.access.server.grpc.server import Server as GrpcServer
from cupola.access.server.http.app import make_app
from cupola.access.server.http.bounds import Bounds
from cupola.access.server.http.call import Service, State
from cupola.access.server.identity import Authenticator, Everybody
from cupola.access.server.observe import observer
from cupola.access.server.quota import Quota
from cupola.access.server.tenants import Tenants
from cupola.access.server.tls import Certificate, Insecure, is_loopback, require_secure

logger = logging.getLogger(__name__)

LOOPBACK = ("localhost", "127.0.0.1", "::1")

_UNREAD_SECONDS = 2
"""For which the last bytes of an answer may wait for a slow reader when the server stops."""


class Exposure(enum.Enum):
    """Who may be let in without a key."""

    THIS_MACHINE = "this-machine"
    ANYONE = "anyone"
    """Whoever can reach the address. For a network that is itself guarded."""


@dataclasses.dataclass(frozen=True)
class Address:
    """Where a server listens.

    Args:
        host: a name or an address of this machine; 127.0.0.1 is reached from this machine only.
        port: 0 takes a free one.
    """

    host: str = "127.0.0.1"
    port: int = 0

    def listen(self) -> socket.socket:
        """Returns the socket that listens there.

        Raises:
            InvalidArgument: the address is taken, or none of this machine's.
        """
        where = f"{self.host}:{self.port}"
        try:
            family, kind, protocol, _, place = socket.getaddrinfo(
                self.host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            made = socket.socket(family, kind, protocol)
        except (OSError, OverflowError) as error:
            raise InvalidArgument(f"this is no address: {error}", where=where, remedy="Use 127.0.0.1:8080.") from None
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(place)
            made.listen(1024)
        except OSError as error:
            made.close()
            raise InvalidArgument(
                f"cannot listen there: {error.strerror}", where=where, remedy="Use another port; 0 takes a free one."
            ) from None
        return made


class Server:
    """Everything that one command serves.

    Args:
        graphs: of all tenants; closed when the server has stopped.
        http: where to serve HTTP and the playground; None: nowhere.
        grpc: how to serve gRPC; None: not at all.
        authenticator: knows the callers.
        exposure: who may be let in without a key.
        certificate: for TLS of both; None: in the clear.
        insecure: whether keys may travel in the clear where others can hear.
        bounds: of HTTP.
        quota: of each tenant.
        audit: told of writes and of a sample of decisions; closed when the server has stopped.
        base_url: under which clients know the server.

    Raises:
        InvalidArgument: an address is taken, or open to others without a key or in the clear.
    """

    def __init__(
        self,
        graphs: Tenants,
        *,
        http: Address | None = Address(),
        grpc: Options | None = None,
        authenticator: Authenticator | None = None,
        exposure: Exposure = Exposure.THIS_MACHINE,
        certificate: Certificate | None = None,
        insecure: Insecure = Insecure.REFUSED,
        bounds: Bounds | None = None,
        quota: Quota | None = None,
        audit: Audit | None = None,
        base_url: str = "",
    ):
        known = authenticator or Everybody()
        hosts: frozenset[str] | None = None
        for host in [part.host for part in (http, grpc) if part is not None]:
            _check_exposure(host, known, exposure)
        if http is not None:
            require_secure(http.host, certificate, insecure)
            hosts = frozenset({*LOOPBACK, http.host.lower()}) if is_loopback(http.host) else None
        self.service = Service(
            tenants=graphs,
            authenticator=known,
            audit=audit or Audit(),
            bounds=bounds or Bounds(),
            quota=quota or Quota(),
            hosts=hosts,
            base_url=base_url,
        )
        self.grpc: GrpcServer | None = None
        if grpc is not None:
            self.grpc = GrpcServer(
                graphs,
                known,
                quota=self.service.quota,
                options=dataclasses.replace(grpc, certificate=certificate, insecure=insecure),
                observe=observer(self.service.metrics, self.service.audit),
            )
        self._http = None if http is None else _Http(self.service, http, certificate)
        self._told = threading.Event()
        self._ended = False

    @property
    def url(self) -> str:
        """Where HTTP is served; "" where it is not."""
        return "" if self._http is None else self._http.url

    def start(self) -> None:
        """Begins to answer, in threads, and returns when it does.

        Raises:
            StoreUnavailable: it does not begin.
        """
        if self.grpc is not None:
            self.grpc.start()
        if self._http is not None:
            self._http.start()
            logger.info("serving %s", self.url)

    def stop(self) -> None:
        """Finishes what was begun, refuses what is new, and closes everything; a second call does nothing."""
        if self._ended:
            return
        self._ended = True
        self._told.set()
        grace = float(self.service.bounds.grace_seconds)
        ends = [threading.Thread(target=part.stop, args=(grace,)) for part in (self._http, self.grpc) if part]
        for end in ends:
            end.start()
        for end in ends:
            end.join()
        self.service.close()
        self.service.tenants.close()
        self.service.audit.close()

    def run(self) -> None:
        """Serves until SIGINT or SIGTERM."""

        def told(number: int, frame: FrameType | None) -> None:
            self._told.set()

        before = {number: signal.signal(number, told) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            self.start()
            # In slices, so that the interpreter has its chance to run the signal's handler.
            while not self._told.wait(0.2):
                pass
        finally:
            self.stop()
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def running(self) -> Iterator[str]:
        """Serves for as long as the context lasts; gives the URL."""
        self.start()
        try:
            yield self.url
        finally:
            self.stop()


def _check_exposure(host: str, authenticator: Authenticator, exposure: Exposure) -> None:
    if isinstance(authenticator, Everybody) and not is_loopback(host) and exposure is not Exposure.ANYONE:
        raise InvalidArgument(
            f"{host} can be reached by others, and no keys are asked for",
            where="host",
            remedy="Give keys, listen on 127.0.0.1, or say Exposure.ANYONE if that is meant.",
        )


class _Http:
    """HTTP, in a thread."""

    def __init__(self, service: Service, address: Address, certificate: Certificate | None):
        self._service = service
        self._socket = address.listen()
        host, port = self._socket.getsockname()[:2]
        scheme = "http" if certificate is None else "https"
        self.url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
        options: dict[str, Any] = {} if certificate is None else certificate.uvicorn()
        config = uvicorn.Config(
            make_app(service),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=_UNREAD_SECONDS,
            **options,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._serve, name="http", daemon=True)

    def _serve(self) -> None:
        self._server.run(sockets=[self._socket])

    def start(self) -> None:
        """Begins to answer."""
        self._thread.start()
        while not self._server.started:
            if not self._thread.is_alive():
                raise StoreUnavailable("the HTTP server did not start", where=self.url, remedy="See the log.")
            time.sleep(0.005)

    def stop(self, grace_seconds: float) -> None:
        """Finishes what was begun."""
        self._service.state = State.STOPPING
        deadline = time.monotonic() + grace_seconds
        while self._service.running and time.monotonic() < deadline:
            time.sleep(0.02)
        if self._service.running:
            logger.warning("%d requests did not end in time", self._service.running)
        self._server.should_exit = True
        if self._thread.ident is not None:
            self._thread.join(timeout=_UNREAD_SECONDS + 5)
        self._socket.close()
