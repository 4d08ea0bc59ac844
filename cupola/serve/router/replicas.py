"""Several processes of one server: started, waited for, started again when one dies, and all stopped.

Not here: who sends them requests (`app.py`), other machines (`ray.py`).
Invariant: no process outlives the one that started it, even if that is killed (`tether.py`).
"""

import asyncio
import contextlib
import logging
import random
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import httpx2

from cupola.config.value import Value
from cupola.core.errors import ConfigError, CupolaError

logger = logging.getLogger(__name__)

_TETHER = Path(__file__).with_name("tether.py")
_LOOK_SECONDS = 0.1


class ReplicaError(CupolaError, RuntimeError):
    """A server's process that ended, or did not become ready."""


class Care(Value):
    """How processes are looked after.

    Args:
        ready_seconds: from the start to a good answer of /health.
        grace_seconds: for what is running when a process is stopped.
        wait_seconds: before one that died is started again; doubled each time.
        longest_seconds: of these waits.
        settled_seconds: after which a death counts as the first again.
    """

    ready_seconds: float = 600.0
    grace_seconds: float = 30.0
    wait_seconds: float = 0.5
    longest_seconds: float = 30.0
    settled_seconds: float = 60.0

    def check(self) -> None:
        for name in ("ready_seconds", "longest_seconds", "settled_seconds", "wait_seconds"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name}={getattr(self, name)} is no time", where=name, remedy="Use more than 0.")
        if self.grace_seconds < 0:
            raise ConfigError("grace_seconds is negative", where="grace_seconds", remedy="Use 0 or more.")


class Replica:
    """One process of a server.

    Args:
        command: program and arguments, in which {host} and {port} stand for where it listens.
        host: where it listens.
        care: how it is looked after.

    Raises:
        ConfigError: the command is empty or has no {port}.
    """

    def __init__(self, command: Sequence[str], host: str = "127.0.0.1", care: Care = Care()):
        if not command or not any("{port}" in word for word in command):
            raise ConfigError(
                f"the command {list(command)!r} does not say where the port goes",
                where="command",
                remedy="Write {port} for it, as in: cupola serve MODEL --port {port}.",
            )
        self._care = care
        self._port = _free_port(host)
        self._command = [word.replace("{host}", host).replace("{port}", str(self._port)) for word in command]
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Starts the process.

        Raises:
            ReplicaError: there is no such program.
        """
        self._untie()
        grace = str(self._care.grace_seconds)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", str(_TETHER), grace, *self._command],
                stdin=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise ReplicaError(f"cannot be started ({error.strerror})", where=self._command[0]) from None

    def wait_ready(self) -> None:
        """Returns once /health answers that all is well.

        Raises:
            ReplicaError: the process ended before, or took too long.
        """
        deadline = time.monotonic() + self._care.ready_seconds
        with httpx2.Client(timeout=5.0, trust_env=False) as client:
            while time.monotonic() < deadline:
                if not self.alive:
                    status = None if self._process is None else self._process.returncode
                    raise ReplicaError(
                        f"ended with status {status} before it was ready",
                        where=" ".join(self._command),
                        remedy="Run the command by itself to see why.",
                    )
                with contextlib.suppress(httpx2.TransportError):
                    if client.get(f"{self.url}/health").status_code == 200:
                        return
                time.sleep(_LOOK_SECONDS)
        raise ReplicaError(
            f"was not ready after {self._care.ready_seconds:g} seconds",
            where=" ".join(self._command),
            remedy="Give it longer: Care(ready_seconds=...).",
        )

    def stop(self) -> None:
        """Ends the process: what it is answering is finished first, for a while."""
        if self._process is None:
            return
        self._untie()
        try:
            self._process.wait(self._care.grace_seconds + 10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _untie(self) -> None:
        """Closes what keeps its process alive."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()


@contextlib.asynccontextmanager
async def run_replicas(
    command: Sequence[str], count: int, *, host: str = "127.0.0.1", care: Care = Care()
) -> AsyncIterator[list[str]]:
    """Gives the addresses of `count` ready processes of a command, and looks after them while inside.

    A process that dies is started again at the same address, after a wait that grows with each death.

    Args:
        command: program and arguments, in which {host} and {port} stand for where it listens.
        count: of processes.
        host: where they listen.
        care: how they are looked after.

    Raises:
        ConfigError: a count below 1, or a command without {port}.
        ReplicaError: one of them did not become ready the first time; then all are stopped.
    """
    if count < 1:
        raise ConfigError(f"{count} replicas serve nothing", where="count", remedy="Use 1 or more.")
    replicas = [Replica(command, host, care) for _ in range(count)]
    caring: list[asyncio.Task[None]] = []
    try:
        for replica in replicas:
            replica.start()
        await asyncio.gather(*(asyncio.to_thread(replica.wait_ready) for replica in replicas))
        caring = [asyncio.ensure_future(_look_after(replica, care)) for replica in replicas]
        yield [replica.url for replica in replicas]
    finally:
        for task in caring:
            task.cancel()
        await asyncio.gather(*caring, return_exceptions=True)
        await asyncio.gather(*(asyncio.to_thread(replica.stop) for replica in replicas))


async def _look_after(replica: Replica, care: Care) -> None:
    deaths, started = 0, time.monotonic()
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        if replica.alive:
            continue
        if time.monotonic() - started > care.settled_seconds:
            deaths = 0
        pause = min(care.longest_seconds, care.wait_seconds * 2**deaths) * random.uniform(0.5, 1.5)
        deaths += 1
        logger.warning("%s died; it is started again in %.1f s", replica.url, pause)
        await asyncio.sleep(pause)
        started = time.monotonic()
        replica.start()


def _free_port(host: str) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listening:
        listening.bind((host, 0))
        return listening.getsockname()[1]
