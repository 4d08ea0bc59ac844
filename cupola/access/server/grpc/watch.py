"""Watching: every write after a token, in order, for as long as the caller listens.

Invariant: `changes_through` of the last message that arrived is where to go on from: nothing is lost and nothing
comes twice. Without a start, it begins with what is written after the call came in.
"""

import json
from collections.abc import Iterator
from typing import Any

from authzed.api.v1 import core_pb2 as core
from authzed.api.v1 import watch_service_pb2 as api

from cupola.access.consistency import LATEST
from cupola.access.errors import InvalidArgument, StoreUnavailable
from cupola.access.relation import Filter, Relationship
from cupola.access.server.grpc.gate import Call
from cupola.access.store.protocol import Change
from cupola.access.token import token_of
from cupola.access.wire import read_filter, write_struct, write_update

BATCH = 100
"""Writes that are read from the store at a time."""
LISTEN_SECONDS = 0.5
"""How long the store is asked to wait for a write, before a look at whether anybody listens."""


def watch(call: Call, request: api.WatchRequest) -> Iterator[api.WatchResponse]:
    """Answers with the writes after the start cursor, or after now."""
    kinds = set(request.optional_update_kinds) - {api.WATCH_KIND_UNSPECIFIED}
    kinds = kinds or {api.WATCH_KIND_INCLUDE_RELATIONSHIP_UPDATES}
    filters = _filters(request)
    checkpoints = api.WATCH_KIND_INCLUDE_CHECKPOINTS in kinds
    at = request.optional_start_cursor.token or call.graph.token(LATEST)
    # The first sign of life says that nothing written from now on is missed.
    if checkpoints:
        yield _message(at, is_checkpoint=True)
    quiet_seconds = 0.0
    while not call.gone.is_set():
        after, changes = call.graph.changes(at, limit=BATCH)
        for change in changes:
            yield from _messages(call, change, kinds, filters)
        if changes and checkpoints:
            yield _message(after, is_checkpoint=True)
        quiet_seconds = 0.0 if changes else quiet_seconds
        at = after
        if call.stopping.is_set():
            raise StoreUnavailable(
                "the server is shutting down", where="watch", remedy=f"Watch again from {at}, which is where it ended."
            )
        listening = min(LISTEN_SECONDS, call.pulse_seconds)
        if not changes and not call.graph.wait(at, listening):
            quiet_seconds += listening
        if checkpoints and quiet_seconds >= call.pulse_seconds:
            quiet_seconds = 0.0
            yield _message(at, is_checkpoint=True)


def _messages(
    call: Call, change: Change, kinds: set[Any], filters: tuple[frozenset[str], list[Filter]]
) -> Iterator[api.WatchResponse]:
    token = token_of(call.graph.store.id, change.revision)
    metadata = json.loads(change.metadata) if change.metadata else None
    wanted = [update for update in change.updates if _wanted(update.relationship, *filters)]
    if wanted and api.WATCH_KIND_INCLUDE_RELATIONSHIP_UPDATES in kinds:
        yield _message(token, metadata, updates=[write_update(update) for update in wanted])
    if change.schema_id and api.WATCH_KIND_INCLUDE_SCHEMA_UPDATES in kinds:
        yield _message(token, metadata, schema_updated=True)


def _message(token: str, metadata: dict[str, Any] | None = None, **fields: Any) -> api.WatchResponse:
    message = api.WatchResponse(changes_through=core.ZedToken(token=token), **fields)
    if metadata is not None:
        message.optional_transaction_metadata.CopyFrom(write_struct(metadata))
        message.full_revision_metadata.add().CopyFrom(message.optional_transaction_metadata)
    return message


def _filters(request: api.WatchRequest) -> tuple[frozenset[str], list[Filter]]:
    if request.optional_object_types and request.optional_relationship_filters:
        raise InvalidArgument(
            "object types and relationship filters are both given",
            where="optional_object_types",
            remedy="Give the types as filters too: a filter with resource_type alone.",
        )
    filters = [read_filter(one, "optional_relationship_filters") for one in request.optional_relationship_filters]
    return frozenset(request.optional_object_types), filters


def _wanted(relationship: Relationship, types: frozenset[str], filters: list[Filter]) -> bool:
    return (not types or relationship.object.type in types) and (
        not filters or any(filter.matches(relationship) for filter in filters)
    )
