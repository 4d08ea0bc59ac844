"""Runs the application on a socket: who may reach it, and how it stops.

Not here: the application (`app.py`), where the models come from (`command/`).
Invariant: no address that others can reach is served without a guard, unless that was said in words.
"""

import asyncio
import enum
import ipaddress
import logging
import socket
import time
from types import FrameType

import uvicorn
from starlette.applications import Starlette

from cupola.config.value import Value
from cupola.core.errors import ConfigError
from cupola.serve.http.call import Service, State
from cupola.serve.http.guard import Guard, Open

logger = logging.getLogger(__name__)

LOOPBACK = ("localhost", "127.0.0.1", "::1")

_UNREAD_SECONDS = 2
"""For which the last bytes of an answer may wait for a slow reader when the server stops."""


class Exposure(enum.Enum):
    """Who may be let in without a key."""

    THIS_MACHINE = "this-machine"
    ANYONE = "anyone"
    """Whoever can reach the address may use the models. For a network that is itself guarded."""


class Address(Value):
    """Where to listen.

    Args:
        host: a name or an address of this machine; 127.0.0.1 is reached from this machine only.
        port: 0 takes a free one.
        exposure: who may be let in without a key.
        grace_seconds: for what is running when the server is told to stop.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    exposure: Exposure = Exposure.THIS_MACHINE
    grace_seconds: float = 30.0

    def check(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"port={self.port} is none", where="port", remedy="Use 0 to 65535; 0 takes a free one.")
        if self.grace_seconds < 0:
            raise ConfigError("grace_seconds is negative", where="grace_seconds", remedy="Use 0 or more.")

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host.lower() == "localhost"

    @property
    def hosts(self) -> tuple[str, ...] | None:
        """The names by which the server may be called: on loopback only its own, elsewhere any."""
        return (*LOOPBACK, self.host.lower()) if self.is_loopback else None

    def check_guard(self, guard: Guard) -> None:
        """Checks that whoever can reach the address is asked for a key.

        Raises:
            ConfigError: others can reach it, nobody is asked, and nobody said that this is meant.
        """
        if isinstance(guard, Open) and not self.is_loopback and self.exposure is not Exposure.ANYONE:
            raise ConfigError(
                f"{self.host} can be reached by others, and no keys are asked for",
                where="host",
                remedy="Give a file of keys, use host 127.0.0.1, or say exposure=anyone if that is meant.",
            )

    def listen(self) -> socket.socket:
        """Returns the socket that listens there.

        Raises:
            ConfigError: the address is taken, or none of this machine's.
        """
        try:
            family, kind, protocol, _, where = socket.getaddrinfo(
                self.host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            made = socket.socket(family, kind, protocol)
        except OSError as error:
            raise ConfigError(f"{self.host} is no address ({error.strerror})", where="host") from None
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(where)
            made.listen(1024)
        except OSError as error:
            made.close()
            raise ConfigError(
                f"cannot listen on {self.host}:{self.port} ({error.strerror})",
                where="port",
                remedy="Use another port; 0 takes a free one.",
            ) from None
        return made


class Server(uvicorn.Server):
    """Serves until it is told to stop; then what runs is finished and whatever else comes is refused.

    Args:
        app: as `make_app` makes it.
        address: where, and how long what runs may take when the server stops.

    Raises:
        ConfigError: as `Address.check_guard`.
    """

    def __init__(self, app: Starlette, address: Address):
        self._service: Service = app.state.service
        address.check_guard(self._service.guard)
        if self._service.hosts is None and address.hosts is not None:
            self._service.hosts = frozenset(address.hosts)
        self._address = address
        self._deadline = 0.0
        super().__init__(
            uvicorn.Config(
                app,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=_UNREAD_SECONDS,
            )
        )

    def stop(self) -> None:
        """Begins to stop, as a first signal does; a second call ends at once."""
        if self._service.state is State.STOPPING:
            self.config.timeout_graceful_shutdown = 0
            self.force_exit = self.should_exit = True
            return
        logger.info("stopping: %d requests are finished first", len(self._service.calls))
        self._service.state = State.STOPPING
        self._deadline = time.monotonic() + self._address.grace_seconds

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called by uvicorn for SIGINT and SIGTERM."""
        self.stop()

    async def on_tick(self, counter: int) -> bool:
        """Called by uvicorn ten times a second."""
        if self._service.state is State.STOPPING and not self.should_exit:
            late = time.monotonic() >= self._deadline
            if late and self._service.calls:
                logger.warning("%d requests did not end in time", len(self._service.calls))
                self._service.halt()
                # One turn for each of them to tell its client.
                await asyncio.sleep(0.05)
            self.should_exit = late or not self._service.calls
        return await super().on_tick(counter)


def serve(app: Starlette, address: Address = Address()) -> None:
    """Serves an application until SIGINT or SIGTERM; a second signal ends at once.

    Args:
        app: as `make_app` makes it.
        address: where.

    Raises:
        ConfigError: the address is taken, or open to others without a guard.
    """
    server = Server(app, address)
    listening = address.listen()
    host, port = listening.getsockname()[:2]
    logger.info("http://%s:%d", f"[{host}]" if ":" in host else host, port)
    server.run(sockets=[listening])
