"""The chat page: a few files that a browser runs as they are, and that ask nothing of anyone but this server.

Not here: its looks and its behaviour (`page/`). Invariant: whatever a model writes, the browser runs
no code but the page's own files.
"""

import importlib.resources

from starlette.responses import Response

from cupola.config.suggest import did_you_mean
from cupola.serve.errors import NotFound
from cupola.serve.http.call import Call, Endpoint

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-cache",
}

TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def routes() -> list[Endpoint]:
    """Returns the rows of the table of routes that serve the page at / and its files under /page/."""
    folder = importlib.resources.files("cupola.serve.http") / "page"
    files = {file.name: file.read_bytes() for file in folder.iterdir() if _suffix(file.name) in TYPES}

    def answer(name: str) -> Response:
        headers = HEADERS | {"content-type": f"{TYPES[_suffix(name)]}; charset=utf-8"}
        return Response(files[name], headers=headers)

    async def index(call: Call) -> Response:
        return answer("index.html")

    async def file(call: Call) -> Response:
        name = call.http.path_params["name"]
        if name not in files:
            raise NotFound(f"the page has no file {name!r}", where="path", remedy=did_you_mean(name, files))
        return answer(name)

    return [Endpoint("GET", "/", index), Endpoint("GET", "/page/{name}", file)]


def _suffix(name: str) -> str:
    return name[name.rfind(".") :]
