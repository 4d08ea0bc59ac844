"""Plain REST's relationships: read, write, delete, and a token of now.

Not here: the fields of requests and answers (`records.py`), watching (`watch.py`).
"""

from collections.abc import Sequence

from starlette.responses import Response

from cupola.access.consistency import LATEST, at_exactly
from cupola.access.errors import InvalidArgument
from cupola.access.graph import Graph
from cupola.access.relation import Filter, Relationship, create, delete, touch
from cupola.access.server.http.call import Call, Endpoint
from cupola.access.server.http.cursor import cursor_of, place_of
from cupola.access.server.http.errors import json_response
from cupola.access.server.http.questions import check_limit
from cupola.access.server.http.records import Delete, Read, Write, consistency
from cupola.access.server.identity import Role
from cupola.access.server.quota import Spending


async def read(call: Call) -> Response:
    """Returns a page of the relationships that match, as they were written."""
    asked = call.parse(Read)
    check_limit(asked.limit, call.service.bounds.page)
    filter, wanted, after = asked.filter.filter(), consistency(asked.consistency), None
    if asked.cursor:
        token, last = map(str, place_of(asked.cursor, filter, 2))
        wanted, after = at_exactly(token), Relationship.parse(last)

    def run(graph: Graph) -> tuple[str, Sequence[Relationship]]:
        return graph.read(filter, consistency=wanted, after=after, limit=asked.limit + 1)

    token, found = await call.ask(run)
    page = found[: asked.limit]
    cursor = cursor_of(filter, token, str(page[-1])) if len(found) > asked.limit else ""
    return json_response({"revision": token, "relationships": [str(one) for one in page], "cursor": cursor})


async def write(call: Call) -> Response:
    """Makes all changes or none, and returns the token of that."""
    asked = call.parse(Write)
    updates = [
        *(create(text) for text in asked.create),
        *(touch(text) for text in asked.touch),
        *(delete(text) for text in asked.delete),
    ]
    if not updates:
        raise InvalidArgument(
            "nothing is to be changed", where="body", remedy='Send {"touch": ["model:kiln#reader@user:ada"]}, say.'
        )
    require = [one.precondition() for one in asked.require]
    call.spend(Spending.WRITES, len(updates))

    def run(graph: Graph) -> str:
        return graph.write(*updates, require=require, metadata=asked.metadata, schema_id=asked.schema_id)

    token = await call.ask(run)
    changes = [f"{one.operation.value} {one.relationship}" for one in updates]
    call.wrote("write", updates=len(updates), changes=changes, metadata=asked.metadata, revision=token)
    return json_response({"revision": token})


async def remove(call: Call) -> Response:
    """Deletes what matches, and returns the token of that and how many they were."""
    asked = call.parse(Delete)
    filter, require = asked.filter.filter(), [one.precondition() for one in asked.require]
    if filter == Filter():
        raise InvalidArgument(
            "the filter is empty, which is everything", where="filter", remedy="Name at least a type or a subject."
        )
    if asked.limit is not None and asked.limit < 1:
        raise InvalidArgument(f"{asked.limit} is no limit", where="limit", remedy="Send 1 or more, or leave it out.")

    call.spend(Spending.WRITES, 1)

    def run(graph: Graph) -> tuple[str, int]:
        return graph.delete(filter, require=require, limit=asked.limit, metadata=asked.metadata)

    token, count = await call.ask(run)
    call.wrote("delete", updates=count, filter=filter._asdict(), metadata=asked.metadata, revision=token)
    return json_response({"revision": token, "deleted": count})


async def revision(call: Call) -> Response:
    """Returns a token of now, to be kept with content that was changed."""
    return json_response({"revision": await call.ask(lambda graph: graph.token(LATEST))})


ROUTES = [
    Endpoint("POST", "/v1/relationships/read", Role.READER, read),
    Endpoint("POST", "/v1/relationships/write", Role.WRITER, write),
    Endpoint("POST", "/v1/relationships/delete", Role.WRITER, remove),
    Endpoint("GET", "/v1/revision", Role.READER, revision),
]
