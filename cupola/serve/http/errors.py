"""Errors as OpenAI's clients expect them, and the kinds that only HTTP knows.

Not here: why an engine refuses (`serve/errors.py`). Invariant: what a client is told of our own
mistakes is their request id, never a traceback.
"""

from typing import Any

import orjson
from starlette.responses import Response

from cupola.core.errors import CupolaError
from cupola.serve.errors import InvalidRequest, NotFound, RequestError

REQUEST_ID = "x-request-id"


class ModelNotFound(NotFound):
    """No model of this name, or none that the caller may know of."""

    code = "model_not_found"


class TooLarge(InvalidRequest):
    """A body, or a batch in it, over the server's limit."""

    status = 413
    code = "request_too_large"


class WrongMethod(InvalidRequest):
    """The route exists for other methods."""

    status = 405
    code = "method_not_allowed"


class WrongMediaType(InvalidRequest):
    """The body is not JSON, by its own account."""

    status = 415
    code = "unsupported_media_type"


class TimedOut(RequestError):
    """The request took longer than the server or its sender allows."""

    status = 504
    kind = "timeout_error"
    code = "timeout"


class BodyTimedOut(TimedOut):
    """The body did not come in time."""

    status = 408


class SlowReader(Exception):
    """The client leaves its answer unread; there is no way to tell it."""


class Internal(RequestError):
    """A mistake of ours; the log has it under the request id."""

    code = "internal_error"


def as_request_error(error: BaseException) -> RequestError:
    """Returns the error that a client is told: itself, a bad value as 400, anything else as 500."""
    if isinstance(error, RequestError):
        return error
    if isinstance(error, CupolaError):
        return InvalidRequest(error.problem, where=error.where, remedy=error.remedy)
    return Internal("the server made a mistake", remedy="Report the x-request-id of this answer to whoever runs it.")


def error_body(error: RequestError) -> dict[str, Any]:
    """Returns {"error": {message, type, param, code}}; the message holds problem and remedy."""
    message = f"{error.problem}\n{error.remedy}" if error.remedy else error.problem
    return {"error": {"message": message, "type": error.kind, "param": error.where or None, "code": error.code}}


def error_response(error: RequestError, *, page: bool = False) -> Response:
    """Returns the answer for an error, with Retry-After and WWW-Authenticate where they belong.

    Args:
        error: what to tell.
        page: a browser asks for a page; then a 401 lets it ask its user for the key, as a password.
    """
    headers = {}
    if error.retry_after_seconds is not None or error.status in (429, 503):
        headers["retry-after"] = str(error.retry_after_seconds or 1)
    if error.status == 401:
        headers["www-authenticate"] = 'Basic realm="cupola"' if page else 'Bearer realm="cupola"'
    return Response(orjson.dumps(error_body(error)), error.status, headers, "application/json")
