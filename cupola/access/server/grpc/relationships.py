"""Relationships as they are written: read, write, delete, import, export.

Invariant: a page is read at the revision that its cursor names; an import is one revision or nothing.
"""

from collections.abc import Callable, Iterator
from typing import Any

from authzed.api.v1 import core_pb2 as core
from authzed.api.v1 import permission_service_pb2 as api

from cupola.access.consistency import at_exactly
from cupola.access.errors import StoreUnavailable, TooMuch
from cupola.access.relation import Filter, Relationship, Surplus
from cupola.access.server.grpc.cursor import Cursors, Place
from cupola.access.server.grpc.gate import Call
from cupola.access.wire import (
    read_filter,
    read_preconditions,
    read_relationship,
    read_struct,
    read_update,
    write_relationship,
)

PAGE = 1000
"""Relationships that are read from the store, and exported in a message, at a time."""
MOST_EXPORTED = 100_000
"""Relationships that an export may put into a message."""
_SETTLE_SECONDS = 0.05


def read_relationships(call: Call, request: api.ReadRelationshipsRequest) -> Iterator[api.ReadRelationshipsResponse]:
    """Answers with the relationships that match."""
    filter, cursors = read_filter(request.relationship_filter), Cursors(request)
    for token, page in _pages(
        call, filter, cursors.place(), lambda left: min(left or PAGE, PAGE), request.optional_limit
    ):
        for relationship in page:
            yield api.ReadRelationshipsResponse(
                read_at=core.ZedToken(token=token),
                relationship=write_relationship(relationship),
                after_result_cursor=cursors.after(token, _key(relationship)),
            )


def export_bulk(
    call: Call, request: api.ExportBulkRelationshipsRequest
) -> Iterator[api.ExportBulkRelationshipsResponse]:
    """Answers with all relationships, or those that match, `optional_limit` in each message."""
    size = request.optional_limit or PAGE
    if size > MOST_EXPORTED:
        raise TooMuch(
            f"{size} relationships in a message, at most {MOST_EXPORTED}",
            where="optional_limit",
            remedy="Ask for less; what is left comes in further messages.",
        )
    filtered, cursors = request.HasField("optional_relationship_filter"), Cursors(request)
    filter = read_filter(request.optional_relationship_filter, "optional_relationship_filter") if filtered else Filter()
    for token, page in _pages(call, filter, cursors.place(), lambda _: size):
        if page:
            yield api.ExportBulkRelationshipsResponse(
                after_result_cursor=cursors.after(token, _key(page[-1])),
                relationships=[write_relationship(relationship) for relationship in page],
            )


def write_relationships(call: Call, request: api.WriteRelationshipsRequest) -> api.WriteRelationshipsResponse:
    """Makes all changes or none."""
    call.graph.limits.check("updates", len(request.updates))
    token = call.graph.write(
        *(read_update(update) for update in request.updates),
        require=read_preconditions(request.optional_preconditions),
        metadata=_metadata(request),
    )
    return api.WriteRelationshipsResponse(written_at=core.ZedToken(token=token))


def delete_relationships(call: Call, request: api.DeleteRelationshipsRequest) -> api.DeleteRelationshipsResponse:
    """Deletes what matches: all of it, or as many as the limit says where a part will do."""
    limit, filter = request.optional_limit or None, read_filter(request.relationship_filter)
    token, count = call.graph.delete(
        filter,
        require=read_preconditions(request.optional_preconditions),
        limit=limit,
        metadata=_metadata(request),
        surplus=Surplus.STAYS if request.optional_allow_partial_deletions else Surplus.REFUSED,
    )
    progress = api.DeleteRelationshipsResponse.DELETION_PROGRESS_COMPLETE
    if count == limit and call.graph.read(filter, consistency=at_exactly(token), limit=1)[1]:
        progress = api.DeleteRelationshipsResponse.DELETION_PROGRESS_PARTIAL
    return api.DeleteRelationshipsResponse(
        deleted_at=core.ZedToken(token=token), deletion_progress=progress, relationships_deleted_count=count
    )


def import_bulk(call: Call, requests: Iterator[Any]) -> api.ImportBulkRelationshipsResponse:
    """Creates all relationships that the caller sends, at one revision."""

    def sent() -> Iterator[Relationship]:
        for request in requests:
            call.charge(len(request.relationships))
            yield from map(read_relationship, request.relationships)
        # A caller who goes away looks, for a moment, like one who is done: what it sent must not become true.
        if call.gone.wait(_SETTLE_SECONDS):
            raise StoreUnavailable("the caller went away before it was done", remedy="Send it again.")

    return api.ImportBulkRelationshipsResponse(num_loaded=call.graph.load(sent()))


def write_cost(request: api.WriteRelationshipsRequest) -> int:
    """Returns how many changes a write makes."""
    return len(request.updates)


def no_cost(request: Any) -> int:
    """Returns nothing, where a call is charged as it goes on."""
    return 0


def _pages(
    call: Call, filter: Filter, place: Place, size: Callable[[int | None], int], limit: int = 0
) -> Iterator[tuple[str, list[Relationship]]]:
    """The pages of a filter, all at the revision of the first, until the limit or the end."""
    after, left, consistency = _place(place.after), limit or None, place.consistency
    while not call.gone.is_set():
        wanted = size(left)
        token, page = call.graph.read(filter, consistency=consistency, after=after, limit=wanted)
        yield token, list(page)
        left = None if left is None else left - len(page)
        if len(page) < wanted or left == 0:
            return
        after, consistency = page[-1], at_exactly(token)


def _key(relationship: Relationship) -> str:
    return str(Relationship(*relationship.key))


def _place(text: str) -> Relationship | None:
    return Relationship.parse(text) if text else None


def _metadata(request: Any) -> dict[str, Any] | None:
    given = request.HasField("optional_transaction_metadata")
    return read_struct(request.optional_transaction_metadata) if given else None
