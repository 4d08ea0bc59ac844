"""The playground: one page that a browser runs as it is, and the run of what stands in it on a graph of its own.

Not here: its looks and its behaviour (`page/`), how its texts are read (`scratch.py`).
Invariant: the page asks nothing of anyone but this server, and what is tried out in it touches no tenant's graph.
"""

import functools
import importlib.resources

from starlette.responses import RedirectResponse, Response

from cupola.access.errors import InvalidArgument
from cupola.access.server.http.body import Strict
from cupola.access.server.http.call import Call, Endpoint
from cupola.access.server.http.errors import NoRoute, TooLarge, json_response
from cupola.access.server.http.scratch import Texts, run_texts
from cupola.access.server.identity import Role

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-cache",
}
TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}


class Run(Strict, kw_only=True):
    """What stands in the page."""

    schema: str
    relationships: str = ""
    checks: str = ""
    assertions: str = ""


async def run(call: Call) -> Response:
    """Answers the page's questions from its own schema and relationships."""
    most = call.service.bounds.playground_bytes
    if len(call.body) > most:
        raise TooLarge(f"the playground takes {most} bytes", where="body", remedy="Try out something smaller.")
    asked = call.parse(Run)
    texts = Texts(asked.schema, asked.relationships, asked.checks, asked.assertions)
    return json_response(await call.service.scratch.run(functools.partial(run_texts, texts)))


def routes() -> list[Endpoint]:
    """Returns the rows of the table of routes that serve the page."""
    folder = importlib.resources.files("cupola.access.server.http") / "page"
    files = {file.name: file.read_bytes() for file in folder.iterdir() if file.name.rpartition(".")[2] in TYPES}

    def answer(name: str) -> Response:
        kind = TYPES[name.rpartition(".")[2]]
        return Response(files[name], headers=HEADERS | {"content-type": f"{kind}; charset=utf-8"})

    async def page(call: Call) -> Response:
        return answer("playground.html")

    async def file(call: Call) -> Response:
        name = call.http.path_params["name"]
        if name not in files:
            raise NoRoute(f"the playground has no file {name[:100]!r}", where="path")
        return answer(name)

    async def home(call: Call) -> Response:
        if call.http.query_params:
            raise InvalidArgument("there are no parameters here", where="query")
        return RedirectResponse("/playground")

    return [
        Endpoint("GET", "/", Role.READER, home),
        Endpoint("GET", "/playground", Role.READER, page),
        Endpoint("POST", "/playground/run", Role.READER, run),
        Endpoint("GET", "/playground/{name}", Role.READER, file),
    ]
