"""Watching, as the clients of others do it."""

import threading
import time

import grpc
import pytest
from authzed.api.v1 import (
    DeleteRelationshipsRequest,
    RelationshipFilter,
    RelationshipUpdate,
    WatchRequest,
    WriteSchemaRequest,
    ZedToken,
)
from authzed.api.v1 import watch_service_pb2 as api

UPDATES, SCHEMAS, CHECKPOINTS = (
    api.WATCH_KIND_INCLUDE_RELATIONSHIP_UPDATES,
    api.WATCH_KIND_INCLUDE_SCHEMA_UPDATES,
    api.WATCH_KIND_INCLUDE_CHECKPOINTS,
)


def ids(message) -> list[str]:
    return [one.relationship.resource.object_id for one in message.updates]


def take(stream, number: int) -> list:
    found = [next(stream) for _ in range(number)]
    stream.cancel()
    return found


def test_every_write_after_a_token_in_order(authzed, m):
    start = authzed.WriteRelationships(m.touches("model:before#owner@user:ada")).written_at
    tokens = []
    for number in range(5):
        request = m.touches(f"model:m{number}#owner@user:ada")
        request.optional_transaction_metadata.update({"number": number})
        tokens.append(authzed.WriteRelationships(request).written_at)
    found = take(authzed.Watch(WatchRequest(optional_start_cursor=start)), 5)
    assert [ids(one) for one in found] == [[f"m{number}"] for number in range(5)]
    assert [one.changes_through for one in found] == tokens
    assert [dict(one.optional_transaction_metadata) for one in found] == [{"number": number} for number in range(5)]
    again = take(authzed.Watch(WatchRequest(optional_start_cursor=found[2].changes_through)), 2)
    assert [ids(one) for one in again] == [["m3"], ["m4"]]


def test_what_a_write_did(authzed, m):
    start = authzed.WriteRelationships(m.touches("model:kiln#owner@user:ada")).written_at
    authzed.WriteRelationships(m.touches("model:kiln#owner@user:ada", "model:kiln#owner@user:bob"))
    filter = RelationshipFilter(resource_type="model")
    authzed.DeleteRelationships(DeleteRelationshipsRequest(relationship_filter=filter))
    written, deleted = take(authzed.Watch(WatchRequest(optional_start_cursor=start)), 2)
    assert [one.relationship.subject.object.object_id for one in written.updates] == ["bob"], (
        "the other changed nothing"
    )
    assert {one.operation for one in deleted.updates} == {RelationshipUpdate.OPERATION_DELETE}
    assert len(deleted.updates) == 2


def test_from_now_on(authzed, m):
    authzed.WriteRelationships(m.touches("model:before#owner@user:ada"))
    stream = authzed.Watch(WatchRequest(optional_update_kinds=[UPDATES, CHECKPOINTS]))
    assert next(stream).is_checkpoint, "from here on nothing is missed"
    found = []

    def listen():
        found.extend(next(one for one in stream if one.updates) for _ in range(3))

    listening = threading.Thread(target=listen)
    listening.start()
    for number in range(3):
        authzed.WriteRelationships(m.touches(f"model:m{number}#owner@user:ada"))
        time.sleep(0.05)
    listening.join(10)
    stream.cancel()
    assert [ids(one) for one in found] == [["m0"], ["m1"], ["m2"]]


def test_signs_of_life(authzed, m):
    stream = authzed.Watch(WatchRequest(optional_update_kinds=[CHECKPOINTS]))
    began = time.monotonic()
    found = take(stream, 4)
    assert all(one.is_checkpoint for one in found)
    assert len({one.changes_through.token for one in found}) == 1
    assert time.monotonic() - began >= 0.5


def test_schemas(authzed, m):
    start = authzed.WriteRelationships(m.touches("model:kiln#owner@user:ada")).written_at
    authzed.WriteRelationships(m.touches("model:kiln#owner@user:bob"))
    token = authzed.WriteSchema(WriteSchemaRequest(schema=m.SCHEMA + "\ndefinition more {}")).written_at
    request = WatchRequest(optional_start_cursor=start, optional_update_kinds=[SCHEMAS])
    (found,) = take(authzed.Watch(request), 1)
    assert found.schema_updated
    assert found.changes_through == token


@pytest.mark.parametrize(
    "request_of",
    [
        lambda: {"optional_object_types": ["group"]},
        lambda: {"optional_relationship_filters": [RelationshipFilter(resource_type="group")]},
        lambda: {
            "optional_relationship_filters": [
                RelationshipFilter(optional_resource_id="g"),
                RelationshipFilter(optional_resource_id="never"),
            ]
        },
    ],
)
def test_filters(authzed, m, request_of):
    start = authzed.WriteRelationships(m.touches("model:before#owner@user:ada")).written_at
    authzed.WriteRelationships(m.touches("model:kiln#owner@user:ada"))
    authzed.WriteRelationships(m.touches("model:kiln#owner@user:bob", "group:g#member@user:bob"))
    (found,) = take(authzed.Watch(WatchRequest(optional_start_cursor=start, **request_of())), 1)
    assert ids(found) == ["g"]


@pytest.mark.parametrize(
    "request_",
    [
        WatchRequest(
            optional_object_types=["group"], optional_relationship_filters=[RelationshipFilter(resource_type="group")]
        ),
        WatchRequest(optional_relationship_filters=[RelationshipFilter()]),
        WatchRequest(optional_start_cursor=ZedToken(token="nonsense")),
    ],
)
def test_a_watch_that_cannot_be(authzed, m, request_):
    assert m.refused(lambda: authzed.Watch(request_)).code is grpc.StatusCode.INVALID_ARGUMENT


def test_a_caller_who_goes_away_is_not_watched_for(served, m):
    seen = []
    client = m.connect(served(observe=seen.append))
    client.WriteSchema(WriteSchemaRequest(schema=m.SCHEMA))
    stream = client.Watch(WatchRequest(optional_update_kinds=[CHECKPOINTS]))
    next(stream)
    stream.cancel()
    until = time.monotonic() + 5.0
    while len(seen) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    assert [(one.method, one.code) for one in seen] == [("WriteSchema", "OK"), ("Watch", "CANCELLED")]


def test_a_deadline(authzed, m):
    found = m.refused(lambda: authzed.Watch(WatchRequest(optional_update_kinds=[CHECKPOINTS]), timeout=0.5))
    assert found.code is grpc.StatusCode.DEADLINE_EXCEEDED
