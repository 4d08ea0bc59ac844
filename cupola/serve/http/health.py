"""GET /health and GET /metrics: what whoever runs the server watches.

Not here: what is counted (`metrics.py`). Invariant: /health, the one route that asks no guard, tells
nothing but whether to send requests here, and waits for nobody.
"""

from typing import Protocol, runtime_checkable

import orjson
from starlette.requests import Request
from starlette.responses import Response

from cupola.serve.http.call import Call, Endpoint, Service, State
from cupola.serve.http.guard import SERVER, Action
from cupola.serve.http.metrics import CONTENT_TYPE


@runtime_checkable
class Mortal(Protocol):
    """An engine that can fail for good."""

    @property
    def failure(self) -> BaseException | None:
        """Why it answers no more requests; None: it does. Known at once, whatever step is running."""


class Health:
    """Answers GET /health: 200 where requests are served, else 503."""

    def __init__(self, service: Service):
        self.service = service

    async def health(self, request: Request) -> Response:
        """Says "ok", "stopping" or "failed"."""
        status = "ok"
        if any(isinstance(s.engine, Mortal) and s.engine.failure is not None for s in self.service.models.values()):
            status = "failed"
        elif self.service.state is State.STOPPING:
            status = "stopping"
        return Response(orjson.dumps({"status": status}), 200 if status == "ok" else 503, media_type="application/json")


async def metrics(call: Call) -> Response:
    """Gives the metrics of engines and server in Prometheus' text format."""
    await call.service.guard.check(call.caller, Action.OBSERVE, SERVER)
    return Response(call.service.metrics.text(), headers={"content-type": CONTENT_TYPE})


ENDPOINTS = (Endpoint("GET", "/metrics", metrics),)
