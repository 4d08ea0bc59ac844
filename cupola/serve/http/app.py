"""The table of routes, and the application that serves it.

Not here: what a route answers, sockets and signals (`server.py`).
"""

from collections.abc import Iterable, Mapping, Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cupola.config.suggest import did_you_mean
from cupola.serve.errors import InvalidRequest, NotFound, RequestError
from cupola.serve.generator import Served
from cupola.serve.http import chat, completions, embeddings, health, models, page, responses, tokenize
from cupola.serve.http.call import Endpoint, Guarded, Service
from cupola.serve.http.envelope import Envelope
from cupola.serve.http.errors import REQUEST_ID, WrongMethod, error_response
from cupola.serve.http.guard import Guard, Open
from cupola.serve.http.limits import Limits
from cupola.serve.http.skills import Skilled


def make_app(
    served: Mapping[str, Served] | Iterable[Served],
    *,
    guard: Guard | None = None,
    limits: Limits = Limits(),
    hosts: Iterable[str] | None = None,
    allow_origins: Sequence[str] = (),
    endpoints: Sequence[Endpoint] = (),
    others: Iterable[Skilled] = (),
) -> Starlette:
    """Returns the application; its `state.service` is what all calls share.

    Args:
        served: the models, by name or one after the other.
        guard: asked by every route but /health; None lets everyone do everything.
        limits: of each call.
        hosts: names by which it may be called, without ports; None: any, or as its `Server`'s address says.
        allow_origins: sites whose pages may call it from a browser, such as "https://example.org".
        endpoints: more routes, behind the guard like all.
        others: models that hear or speak, which these routes serve, to be listed.
    """
    names = None if hosts is None else frozenset(host.lower() for host in hosts)
    listed = served.values() if isinstance(served, Mapping) else served
    beside = {one.name: one for one in others}
    service = Service({one.name: one for one in listed}, guard or Open(), limits, beside, names)
    rows = [*_endpoints(), *endpoints]
    routes = [Route(row.path, Guarded(service, row), methods=[row.method]) for row in rows]
    routes.append(Route("/health", health.Health(service).health, methods=["GET"]))
    inner = []
    if allow_origins:
        inner.append(
            Middleware(
                CORSMiddleware,
                allow_origins=list(allow_origins),
                allow_methods=["GET", "POST", "DELETE"],
                allow_headers=["authorization", "content-type"],
                expose_headers=[REQUEST_ID, "retry-after"],
            )
        )
    app = Starlette(
        routes=routes,
        middleware=[Middleware(Envelope, service=service), *inner],
        exception_handlers={HTTPException: _refused},
    )
    app.router.redirect_slashes = False
    app.state.service = service
    return app


def _endpoints() -> list[Endpoint]:
    """The rows of the table, /health aside; responses are kept by the application that made them."""
    return [
        *chat.ENDPOINTS,
        *completions.ENDPOINTS,
        *responses.routes(),
        *embeddings.ENDPOINTS,
        *models.ENDPOINTS,
        *tokenize.ENDPOINTS,
        *health.ENDPOINTS,
        *page.routes(),
    ]


async def _refused(request: Request, error: Exception) -> Response:
    """Answers for what no route took."""
    path, method = request.url.path[:200], request.method
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = dict(getattr(error, "headers", None) or {})
    told: RequestError
    if status == 404:
        known = {route.path for route in request.app.routes if isinstance(route, Route)}
        told = NotFound(f"there is no {method} {path}", remedy=did_you_mean(path, known))
    elif status == 405:
        allowed = headers.get("Allow", "")
        told = WrongMethod(f"{path} is not for {method}", remedy=f"Use {allowed}.")
    else:
        told = InvalidRequest(f"{method} {path} cannot be answered")
    response = error_response(told)
    response.headers.update(headers)
    return response
