"""GET /v1/watch: every write, in order, as server-sent events, resumable from a token.

Invariant: an event's id is the token to go on from, and whoever goes on from the last one seen misses nothing and
sees nothing twice. A heartbeat comes where nothing is written, so that a dead connection is known for one.
Source: Pang et al. 2019, "Zanzibar", section 2.4.3.
"""

import functools
import json
import math
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from starlette.responses import Response, StreamingResponse

from cupola.access.errors import AccessError, InvalidArgument
from cupola.access.graph import Graph
from cupola.access.relation import format_time
from cupola.access.server.http.call import Call, Endpoint, State
from cupola.access.server.http.errors import as_access_error, error_body
from cupola.access.server.identity import Role
from cupola.access.server.quota import Work
from cupola.access.store.protocol import Change
from cupola.access.token import token_of

SLICE_SECONDS = 1.0
"""For which a thread waits at one go, so that a server that stops waits no longer."""
HEARTBEAT_SECONDS = 15.0


async def watch(call: Call) -> Response:
    """Streams the writes after a token, or after now."""
    query = call.query("after", "type", "heartbeat_seconds")
    pulse = _seconds(query.get("heartbeat_seconds"))
    after = call.http.headers.get("last-event-id") or query.get("after", "")
    # The first look is before the answer begins, so that a bad token is an error and no stream.
    start, page = await call.ask(functools.partial(_look, after=after))
    events = _events(call, start, page, query.get("type", ""), pulse)
    headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
    return StreamingResponse(events, headers=headers, media_type="text/event-stream")


async def _events(
    call: Call, token: str, page: list[tuple[str, Change]], type: str, pulse: float
) -> AsyncIterator[bytes]:
    yield _event("heartbeat", token, {"revision": token})
    quiet = 0.0
    try:
        while call.service.state is State.SERVING:
            for token, change in page:
                if told := _told(change, type):
                    yield _event("change", token, {"revision": token, **told})
            if page:
                quiet = 0.0
            elif quiet >= pulse:
                quiet = 0.0
                yield _event("heartbeat", token, {"revision": token})
            slice = min(SLICE_SECONDS, pulse)
            ready = await call.service.watchers.run(functools.partial(_wait, call, token, slice))
            quiet += 0.0 if ready else slice
            token, page = await call.ask(functools.partial(_look, after=token)) if ready else (token, [])
    except Exception as error:
        yield _event("error", token, error_body(as_access_error(error)))
        if not isinstance(error, AccessError):
            raise


def _look(graph: Graph, after: str) -> tuple[str, list[tuple[str, Change]]]:
    """Returns the token to go on from, and the writes after a token, each with its own."""
    if not after:
        return graph.token(), []
    token, changes = graph.changes(after)
    return token, [(token_of(graph.store.id, change.revision), change) for change in changes]


def _wait(call: Call, after: str, seconds: float) -> bool:
    with call.service.tenants.graph(call.caller.tenant) as graph:
        return graph.wait(after, seconds)


def _told(change: Change, type: str) -> dict[str, Any]:
    """A write as clients see it; empty where nothing in it is of the type that they asked for."""
    updates = [one for one in change.updates if type in ("", one.relationship.object.type)]
    if not updates and not change.schema_id:
        return {}
    return {
        "time": format_time(change.time_seconds),
        "updates": [{"operation": one.operation.value, "relationship": str(one.relationship)} for one in updates],
        "metadata": json.loads(change.metadata) if change.metadata else None,
        "schema_id": change.schema_id,
    }


def _event(name: str, token: str, data: dict[str, Any]) -> bytes:
    return f"event: {name}\nid: {token}\ndata: ".encode() + msgspec.json.encode(data) + b"\n\n"


def _seconds(text: str | None) -> float:
    try:
        seconds = HEARTBEAT_SECONDS if text is None else float(text)
    except ValueError:
        seconds = math.nan
    if not 0.05 <= seconds <= 600:
        raise InvalidArgument(
            f"{(text or '')[:40]!r} is no number of seconds", where="heartbeat_seconds", remedy="Send 0.05 to 600."
        )
    return seconds


ROUTES = [Endpoint("GET", "/v1/watch", Role.READER, watch, work=Work.STREAMS)]
