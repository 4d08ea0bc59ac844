import asyncio
import contextlib
import sys
from pathlib import Path

import httpx2
import pytest

from cupola.serve.http.server import Address
from cupola.serve.router.app import Router, RouterServer, make_router
from cupola.serve.router.replicas import Care, run_replicas
from cupola.serve.router.workers import Watch

WORKER = Path(__file__).with_name("fake_worker.py")
QUICK = Watch(every_seconds=0.2, health_seconds=1.0, unhealthy_after=2, broken_after=2, broken_seconds=0.5)
CARE = Care(ready_seconds=30.0, grace_seconds=1.0, wait_seconds=0.2)


@pytest.fixture(scope="session")
def command():
    return [sys.executable, str(WORKER), "{port}"]


@contextlib.asynccontextmanager
async def _routed(urls, *, guard=None, **options):
    """Gives (client of a router in front of these servers, the router)."""
    router = Router(urls, watch=QUICK, **options)
    server = RouterServer(make_router(router, guard=guard), Address(port=0, grace_seconds=2.0))
    listening = Address(port=0).listen()
    serving = asyncio.ensure_future(server.serve([listening]))
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    try:
        async with httpx2.AsyncClient(base_url=url, timeout=20.0, trust_env=False) as client:
            yield client, router
    finally:
        server.stop()
        await serving


@pytest.fixture
def routed():
    return _routed


@pytest.fixture
def care():
    return CARE


@pytest.fixture
def router_of(command):
    """Runs `use(client, router)` against a router in front of so many real processes."""

    def run(count, use, **options):
        async def main():
            async with run_replicas(command, count, care=CARE) as urls, _routed(urls, **options) as (client, router):
                await use(client, router)

        asyncio.run(main())

    return run
