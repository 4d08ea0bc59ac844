"""Why a request was not served: each kind knows its HTTP status and the code that clients look for.

Not here: how an error is written to a client (`http/`).
"""

from cupola.core.errors import CupolaError

__all__ = [
    "Busy",
    "ContextOverflow",
    "Forbidden",
    "InvalidRequest",
    "NotFound",
    "RequestError",
    "Unauthorized",
    "Unavailable",
]


class RequestError(CupolaError):
    """A request that is not served.

    Args:
        problem: what was asked, what is so, and why it cannot be.
        where: the parameter at fault, as the client named it; a path such as "messages[2].content".
        remedy: what to send instead.
        retry_after_seconds: when to try again; None: not because of time.
    """

    status = 500
    kind = "server_error"
    code: str | None = None

    def __init__(self, problem: str, *, where: str = "", remedy: str = "", retry_after_seconds: int | None = None):
        super().__init__(problem, where=where, remedy=remedy)
        self.retry_after_seconds = retry_after_seconds


class InvalidRequest(RequestError, ValueError):
    """Malformed, contradictory or impossible to honour."""

    status = 400
    kind = "invalid_request_error"


class ContextOverflow(InvalidRequest):
    """Prompt and limit do not fit the model's context, or the server's memory."""

    code = "context_length_exceeded"


class Unauthorized(RequestError):
    """No key, or a wrong one."""

    status = 401
    kind = "authentication_error"
    code = "invalid_api_key"


class Forbidden(RequestError):
    """The caller is known and may not do this."""

    status = 403
    kind = "permission_error"
    code = "permission_denied"


class NotFound(RequestError):
    """No such model, route or stored response, or none that the caller may know of."""

    status = 404
    kind = "invalid_request_error"
    code = "not_found"


class Busy(RequestError):
    """The queue is full or a limit of the caller is reached; sent with Retry-After."""

    status = 429
    kind = "rate_limit_error"
    code = "rate_limit_exceeded"


class Unavailable(RequestError):
    """The server is shutting down, or the engine behind it has failed."""

    status = 503
    kind = "server_error"
    code = "unavailable"
