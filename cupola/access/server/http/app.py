"""The application: the table of all routes.

Not here: what they do, what stands around every call (`envelope.py`), sockets (`server/serve.py`).
Invariant: every route asks who calls, but for /health and the document that tells AuthZEN's clients where to ask.
"""

from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from cupola.access.errors import AccessError
from cupola.access.server.http import authzen, playground, questions, relationships, schemas, watch
from cupola.access.server.http.call import Call, Endpoint, Guarded, Service, State
from cupola.access.server.http.envelope import Envelope
from cupola.access.server.http.errors import NoRoute, WrongMethod, error_response, json_response
from cupola.access.server.http.metrics import CONTENT_TYPE
from cupola.access.server.http.openfga import assertions, facts, stores
from cupola.access.server.http.openfga import questions as openfga_questions
from cupola.access.server.http.openfga.errors import refuse as refuse_as_openfga
from cupola.access.server.identity import Role


async def metrics(call: Call) -> Response:
    """Returns what the server counts, in Prometheus' text format."""
    return Response(call.service.metrics.text(), headers={"content-type": CONTENT_TYPE})


OWN = [Endpoint("GET", "/metrics", Role.READER, metrics)]


def endpoints() -> Sequence[Endpoint]:
    """Returns the rows of the table of routes."""
    plain = [*questions.ROUTES, *relationships.ROUTES, *schemas.ROUTES, *watch.ROUTES]
    openfga = [*stores.ROUTES, *facts.ROUTES, *openfga_questions.ROUTES, *assertions.ROUTES]
    return [*OWN, *plain, *openfga, *authzen.ROUTES, *playground.routes()]


def make_app(service: Service) -> Starlette:
    """Returns the ASGI application of a service."""

    async def health(request: Request) -> Response:
        serving = service.state is State.SERVING
        return json_response({"status": service.state.value}, 200 if serving else 503)

    async def configuration(request: Request) -> Response:
        base = service.base_url or f"{request.url.scheme}://{request.url.netloc}"
        return authzen.configuration(base.rstrip("/"))

    by_path: dict[str, dict[str, ASGIApp]] = {}
    for endpoint in endpoints():
        by_path.setdefault(endpoint.path, {})[endpoint.method] = Guarded(service, endpoint)
    routes: list[BaseRoute] = [
        Route("/health", health, methods=["GET"]),
        Route(authzen.CONFIGURATION, configuration, methods=["GET"]),
    ]
    routes += [Route(path, _ByMethod(methods)) for path, methods in by_path.items()]
    app = Starlette(routes=routes, exception_handlers={404: _no_route, 405: _wrong_method})
    app.router.redirect_slashes = False
    app.add_middleware(Envelope, service=service)
    app.state.service = service
    return app


class _ByMethod:
    """The applications under one path, by the method of HTTP."""

    def __init__(self, methods: dict[str, ASGIApp]):
        self._methods = methods | ({"HEAD": methods["GET"]} if "GET" in methods else {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._methods.get(scope["method"])
        if app is None:
            known = ", ".join(sorted(self._methods))
            error = WrongMethod(f"{scope['method']} is not for {scope['path'][:200]}", remedy=f"Use {known}.")
            answer = _refusal(scope["path"], error)
            answer.headers["allow"] = known
            await answer(scope, receive, send)
        else:
            await app(scope, receive, send)


async def _no_route(request: Request, _: Exception) -> Response:
    path = request.url.path
    return _refusal(
        path,
        NoRoute(
            f"there is nothing under {path[:200]}",
            where="path",
            remedy="The routes are /v1/check, /stores, /access/v1/evaluation and others.",
        ),
    )


async def _wrong_method(request: Request, _: Exception) -> Response:
    path = request.url.path
    return _refusal(path, WrongMethod(f"{request.method} is not for {path[:200]}", where="path"))


def _refusal(path: str, error: AccessError) -> Response:
    if path.startswith("/stores"):
        return refuse_as_openfga(error)
    return authzen.refuse(error) if path.startswith("/access/v1") else error_response(error)
