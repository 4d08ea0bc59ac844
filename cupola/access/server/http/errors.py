"""The kinds of error that only HTTP knows, and how each error is written to a client.

Not here: OpenFGA's codes (`openfga/errors.py`). Invariant: what a client is told of our own mistakes is the id of
its request, never a traceback.
"""

import math
import re
from typing import Any

import msgspec
from starlette.responses import Response

from cupola.access.errors import AccessError, NotFound, Status, StoreUnavailable, TooMuch
from cupola.access.server.quota import OverQuota

REQUEST_ID = "x-request-id"


class NoRoute(NotFound):
    """There is nothing under this path."""


class WrongMethod(AccessError):
    """The path is there for other methods."""


class WrongMediaType(AccessError):
    """The body is not JSON, by its own account."""


class TooLarge(TooMuch):
    """A body over the server's limit."""


class BodyLate(AccessError):
    """The body did not come in time."""

    status = Status.DEADLINE_EXCEEDED


class Busy(TooMuch):
    """The server has as much to do as it takes on."""


class Stopping(StoreUnavailable):
    """The server is shutting down."""


class Internal(AccessError):
    """A mistake of ours; the log has it under the request's id."""

    status = Status.INTERNAL


class SlowReader(Exception):
    """The client leaves its answer unread; there is no way to tell it."""


_CODES: dict[type[AccessError], int] = {
    WrongMethod: 405,
    BodyLate: 408,
    WrongMediaType: 415,
    # To be sent again after a while; what is too much in itself is too much then too.
    Busy: 429,
    OverQuota: 429,
    TooMuch: 413,
}


def http_code(error: AccessError) -> int:
    """Returns the HTTP code of an error."""
    return next((code for kind, code in _CODES.items() if isinstance(error, kind)), error.status.http)


def as_access_error(error: BaseException) -> AccessError:
    """Returns the error that a client is told: itself, anything unexpected as a 500."""
    if isinstance(error, AccessError):
        return error
    return Internal("the server made a mistake", remedy=f"Report the {REQUEST_ID} of this answer to whoever runs it.")


def error_body(error: AccessError) -> dict[str, Any]:
    """Returns {"error": {code, message, where, remedy}}, with line and column where a schema is at fault."""
    told: dict[str, Any] = {
        "code": re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(error).__name__).lower(),
        "message": error.problem,
        "where": error.where,
        "remedy": error.remedy,
    }
    if line := getattr(error, "line", 0):
        told |= {"line": line, "column": getattr(error, "column", 0)}
    return {"error": told}


def error_headers(error: AccessError, *, page: bool = False) -> dict[str, str]:
    """Returns Retry-After and WWW-Authenticate where they belong.

    Args:
        page: a browser asks for a page; then a 401 lets it ask its user for the key, as a password.
    """
    code = http_code(error)
    if code in (429, 503):
        return {"retry-after": str(max(1, math.ceil(getattr(error, "retry_seconds", 0.0))))}
    if code == 401:
        return {"www-authenticate": 'Basic realm="cupola"' if page else 'Bearer realm="cupola"'}
    return {}


def json_response(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Returns an answer in JSON."""
    return Response(msgspec.json.encode(value), status, headers, "application/json")


def error_response(error: AccessError, *, page: bool = False) -> Response:
    """Returns the answer of plain REST for an error."""
    return json_response(error_body(error), http_code(error), error_headers(error, page=page))
