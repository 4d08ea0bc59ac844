"""The router's routes: everything that a server has, from one of several, and which workers there are.

Not here: how a request finds a worker (`forward.py`), processes (`replicas.py`).
Invariant: every route but /health asks the guard; what a client's key may do is decided by the workers, to
which it is passed on.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterable
from urllib.parse import quote

import msgspec
import orjson
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cupola.serve.errors import Unavailable
from cupola.serve.http.call import Call, Endpoint, Guarded, Handler, Service, State
from cupola.serve.http.envelope import Envelope
from cupola.serve.http.guard import SERVER, Action, Guard, Open
from cupola.serve.http.health import CONTENT_TYPE
from cupola.serve.http.limits import Limits
from cupola.serve.http.server import Address, Server
from cupola.serve.router.forward import Forwarder, Retry, answered, told
from cupola.serve.router.measures import Measures
from cupola.serve.router.policy import Balance, Choice, Policy
from cupola.serve.router.workers import Watch, Worker, Workers

_TO_ALL = ("/v1/load_lora_adapter", "/v1/unload_lora_adapter")
"""What every worker must do, or the same name would mean different models."""


class WorkerBody(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """POST and DELETE /workers."""

    url: str


class Router:
    """One address for several servers.

    Args:
        urls: of the servers.
        policy: which of them gets a request.
        balance: when load comes before cached prefixes.
        retry: of what no client has seen a byte of.
        watch: how servers are watched.
    """

    def __init__(
        self,
        urls: Iterable[str],
        *,
        policy: Policy = Policy.CACHE_AWARE,
        balance: Balance = Balance(),
        retry: Retry = Retry(),
        watch: Watch = Watch(),
    ):
        self.workers = Workers(urls, watch)
        self.choice = Choice(policy, balance)
        self.measures = Measures(self.workers)
        self.forwarder = Forwarder(self.workers, self.choice, retry, self.measures)

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Watches the workers' health while inside, and ends all connections at the end."""
        asking = asyncio.ensure_future(self.workers.keep_asking())
        try:
            yield
        finally:
            asking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asking
            await self.workers.close()

    async def forward(self, call: Call) -> Response:
        """Answers from one worker."""
        return await self.forwarder.send(call)

    async def to_all(self, call: Call) -> Response:
        """Has every worker do it, and gives the first refusal, or else the first answer.

        Raises:
            Unavailable: some did not answer.
        """
        found = await self.forwarder.ask_all(call)
        if missing := [worker.url for worker in self.workers if worker.url not in found]:
            raise Unavailable(
                f"{' and '.join(missing)} did not answer; the others did what was asked",
                remedy="Undo it and try again when all are well, or take those out: DELETE /workers?url=...",
            )
        answers = list(found.values())
        return answered(next((a for a in answers if a.status >= 400), answers[0]))

    async def models(self, call: Call) -> Response:
        """Lists the models of all workers, each once."""
        answers = list((await self.forwarder.ask_all(call)).values())
        good = [answer for answer in answers if answer.status == 200]
        if not good:
            return answered(answers[0])
        listed = [model for answer in good for model in orjson.loads(answer.first)["data"]]
        return told({"object": "list", "data": list({model["id"]: model for model in reversed(listed)}.values())[::-1]})

    async def stored(self, call: Call) -> Response:
        """Answers from the worker that keeps what is asked for; a request that names none goes anywhere."""
        asked = call.http.path_params.get("id")
        previous = None if asked else _previous(call.body)
        if not asked and not previous:
            return await self.forwarder.send(call)
        return await self.forwarder.send(call, await self._keeper(call, str(asked or previous)))

    async def list_workers(self, call: Call) -> Response:
        """Tells the workers and how they are."""
        await call.service.guard.check(call.caller, Action.OBSERVE, SERVER)
        return told({"data": [_described(worker) for worker in self.workers]})

    async def add_worker(self, call: Call) -> Response:
        """Adds a worker, once it says that it is well."""
        body = call.parse(WorkerBody)
        await call.service.guard.check(call.caller, Action.MANAGE, SERVER)
        worker = self.workers.add(body.url)
        await worker.question()
        return told(_described(worker))

    async def remove_worker(self, call: Call) -> Response:
        """Takes a worker out, which finishes what it has."""
        await call.service.guard.check(call.caller, Action.MANAGE, SERVER)
        worker = self.workers.remove(call.http.query_params.get("url", ""))
        self.choice.forget(worker.url)
        return told({"url": worker.url, "deleted": True})

    async def metrics(self, call: Call) -> Response:
        """Tells what the router counts, in Prometheus' text format; each worker has its own /metrics."""
        await call.service.guard.check(call.caller, Action.OBSERVE, SERVER)
        text = call.service.metrics.text() + self.measures.text()
        return Response(text, headers={"content-type": CONTENT_TYPE})

    async def _keeper(self, call: Call, stored: str) -> str | None:
        """The worker that has a stored response; None: no one says so, and any may say that there is none."""

        async def has(url: str) -> str | None:
            path = f"/v1/responses/{quote(stored, safe='')}"
            headers = {"authorization": call.http.headers.get("authorization", "")}
            async with self.workers[url].ask("GET", path, headers, b"") as answer:
                return url if answer.status == 200 else None

        urls = [worker.url for worker in self.workers if worker.healthy]
        found = await asyncio.gather(*map(has, urls), return_exceptions=True)
        return next((url for url in found if isinstance(url, str)), None)


def make_router(
    router: Router,
    *,
    guard: Guard | None = None,
    limits: Limits = Limits(requests_per_caller=4096),
    hosts: Iterable[str] | None = None,
) -> Starlette:
    """Returns the application of a router; `RouterServer` serves it.

    Args:
        router: finds workers.
        guard: asked by every route but /health; None leaves it to the workers.
        limits: of each call.
        hosts: names by which it may be called, without ports; None: any.
    """
    names = None if hosts is None else frozenset(host.lower() for host in hosts)
    service = Service({}, guard or Open(), limits, hosts=names)

    async def health(request: Request) -> Response:
        well = len(router.workers.loads())
        status = "stopping" if service.state is State.STOPPING else "ok" if well else "failed"
        body = orjson.dumps({"status": status, "workers": len(router.workers), "available": well})
        return Response(body, 200 if status == "ok" else 503, media_type="application/json")

    def route(method: str, path: str, handler: Handler) -> Route:
        return Route(path, Guarded(service, Endpoint(method, path, handler)), methods=[method])

    app = Starlette(
        routes=[
            Route("/health", health, methods=["GET"]),
            route("GET", "/metrics", router.metrics),
            route("GET", "/workers", router.list_workers),
            route("POST", "/workers", router.add_worker),
            route("DELETE", "/workers", router.remove_worker),
            route("GET", "/v1/models", router.models),
            *(route("POST", path, router.to_all) for path in _TO_ALL),
            route("POST", "/v1/responses", router.stored),
            *(route(method, "/v1/responses/{id}", router.stored) for method in ("GET", "DELETE")),
            route("GET", "/v1/responses/{id}/{rest:path}", router.stored),
            route("POST", "/v1/responses/{id}/{rest:path}", router.stored),
            *(route(method, "/{path:path}", router.forward) for method in ("GET", "POST", "DELETE")),
        ],
        middleware=[Middleware(Envelope, service=service)],
    )
    app.router.redirect_slashes = False
    app.state.service = service
    app.state.router = router
    return app


class RouterServer(Server):
    """Serves a router until it is told to stop; then what runs is finished and whatever else comes is refused.

    Args:
        app: as `make_router` makes it.
        address: where, and how long what runs may take when it stops.

    Raises:
        ConfigError: the address is open to others, no guard is asked, and nobody said that this is meant.
    """

    def __init__(self, app: Starlette, address: Address):
        super().__init__(app, address)
        self._router: Router = app.state.router

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serves, and watches the workers meanwhile."""
        async with self._router.watching():
            await super().serve(sockets)


def _described(worker: Worker) -> dict[str, object]:
    return {
        "url": worker.url,
        "running": worker.running,
        "healthy": worker.healthy,
        "circuit": worker.circuit.value,
    }


def _previous(body: bytes) -> str | None:
    try:
        sent = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    found = sent.get("previous_response_id") if isinstance(sent, dict) else None
    return found if isinstance(found, str) else None
