"""Reading, writing, deleting, importing and exporting, as the clients of others do it."""

import time

import grpc
import pytest
from authzed.api.v1 import (
    BulkExportRelationshipsRequest,
    BulkImportRelationshipsRequest,
    Consistency,
    Cursor,
    DeleteRelationshipsRequest,
    DeleteRelationshipsResponse,
    Precondition,
    ReadRelationshipsRequest,
    RelationshipFilter,
    RelationshipUpdate,
    SubjectFilter,
    WriteRelationshipsRequest,
)
from authzed.api.v1.permission_service_pb2 import ExportBulkRelationshipsRequest
from google.protobuf import struct_pb2, timestamp_pb2

CREATE, TOUCH, DELETE = (
    RelationshipUpdate.OPERATION_CREATE,
    RelationshipUpdate.OPERATION_TOUCH,
    RelationshipUpdate.OPERATION_DELETE,
)
FULLY = Consistency(fully_consistent=True)


def texts(answers) -> list[str]:
    found = (getattr(one, "relationship", one) for one in answers)
    return [
        f"{one.resource.object_type}:{one.resource.object_id}#{one.relation}"
        f"@{one.subject.object.object_type}:{one.subject.object.object_id}"
        + (f"#{one.subject.optional_relation}" if one.subject.optional_relation else "")
        for one in found
    ]


FACTS = sorted(f"group:g{number}#member@user:u{other}" for number in range(4) for other in range(5))


@pytest.fixture
def filled(authzed, m):
    return authzed.WriteRelationships(m.touches(*FACTS, "model:kiln#reader@group:g1#member")).written_at


@pytest.mark.parametrize(
    ("filter", "expected"),
    [
        ({"resource_type": "group"}, FACTS),
        ({"resource_type": "group", "optional_resource_id": "g1"}, [one for one in FACTS if "g1#" in one]),
        ({"optional_resource_id_prefix": "k"}, ["model:kiln#reader@group:g1#member"]),
        ({"optional_relation": "reader"}, ["model:kiln#reader@group:g1#member"]),
        (
            {"optional_subject_filter": SubjectFilter(subject_type="user", optional_subject_id="u3")},
            [one for one in FACTS if one.endswith("u3")],
        ),
        (
            {
                "optional_subject_filter": SubjectFilter(
                    subject_type="group", optional_relation=SubjectFilter.RelationFilter(relation="member")
                )
            },
            ["model:kiln#reader@group:g1#member"],
        ),
        (
            {
                "resource_type": "model",
                "optional_subject_filter": SubjectFilter(
                    subject_type="group", optional_relation=SubjectFilter.RelationFilter()
                ),
            },
            [],
        ),
    ],
)
def test_reading_with_filters(authzed, filled, filter, expected):
    found = list(
        authzed.ReadRelationships(
            ReadRelationshipsRequest(consistency=FULLY, relationship_filter=RelationshipFilter(**filter))
        )
    )
    assert texts(found) == expected
    assert all(one.read_at == filled for one in found)


@pytest.mark.parametrize("size", [1, 7, 20, 100])
def test_pages_show_one_revision_and_together_everything_once(authzed, filled, m, size):
    found, cursor = [], None
    while True:
        page = list(authzed.ReadRelationships(m.read_request("group", optional_limit=size, optional_cursor=cursor)))
        found += texts(page)
        assert len(page) <= size
        assert all(one.read_at == filled for one in page)
        if len(page) < size:
            break
        cursor = page[-1].after_result_cursor
        # What is written in between does not show.
        authzed.WriteRelationships(m.touches(f"group:g1#member@user:late{len(found)}"))
    assert found == FACTS


def test_a_cursor_that_is_none_or_of_another_request(authzed, filled, m):
    cursor = next(iter(authzed.ReadRelationships(m.read_request("group", optional_limit=1)))).after_result_cursor
    assert list(authzed.ReadRelationships(m.read_request("group", optional_limit=3, optional_cursor=cursor)))
    for other in (
        m.read_request("model", optional_cursor=cursor),
        m.read_request("group", optional_cursor=Cursor(token=cursor.token[:-4])),
        m.read_request("group", optional_cursor=Cursor(token="nonsense!")),
        ExportBulkRelationshipsRequest(optional_cursor=cursor),
    ):
        method = (
            authzed.ExportBulkRelationships
            if isinstance(other, ExportBulkRelationshipsRequest)
            else authzed.ReadRelationships
        )
        found = m.refused(lambda method=method, other=other: method(other))
        assert (found.code.name, found.reason) == ("FAILED_PRECONDITION", "ERROR_REASON_INVALID_CURSOR")


@pytest.mark.parametrize(
    "filter",
    [
        {},
        {"resource_type": "group", "optional_resource_id": "a", "optional_resource_id_prefix": "b"},
        {"optional_subject_filter": SubjectFilter()},
    ],
)
def test_a_filter_that_cannot_be(authzed, m, filter):
    request = ReadRelationshipsRequest(relationship_filter=RelationshipFilter(**filter))
    assert m.refused(lambda: authzed.ReadRelationships(request)).code is grpc.StatusCode.INVALID_ARGUMENT


def update(m, operation, text):
    return RelationshipUpdate(operation=operation, relationship=m.fact(text))


@pytest.mark.parametrize(
    ("texts", "code", "reason"),
    [
        (["create model:kiln#owner@user:old"], "ALREADY_EXISTS", "ATTEMPT_TO_RECREATE_RELATIONSHIP"),
        (
            ["touch model:kiln#owner@user:a", "delete model:kiln#owner@user:a"],
            "INVALID_ARGUMENT",
            "UPDATES_ON_SAME_RELATIONSHIP",
        ),
        (["touch model:kiln#use@user:a"], "INVALID_ARGUMENT", "CANNOT_UPDATE_PERMISSION"),
        (["touch model:kiln#owner@group:a#member"], "INVALID_ARGUMENT", "INVALID_SUBJECT_TYPE"),
        (["touch model:kiln#owner@user:*"], "INVALID_ARGUMENT", "INVALID_SUBJECT_TYPE"),
        (["touch model:kiln#ovner@user:a"], "FAILED_PRECONDITION", "UNKNOWN_RELATION_OR_PERMISSION"),
        (["touch modle:kiln#owner@user:a"], "FAILED_PRECONDITION", "UNKNOWN_DEFINITION"),
        (["touch model:k#n#owner@user:a"], "INVALID_ARGUMENT", "UNSPECIFIED"),
        (["touch model:k.n#owner@user:a"], "INVALID_ARGUMENT", "UNSPECIFIED"),
        ([" model:kiln#owner@user:a"], "INVALID_ARGUMENT", "UNSPECIFIED"),
    ],
)
def test_a_write_that_is_refused_writes_nothing(authzed, m, texts, code, reason):
    before = authzed.WriteRelationships(m.touches("model:kiln#owner@user:old")).written_at
    operations = {"create": CREATE, "touch": TOUCH, "delete": DELETE, "": 0}
    updates = [update(m, TOUCH, "model:kiln#owner@user:new")]
    for text in texts:
        operation, _, rest = text.partition(" ")
        updates.append(RelationshipUpdate(operation=operations[operation]))
        if rest.count("#") > 1 and "k#n" in rest:
            updates[-1].relationship.CopyFrom(m.fact("model:kiln#owner@user:a"))
            updates[-1].relationship.resource.object_id = "k#n"
        else:
            updates[-1].relationship.CopyFrom(m.fact(rest))
    found = m.refused(lambda: authzed.WriteRelationships(WriteRelationshipsRequest(updates=updates)))
    assert (found.code.name, found.reason) == (code, f"ERROR_REASON_{reason}")
    after = list(authzed.ReadRelationships(m.read_request("model", consistency=FULLY)))
    assert [one.relationship.subject.object.object_id for one in after] == ["old"]
    assert after[0].read_at == before


def test_too_much_in_one_write(authzed, m):
    many = m.touches(*(f"model:m{number}#owner@user:a" for number in range(1001)))
    found = m.refused(lambda: authzed.WriteRelationships(many))
    assert (found.code.name, found.reason) == ("RESOURCE_EXHAUSTED", "ERROR_REASON_TOO_MANY_UPDATES_IN_REQUEST")
    large = m.touches("model:kiln#owner@user:a")
    large.optional_transaction_metadata.update({"why": "x" * 70_000})
    found = m.refused(lambda: authzed.WriteRelationships(large))
    assert (found.code.name, found.reason) == ("RESOURCE_EXHAUSTED", "ERROR_REASON_TRANSACTION_METADATA_TOO_LARGE")


@pytest.mark.parametrize(
    ("operation", "id", "holds"),
    [
        (Precondition.OPERATION_MUST_MATCH, "kiln", True),
        (Precondition.OPERATION_MUST_MATCH, "other", False),
        (Precondition.OPERATION_MUST_NOT_MATCH, "kiln", False),
        (Precondition.OPERATION_MUST_NOT_MATCH, "other", True),
    ],
)
def test_preconditions(authzed, m, operation, id, holds):
    authzed.WriteRelationships(m.touches("model:kiln#owner@user:ada"))
    filter = RelationshipFilter(resource_type="model", optional_resource_id=id)
    condition = Precondition(operation=operation, filter=filter)
    write = m.touches("model:kiln#owner@user:bob")
    write.optional_preconditions.append(condition)
    erase = DeleteRelationshipsRequest(
        relationship_filter=RelationshipFilter(resource_type="model"), optional_preconditions=[condition]
    )
    for call in (lambda: authzed.WriteRelationships(write), lambda: authzed.DeleteRelationships(erase)):
        if holds:
            call()
            authzed.WriteRelationships(m.touches("model:kiln#owner@user:ada"))
        else:
            found = m.refused(call)
            assert (found.code.name, found.reason) == (
                "FAILED_PRECONDITION",
                "ERROR_REASON_WRITE_OR_DELETE_PRECONDITION_FAILURE",
            )


def test_an_empty_precondition(authzed, m):
    for condition in (Precondition(operation=1), Precondition(filter=RelationshipFilter(resource_type="model"))):
        write = m.touches("model:kiln#owner@user:bob")
        write.optional_preconditions.append(condition)
        assert m.refused(lambda write=write: authzed.WriteRelationships(write)).code is grpc.StatusCode.INVALID_ARGUMENT


def test_caveats_and_expirations_travel(authzed, m):
    request = m.touches("model:kiln#reader@user:ada", "model:kiln#reader@user:bob")
    request.updates[0].relationship.optional_caveat.caveat_name = "near"
    request.updates[0].relationship.optional_caveat.context.update({"allowed": 7})
    soon = timestamp_pb2.Timestamp(seconds=int(time.time()) + 3600, nanos=250_000_000)
    request.updates[1].relationship.optional_expires_at.CopyFrom(soon)
    authzed.WriteRelationships(request)
    ada, bob = (one.relationship for one in authzed.ReadRelationships(m.read_request("model", consistency=FULLY)))
    assert ada.optional_caveat == request.updates[0].relationship.optional_caveat
    assert not ada.HasField("optional_expires_at")
    assert bob.optional_expires_at == soon
    assert not bob.HasField("optional_caveat")


def count(authzed, m) -> int:
    return len(list(authzed.ReadRelationships(m.read_request("group", consistency=FULLY))))


def test_deleting(authzed, filled, m):
    filter = RelationshipFilter(resource_type="group")
    complete = DeleteRelationshipsResponse.DELETION_PROGRESS_COMPLETE
    partial = DeleteRelationshipsResponse.DELETION_PROGRESS_PARTIAL

    def erase(**more):
        return authzed.DeleteRelationships(DeleteRelationshipsRequest(relationship_filter=filter, **more))

    found = m.refused(lambda: erase(optional_limit=19))
    assert (found.code.name, found.reason) == (
        "RESOURCE_EXHAUSTED",
        "ERROR_REASON_TOO_MANY_RELATIONSHIPS_FOR_TRANSACTIONAL_DELETE",
    )
    assert count(authzed, m) == 20
    found = erase(optional_limit=5, optional_allow_partial_deletions=True)
    assert (found.relationships_deleted_count, found.deletion_progress) == (5, partial)
    found = erase(optional_limit=10, optional_allow_partial_deletions=True)
    assert (found.relationships_deleted_count, found.deletion_progress) == (10, partial)
    found = erase(optional_limit=5)
    assert (found.relationships_deleted_count, found.deletion_progress) == (5, complete)
    assert count(authzed, m) == 0
    found = erase()
    assert (found.relationships_deleted_count, found.deletion_progress) == (0, complete)
    assert found.deleted_at.token


def test_deleting_with_nothing_said(authzed, m):
    assert m.refused(lambda: authzed.DeleteRelationships(DeleteRelationshipsRequest())).reason == (
        "ERROR_REASON_INVALID_FILTER"
    )


MANY = sorted(f"group:g{number:04}#member@user:u" for number in range(2500))


def test_import_and_export(authzed, m):
    requests = (m.import_request(*MANY[start : start + 400]) for start in range(0, len(MANY), 400))
    assert authzed.ImportBulkRelationships(requests).num_loaded == 2500
    found = list(authzed.ExportBulkRelationships(ExportBulkRelationshipsRequest(consistency=FULLY)))
    assert [len(one.relationships) for one in found] == [1000, 1000, 500]
    assert texts(each for one in found for each in one.relationships) == MANY
    rest = list(
        authzed.ExportBulkRelationships(
            ExportBulkRelationshipsRequest(optional_limit=2000, optional_cursor=found[0].after_result_cursor)
        )
    )
    assert texts(each for one in rest for each in one.relationships) == MANY[1000:]
    filter = RelationshipFilter(resource_type="group", optional_resource_id_prefix="g001")
    some = list(
        authzed.ExportBulkRelationships(
            ExportBulkRelationshipsRequest(consistency=FULLY, optional_relationship_filter=filter)
        )
    )
    assert texts(each for one in some for each in one.relationships) == MANY[10:20]
    found = m.refused(lambda: authzed.ExportBulkRelationships(ExportBulkRelationshipsRequest(optional_limit=100_001)))
    assert found.code is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_import_and_export_by_the_older_names(authzed, m):
    older = [BulkImportRelationshipsRequest(relationships=[m.fact(one) for one in FACTS])]
    assert authzed.BulkImportRelationships(iter(older)).num_loaded == len(FACTS)
    found = authzed.BulkExportRelationships(BulkExportRelationshipsRequest(consistency=FULLY))
    assert texts(each for one in found for each in one.relationships) == FACTS


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        ("model:kiln#use@user:a", "INVALID_ARGUMENT"),
        ("group:g0001#member@user:u", "ALREADY_EXISTS"),
        ("thing:a#member@user:u", "FAILED_PRECONDITION"),
    ],
)
def test_an_import_is_all_or_nothing(authzed, m, bad, code):
    authzed.WriteRelationships(m.touches(MANY[1]))
    found = m.refused(
        lambda: authzed.ImportBulkRelationships(iter([m.import_request(*MANY[2:1500]), m.import_request(bad)]))
    )
    assert found.code.name == code
    assert count(authzed, m) == 1


def test_an_import_that_is_broken_off_writes_nothing(authzed, m):
    def broken():
        yield m.import_request(*MANY[:500])
        time.sleep(0.1)
        raise KeyError

    for _ in range(5):
        call = authzed.ImportBulkRelationships.future(broken())
        assert call.exception() is not None
    time.sleep(0.3)
    assert count(authzed, m) == 0


def test_metadata_must_be_json(authzed, m):
    write = m.touches("model:kiln#owner@user:ada")
    write.optional_transaction_metadata.CopyFrom(
        struct_pb2.Struct(fields={"x": struct_pb2.Value(number_value=float("inf"))})
    )
    assert m.refused(lambda: authzed.WriteRelationships(write)).code is grpc.StatusCode.INVALID_ARGUMENT
