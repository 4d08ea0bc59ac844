"""The guard of somebody's own ASGI application: `require("document:{id}#view")` before a route's handler.

Not here: our own servers (`server/`). Works with Starlette and FastAPI, and with anything else that is ASGI.
Invariant: a handler behind it runs only for a subject that has the permission, asked at that moment; whoever has not
is told 403, or 404 where existence is a secret, and a caller without a name 401.
"""

import asyncio
import enum
import inspect
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from cupola.access.consistency import FAST, Consistency
from cupola.access.decision import Decision
from cupola.access.errors import InvalidArgument, Late, StoreUnavailable, TooMuch
from cupola.access.graph import Graph
from cupola.access.relation import Object, Subject

SubjectOf = Callable[[HTTPConnection], str | Awaitable[str | None] | None]
"""Says who asks, such as "user:ada"; None: nobody that is known."""
ContextOf = Callable[[HTTPConnection], Mapping[str, Any]]
"""Returns parameters for conditions."""

STATE = "access"
"""Name in the scope's state under which the guard is found."""

_PLACE = re.compile(r"\{(\w+)\}")


class Hidden(enum.Enum):
    """What a caller without the permission is told."""

    NO = "no"
    """403: it is there, and not for the caller."""
    YES = "yes"
    """404: as if there were nothing."""


class Guard:
    """ASGI middleware that gives the routes behind it a graph to ask.

    Args:
        app: what is behind it.
        graph: that is asked.
        subject: says who asks.
        context: parameters for conditions; None: there are none.
    """

    def __init__(self, app: ASGIApp, graph: Graph, subject: SubjectOf, context: ContextOf | None = None):
        self.app, self.graph, self._subject, self._context = app, graph, subject, context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            scope.setdefault("state", {})[STATE] = self
        await self.app(scope, receive, send)

    async def decide(
        self, connection: HTTPConnection, object: Object, permission: str, consistency: Consistency = FAST
    ) -> Decision:
        """Returns whether the caller has a permission.

        Raises:
            HTTPException: 401: nobody says who calls.
        """
        found = self._subject(connection)
        name = await found if inspect.isawaitable(found) else found
        if not name:
            raise HTTPException(401, "nobody is signed in", {"www-authenticate": "Bearer"})
        subject, context = Subject.parse(name), {} if self._context is None else self._context(connection)
        return await asyncio.to_thread(
            self.graph.check, (object, permission), subject, context=context, consistency=consistency
        )


class Require:
    """A dependency: called with a request, it returns the decision, or raises the HTTP error.

    Args:
        permission: such as "document:{id}#view"; names in braces are parameters of the path.
        hidden: what a caller without it is told.
        consistency: how fresh the answer must be.

    Raises:
        InvalidArgument: it names no permission.
    """

    def __init__(self, permission: str, *, hidden: Hidden = Hidden.NO, consistency: Consistency = FAST):
        self._object, _, self._permission = permission.partition("#")
        Object.parse(_PLACE.sub("x", self._object))
        if not self._permission:
            raise InvalidArgument(f"{permission!r} names no permission", remedy="Write TYPE:{parameter}#PERMISSION")
        self._hidden, self._consistency = hidden, consistency

    # FastAPI reads the annotation and passes the request; with Starlette the caller does.
    async def __call__(self, request: HTTPConnection) -> Decision:
        """Returns the decision, which allows.

        Raises:
            HTTPException: 401, 403 or 404; 429, 503 or 504 where the graph cannot answer now.
            AccessError: the graph has no such type or permission, which is the application's mistake.
        """
        guard = getattr(request.state, STATE, None)
        if not isinstance(guard, Guard):
            raise RuntimeError("the application has no access guard: app.add_middleware(Guard, graph=..., subject=...)")
        try:
            decision = await guard.decide(request, self._asked(request), self._permission, self._consistency)
        except InvalidArgument:
            # The path holds what no object is called.
            raise HTTPException(404, "not found") from None
        except (Late, StoreUnavailable, TooMuch) as error:
            raise HTTPException(error.status.http, error.problem) from None
        if decision.allowed:
            return decision
        if self._hidden is Hidden.YES:
            raise HTTPException(404, "not found")
        lacks = f"; it may be with {', '.join(decision.missing)}" if decision.missing else ""
        raise HTTPException(403, f"{self._permission} is not allowed{lacks}")

    def _asked(self, connection: HTTPConnection) -> Object:
        """The object that the path names; a parameter never changes the type."""
        type, _, id = self._object.partition(":")

        def value(found: re.Match[str]) -> str:
            if found[1] not in connection.path_params:
                raise RuntimeError(f"the path has no parameter {found[1]!r}, which {self._object!r} needs")
            return str(connection.path_params[found[1]])

        return Object.parse(f"{type}:{_PLACE.sub(value, id)}")


def require(permission: str, *, hidden: Hidden = Hidden.NO, consistency: Consistency = FAST) -> Require:
    """Returns a dependency that lets only those pass who have a permission.

    With FastAPI: `@app.get("/documents/{id}", dependencies=[Depends(require("document:{id}#view"))])`; with
    Starlette: `await require("document:{id}#view")(request)` at the head of a handler.

    Args:
        permission: such as "document:{id}#view"; names in braces are parameters of the path.
        hidden: what a caller without it is told: 403, or 404 where existence is a secret.
        consistency: how fresh the answer must be.

    Raises:
        InvalidArgument: it names no permission.
    """
    return Require(permission, hidden=hidden, consistency=consistency)
