import asyncio
import contextlib
import os
import signal

import httpx2
import pytest

from cupola.core.errors import ConfigError, Unsupported
from cupola.serve.router import ray as on_ray
from cupola.serve.router.ray import Share, ray_replicas

needs_ray = pytest.mark.skipif(on_ray.ray is None, reason="Ray is not installed: pip install 'cupola[ray]'")
# Ray's own start leaves sockets and uses what is deprecated elsewhere.
quiet = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def cluster():
    """A local cluster of two cores."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    here = on_ray.ray.init(
        num_cpus=2, object_store_memory=80 * 2**20, include_dashboard=False, log_to_driver=False, logging_level="error"
    )
    yield here
    on_ray.ray.shutdown()


def entered(*arguments, **options):
    async def main():
        async with ray_replicas(*arguments, **options):
            pass

    asyncio.run(main())


@pytest.mark.skipif(on_ray.ray is not None, reason="Ray is installed")
def test_without_ray_it_says_what_to_type():
    with pytest.raises(Unsupported, match=r"pip install 'cupola\[ray\]'"):
        entered(["serve", "{port}"], 1)


@needs_ray
def test_without_a_cluster_it_says_how_to_connect():
    with pytest.raises(Unsupported, match=r'ray\.init\(address="auto"\)'):
        entered(["serve", "{port}"], 1)


@quiet
@needs_ray
def test_a_router_follows_its_servers_through_the_cluster(cluster, command, care, routed):
    async def answer(client):
        response = await client.get("/told")
        assert response.status_code == 200
        return response.json()["pid"]

    async def main():
        async with (
            ray_replicas([*command, "{host}"], 2, share=Share(look_seconds=0.1), care=care) as replicas,
            routed(replicas.urls) as (client, router),
        ):
            following = asyncio.ensure_future(replicas.follow(router.workers))
            pids = {await answer(client) for _ in range(20)}
            assert len(pids) == 2

            os.kill(min(pids), signal.SIGKILL)  # a server dies: its actor starts it again
            async with asyncio.timeout(30):
                while min(pids) in (seen := {await answer(client) for _ in range(10)}) or len(seen) < 2:
                    await asyncio.sleep(0.1)

            before = set(replicas.urls)  # an actor dies: Ray places it anew, somewhere else
            on_ray.ray.kill(replicas._keepers[0], no_restart=False)
            async with asyncio.timeout(60):
                while {w.url for w in router.workers} == before or len(set(replicas.urls) & before) != 1:
                    await answer(client)
                    await asyncio.sleep(0.1)
            assert {w.url for w in router.workers} == set(replicas.urls)
            following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await following
            return replicas.urls

    for url in asyncio.run(main()):
        with pytest.raises(httpx2.TransportError):
            httpx2.get(url)


@quiet
@needs_ray
def test_what_the_cluster_cannot_hold_is_refused(cluster, command):
    with pytest.raises(Unsupported, match="3 replicas take 3 CPU, and the cluster has 2"):
        entered(command, 3)
    with pytest.raises(Unsupported, match="1 replicas take 1 GPU"):
        entered(command, 1, share=Share(gpus=1.0))
    with pytest.raises(ConfigError, match="write {host} and {port}"):
        entered(["serve"], 1)
