"""Server-sent events as the OpenAI clients read them.

Not here: what the chunks hold (`chat.py`, `completions.py`). Invariant: a stream ends with [DONE]
unless an error or the client's going ended it; an error is one event with the body of an error.
"""

import logging
from collections.abc import AsyncIterator
from typing import Any

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from cupola.serve.http.errors import SlowReader, as_request_error, error_body

logger = logging.getLogger(__name__)

DONE = b"data: [DONE]\n\n"

_SEPARATORS = {separator.encode(): f"\\u{ord(separator):04x}".encode() for separator in "\u0085\u2028\u2029"}
"""Characters at which many clients break lines, though events end at line feeds alone: written as escapes."""


def event(data: Any, name: str | None = None) -> bytes:
    """Returns one event with JSON in it; `name` is its type, for the APIs that have types."""
    head = f"event: {name}\n".encode() if name else b""
    body = orjson.dumps(data)
    for separator, escape in _SEPARATORS.items():
        body = body.replace(separator, escape)
    return head + b"data: " + body + b"\n\n"


class EventStream(Response):
    """Sends events as they come.

    Args:
        events: bytes of each; an error that it raises becomes the last event.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[bytes]):
        self.events = events
        self.status_code, self.background = 200, None
        self.init_headers({"cache-control": "no-cache", "x-accel-buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            async for data in self.events:
                await send({"type": "http.response.body", "body": data, "more_body": True})
        except SlowReader:
            raise
        except Exception as error:
            told = as_request_error(error)
            if told is not error and told.status >= 500:
                logger.exception("%s: failed while answering", scope["state"]["request_id"])
            await send({"type": "http.response.body", "body": event(error_body(told)), "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
