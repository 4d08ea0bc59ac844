"""SpiceDB's steel threads: operations in a row through its own client, with the answers that SpiceDB gave.

Compared as SpiceDB's own harness does: lists sorted, reads and exports in their order, page by page. Pages of lookups
are compared as one set: which hit stands on which page, and that some come twice, follows from how SpiceDB splits its
work. In their place ours must be full, sorted and without repetition.
"""

import re
import uuid

import grpc
import pytest
import yaml
from authzed.api.v1 import (
    CheckBulkPermissionsRequest,
    CheckBulkPermissionsRequestItem,
    CheckPermissionResponse,
    Consistency,
    LookupResourcesRequest,
    LookupSubjectsRequest,
    ObjectReference,
    ReadRelationshipsRequest,
    RelationshipFilter,
    SubjectFilter,
    SubjectReference,
    SyncClient,
    WriteRelationshipsRequest,
    WriteSchemaRequest,
)
from authzed.api.v1.permission_service_pb2 import (
    LOOKUP_PERMISSIONSHIP_CONDITIONAL_PERMISSION,
    ExportBulkRelationshipsRequest,
    ImportBulkRelationshipsRequest,
)
from grpcutil import insecure_bearer_token_credentials

from cupola.access import Relationship, touch
from cupola.access.wire import read_relationship, write_object, write_relationship, write_struct, write_subject
from cupola.access.wire import write_update as written

FULLY = Consistency(fully_consistent=True)
MOST = 1000
"""Updates of one write."""
OTHER_CODES = {"attempt to remove the user type": "INVALID_ARGUMENT"}
"""Where we refuse with another status than SpiceDB: a type that a schema names and does not have is a mistake in
the text, which is told with its line, and not of the state that it meets (FAILED_PRECONDITION)."""


class Operations:
    """Each operation as a method: takes its arguments, returns what the files of results hold."""

    def __init__(self, client: SyncClient):
        self.client = client

    def lookupSubjects(self, resource_type, resource_object_id, permission, subject_type):
        request = LookupSubjectsRequest(
            consistency=FULLY,
            resource=ObjectReference(object_type=resource_type, object_id=resource_object_id),
            permission=permission,
            subject_object_type=subject_type,
        )
        found = [shown_subject(one) for one in self.client.LookupSubjects(request)]
        assert len(set(found)) == len(found)
        return sorted(found)

    def lookupResources(self, **asked):
        (page,) = self.pages(0, **asked)
        assert page == sorted(set(page))
        return page

    def cursoredLookupResources(self, page_size, **asked):
        pages = self.pages(page_size, **asked)
        assert all(len(page) == page_size for page in pages[:-1])
        found = [one for page in pages for one in page]
        assert found == sorted(set(found))
        return found

    def pages(self, size, resource_type, permission, subject_type, subject_object_id, context=None):
        subject = ObjectReference(object_type=subject_type, object_id=subject_object_id)
        request = LookupResourcesRequest(
            consistency=FULLY,
            resource_object_type=resource_type,
            permission=permission,
            subject=SubjectReference(object=subject),
            context=write_struct(context or {}),
            optional_limit=size,
        )
        return [[shown_resource(one) for one in page] for page in paged(self.client.LookupResources, request, size)]

    def cursoredReadRelationships(self, page_size, resource_type="", resource_id="", subject_type="", subject_id=""):
        only = RelationshipFilter(resource_type=resource_type, optional_resource_id=resource_id)
        if subject_type:
            subject = SubjectFilter(subject_type=subject_type, optional_subject_id=subject_id)
            only.optional_subject_filter.CopyFrom(subject)
        request = ReadRelationshipsRequest(consistency=FULLY, relationship_filter=only, optional_limit=page_size)
        found = paged(self.client.ReadRelationships, request, page_size)
        return [[str(read_relationship(one.relationship)) for one in page] for page in found]

    def bulkImportExportRelationships(
        self, relationships, rels_file, optional_limit=0, resource_type="", filter_resource_id_prefix=""
    ):
        sent = [write_relationship(Relationship.parse(line)) for line in relationships if line]
        loading = self.client.ImportBulkRelationships(
            ImportBulkRelationshipsRequest(relationships=[one]) for one in sent
        )
        assert loading.num_loaded == len(sent), rels_file
        only = RelationshipFilter(resource_type=resource_type, optional_resource_id_prefix=filter_resource_id_prefix)
        request = ExportBulkRelationshipsRequest(
            consistency=FULLY,
            optional_limit=optional_limit,
            optional_relationship_filter=only if only.ByteSize() else None,
        )
        answers = list(self.client.ExportBulkRelationships(request))
        assert not optional_limit or all(len(one.relationships) <= optional_limit for one in answers)
        return [str(read_relationship(one)) for answer in answers for one in answer.relationships]

    def bulkCheckPermissions(self, check_requests):
        items = []
        for asked in map(Relationship.parse, check_requests):
            items.append(
                CheckBulkPermissionsRequestItem(
                    resource=write_object(asked.object),
                    permission=asked.relation,
                    subject=write_subject(asked.subject),
                    context=write_struct(asked.caveat.parameters if asked.caveat else {}),
                )
            )
        answer = self.client.CheckBulkPermissions(CheckBulkPermissionsRequest(consistency=FULLY, items=items))
        names = [CheckPermissionResponse.Permissionship.Name(pair.item.permissionship) for pair in answer.pairs]
        return [f"{asked} -> {name}" for asked, name in zip(check_requests, names, strict=True)]

    def writeSchema(self, schema):
        try:
            self.client.WriteSchema(WriteSchemaRequest(schema=schema))
        except grpc.RpcError as error:
            return {"error": error.code().name}
        return {}


def paged(method, request, size) -> list:
    found = []
    while page := list(method(request)):
        found.append(page)
        if not size:
            break
        request.optional_cursor.CopyFrom(page[-1].after_result_cursor)
    return found


def shown_resource(one) -> str:
    return one.resource_object_id + shown_permissionship(one)


def shown_subject(one) -> str:
    left_out = sorted(other.subject_object_id + shown_permissionship(other) for other in one.excluded_subjects)
    but = f" - [{', '.join(left_out)}]" if left_out else ""
    return one.subject.subject_object_id + but + shown_permissionship(one.subject)


def shown_permissionship(one) -> str:
    return " (conditional)" if one.permissionship == LOOKUP_PERMISSIONSHIP_CONDITIONAL_PERMISSION else ""


def recorded(operation: dict, text: str):
    """The answer that SpiceDB gave, in the form that ours has."""
    found = yaml.safe_load(text)
    if operation["operationName"] == "cursoredLookupResources":
        return sorted({one for page in found for one in page})
    if operation["operationName"] == "bulkImportExportRelationships":
        return [str(Relationship.parse(line)) for line in found]
    if operation["operationName"] == "writeSchema" and found:
        code = re.search(r"code = (\w+)", found["error"])[1]
        return {"error": re.sub(r"(?<=[a-z])(?=[A-Z])", "_", code).upper()}
    return found


def test_a_thread(server, thread, scenario):
    folder = scenario.folder / "spicedb/steelthread"
    case = scenario.read_case(folder / "testdata" / thread["datafile"])
    client = SyncClient(server.grpc.address, insecure_bearer_token_credentials(uuid.uuid4().hex))
    client.WriteSchema(WriteSchemaRequest(schema=case.schema))
    for start in range(0, len(case.facts), MOST):
        updates = [written(touch(fact)) for fact in case.facts[start : start + MOST]]
        client.WriteRelationships(WriteRelationshipsRequest(updates=updates))
    operations = Operations(client)
    for operation in thread["operations"]:
        answer = getattr(operations, operation["operationName"])(**operation["arguments"])
        expected = recorded(operation, (folder / "steelresults" / operation["resultsFileName"]).read_text())
        if operation["name"] in OTHER_CODES:
            expected = {"error": OTHER_CODES[operation["name"]]}
        assert answer == expected, operation["name"]


def test_every_thread_is_here(scenario):
    file = scenario.folder / "spicedb/steelthread/operations.derived.yaml"
    if not file.exists():
        pytest.skip(f"there is no {file}; set CUPOLA_SHARED")
    threads = yaml.safe_load(file.read_text())
    assert (len(threads), sum(len(thread["operations"]) for thread in threads)) == (15, 48)
