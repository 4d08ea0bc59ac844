"""Replicas on the machines of a Ray cluster: an actor beside each server, and a router that follows them.

Not here: the router itself (`app.py`). Ray places actors, and places them anew when a machine is lost; the
requests go straight from the router to the servers, by prefix as everywhere.
Invariant: a server ends with its actor, and an actor with the one who asked for it.
Source: actors, Moritz et al., arXiv 1712.05889.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any

from cupola.config.value import Value
from cupola.core.errors import ConfigError, Unsupported
from cupola.serve.router.replicas import Care, Replica
from cupola.serve.router.workers import Workers

try:
    import ray
except ImportError:  # an extra; `ray_replicas` says how to get it
    ray = None

logger = logging.getLogger(__name__)


class Share(Value):
    """What a replica takes of the machine that it is placed on.

    Args:
        cpus: cores.
        gpus: whole ones or parts.
        look_seconds: between questions to each actor whether its server runs.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    look_seconds: float = 1.0

    def check(self) -> None:
        if self.cpus < 0 or self.gpus < 0 or not self.look_seconds > 0:
            raise ConfigError(f"{self!r} takes less than nothing", where="Share", remedy="Use 0 or more.")


class _Keeper:
    """Lives where Ray puts it, with a server beside it."""

    def __init__(self, command: Sequence[str], care: Care):
        self._replica = Replica(command, ray.util.get_node_ip_address(), care)
        self._replica.start()
        self._replica.wait_ready()

    def url(self) -> str:
        """Returns where the server listens; one that has died is started again first."""
        if not self._replica.alive:
            logger.warning("%s died; it is started again", self._replica.url)
            self._replica.start()
            self._replica.wait_ready()
        return self._replica.url

    def stop(self) -> None:
        """Ends the server."""
        self._replica.stop()


class RayReplicas:
    """Servers on a cluster; made by `ray_replicas`."""

    def __init__(self, keepers: list[Any], share: Share):
        self._keepers, self._share = keepers, share
        self._known: dict[int, str] = {}

    @property
    def urls(self) -> list[str]:
        """Where they listen, as far as is known."""
        return list(self._known.values())

    async def find(self) -> None:
        """Waits until every server is ready, and notes where it listens."""
        for index, url in enumerate(await asyncio.gather(*(_answer(k.url.remote()) for k in self._keepers))):
            self._known[index] = url

    async def follow(self, workers: Workers) -> None:
        """Keeps a router's workers those of the cluster, wherever Ray puts them; until cancelled."""
        await asyncio.gather(*(self._follow_one(index, workers) for index in range(len(self._keepers))))

    async def stop(self) -> None:
        """Ends all servers, then their actors."""
        await asyncio.gather(*(_answer(k.stop.remote()) for k in self._keepers), return_exceptions=True)
        for keeper in self._keepers:
            ray.kill(keeper)

    async def _follow_one(self, index: int, workers: Workers) -> None:
        while True:
            try:
                url = await _answer(self._keepers[index].url.remote())
            except ray.exceptions.RayError as error:
                logger.warning("replica %d does not answer: %s", index, error)
                await asyncio.sleep(self._share.look_seconds)
                continue
            before = self._known.get(index)
            if url != before:
                logger.info("replica %d moved from %s to %s", index, before, url)
                if before is not None and before in workers:
                    workers.remove(before)
                self._known[index] = url
            if url not in workers:
                workers.add(url)
            await asyncio.sleep(self._share.look_seconds)


@contextlib.asynccontextmanager
async def ray_replicas(
    command: Sequence[str], count: int, *, share: Share = Share(), care: Care = Care()
) -> AsyncIterator[RayReplicas]:
    """Gives `count` ready servers on the cluster that Ray is connected to, and ends them on leaving.

    The servers listen at addresses that other machines reach, so they need keys, or to be told in words
    that they need none.

    Args:
        command: program and arguments, in which {host} and {port} stand for where it listens; every
            machine of the cluster must have it.
        count: of servers; they are spread over the machines.
        share: what each takes of its machine.
        care: how each process is looked after.

    Raises:
        Unsupported: Ray is not installed, or not connected to a cluster.
        ConfigError: a count below 1, or a command without {port}.
        Unsupported: the cluster has not enough cores or devices.
    """
    if ray is None:
        raise Unsupported("Ray is not installed", where="ray_replicas", remedy="Type: pip install 'cupola[ray]'")
    if not ray.is_initialized():
        raise Unsupported(
            "Ray is not connected to a cluster", where="ray_replicas", remedy='Call ray.init(address="auto") first.'
        )
    if count < 1 or not any("{port}" in word for word in command):
        raise ConfigError(
            f"{count} replicas of {list(command)!r}",
            where="command",
            remedy="Use 1 or more, and write {host} and {port} for where a server listens.",
        )
    _check_room(count, share)
    actor = ray.remote(_Keeper).options(
        num_cpus=share.cpus,
        num_gpus=share.gpus,
        max_restarts=-1,
        max_task_retries=-1,
        scheduling_strategy="SPREAD",
    )
    replicas = RayReplicas([actor.remote(list(command), care) for _ in range(count)], share)
    try:
        await replicas.find()
        yield replicas
    finally:
        await replicas.stop()


def _check_room(count: int, share: Share) -> None:
    has = ray.cluster_resources()
    for name, each in (("CPU", share.cpus), ("GPU", share.gpus)):
        if each * count > has.get(name, 0.0):
            raise Unsupported(
                f"{count} replicas take {each * count:g} {name}, and the cluster has {has.get(name, 0.0):g}",
                where="ray_replicas",
                remedy="Add machines to the cluster, or use fewer replicas or a smaller Share.",
            )


async def _answer(reference: Any) -> Any:
    return await asyncio.wrap_future(reference.future())
