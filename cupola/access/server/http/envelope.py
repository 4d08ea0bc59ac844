"""Around every call, of whatever route: its id, its last resort, the Host check, and the count of it.

Not here: who may call (`call.py`). Invariant: every answer has an x-request-id, and no exception reaches the network.
"""

import logging
import re
import secrets
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cupola.access.errors import AccessError, Denied
from cupola.access.server.http.call import Service, State
from cupola.access.server.http.errors import REQUEST_ID, SlowReader, Stopping, as_access_error, error_response

logger = logging.getLogger(__name__)

_SENT_ID = re.compile(r"[ -~]{1,256}")
"""A request's id that is sent back as it came: AuthZEN lets callers send any text."""


class Envelope:
    """ASGI middleware, the outermost.

    Args:
        app: what is inside.
        service: what all calls share.
    """

    def __init__(self, app: ASGIApp, service: Service):
        self.app, self.service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        sent = Headers(scope=scope).get(REQUEST_ID, "")
        name = sent if _SENT_ID.fullmatch(sent) else f"req_{secrets.token_hex(12)}"
        state = scope["state"] = {"request_id": name, "route": "none"}
        began, status = time.perf_counter(), 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(raw=message.setdefault("headers", []))
                headers[REQUEST_ID] = headers["fga-request-id"] = name
                headers["fga-query-duration-ms"] = str(round((time.perf_counter() - began) * 1000))
                if self.service.state is State.STOPPING:
                    headers["connection"] = "close"
            await send(message)

        try:
            if (refusal := self._refusal(scope)) is not None:
                await error_response(refusal)(scope, receive, sending)
            else:
                await self.app(scope, receive, sending)
        except SlowReader:
            logger.warning("%s: the client did not read its answer", name)
        except Exception as error:
            logger.exception("%s: %s %s failed", name, scope["method"], scope["path"])
            if not status:
                await error_response(as_access_error(error))(scope, receive, sending)
        finally:
            took = time.perf_counter() - began
            self.service.metrics.answered(state["route"], scope["method"], status or 499, took)

    def _refusal(self, scope: Scope) -> AccessError | None:
        hosts = self.service.hosts
        if hosts is not None:
            host = host_name(Headers(scope=scope).get("host", ""))
            if host not in hosts:
                return Denied(
                    f"this server is not called {host[:200]!r}",
                    where="Host",
                    remedy=f"Call it by one of its names: {', '.join(sorted(hosts))}.",
                )
        if self.service.state is State.STOPPING and scope["path"] != "/health":
            return Stopping("the server is shutting down", remedy="Send it again in a while.")
        return None


def host_name(host: str) -> str:
    """Returns a Host header without its port, in lower case, and an IPv6 address without brackets."""
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if host.count(":") == 1 else host
