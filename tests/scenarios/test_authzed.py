"""SpiceDB's validation files over the wire: our server, driven by the unmodified client of SpiceDB."""

import itertools
import uuid
from typing import NamedTuple

import pytest
from authzed.api.v1 import (
    CheckBulkPermissionsRequest,
    CheckBulkPermissionsRequestItem,
    CheckPermissionRequest,
    Consistency,
    DeleteRelationshipsRequest,
    ExpandPermissionTreeRequest,
    LookupResourcesRequest,
    LookupSubjectsRequest,
    ReadRelationshipsRequest,
    RelationshipFilter,
    SyncClient,
    WatchRequest,
    WriteRelationshipsRequest,
    WriteSchemaRequest,
)
from authzed.api.v1.permission_service_pb2 import ExportBulkRelationshipsRequest, ImportBulkRelationshipsRequest
from grpcutil import insecure_bearer_token_credentials

from cupola.access import Object, Relationship, Subject, touch
from cupola.access.decision import Verdict
from cupola.access.engine.at import Holder
from cupola.access.relation import WILDCARD, Operation
from cupola.access.schema.read import read_schema
from cupola.access.wire import (
    read_relationship,
    read_subject,
    write_object,
    write_relationship,
    write_struct,
    write_subject,
    write_update,
)

CASE = [Verdict.NO, Verdict.NO, Verdict.YES, Verdict.CONDITIONAL]
"""By the number of a permissionship in a check."""
LOOKUP = [Verdict.NO, Verdict.YES, Verdict.CONDITIONAL]
"""And in a lookup."""
FULLY = Consistency(fully_consistent=True)
PAGES = (1, 2, 0)


class Loaded(NamedTuple):
    """A client, and what it has written."""

    client: SyncClient
    case: object
    start: object

    @property
    def permissions(self) -> list[tuple[str, str]]:
        schema = read_schema(self.case.schema)
        return [(definition.name, relation.name) for definition in schema.definitions for relation in definition]

    def verdicts(self, asked) -> list[Verdict]:
        """What a bulk check says of (object, permission, subject, context)."""
        items = [
            CheckBulkPermissionsRequestItem(
                resource=write_object(object),
                permission=permission,
                subject=write_subject(subject),
                context=write_struct(context),
            )
            for object, permission, subject, context in asked
        ]
        answer = self.client.CheckBulkPermissions(CheckBulkPermissionsRequest(consistency=FULLY, items=items))
        assert not any(pair.HasField("error") for pair in answer.pairs)
        return [CASE[pair.item.permissionship] for pair in answer.pairs]


@pytest.fixture
def loaded(server, case) -> Loaded:
    """A tenant of the file's own, with its schema and relationships."""
    client = SyncClient(server.grpc.address, insecure_bearer_token_credentials(uuid.uuid4().hex))
    start = client.WriteSchema(WriteSchemaRequest(schema=case.schema)).written_at
    client.WriteRelationships(WriteRelationshipsRequest(updates=[write_update(touch(fact)) for fact in case.facts]))
    return Loaded(client, case, start)


def test_assertions_hold(loaded):
    answers = loaded.verdicts((a.object, a.relation, a.subject, context) for a, context, _ in loaded.case.assertions)
    for (asked, context, verdict), in_bulk in zip(loaded.case.assertions, answers, strict=True):
        answer = loaded.client.CheckPermission(
            CheckPermissionRequest(
                consistency=FULLY,
                resource=write_object(asked.object),
                permission=asked.relation,
                subject=write_subject(asked.subject),
                context=write_struct(context),
            )
        )
        assert (CASE[answer.permissionship], in_bulk) == (verdict, verdict), str(asked)
        assert bool(answer.partial_caveat_info.missing_required_context) == (verdict is Verdict.CONDITIONAL)


@pytest.mark.slow
@pytest.mark.parametrize("size", PAGES)
def test_lookup_of_resources(loaded, size):
    case = loaded.case
    for (kind, permission), subject in itertools.product(loaded.permissions, case.subjects):
        objects = case.objects(kind)
        verdicts = loaded.verdicts((object, permission, subject, {}) for object in objects)
        expected = {
            object.id: verdict for object, verdict in zip(objects, verdicts, strict=True) if verdict is not CASE[0]
        }
        request = LookupResourcesRequest(
            consistency=FULLY, resource_object_type=kind, permission=permission, subject=write_subject(subject)
        )
        found = paged(loaded.client.LookupResources, request, size, "optional_limit")
        assert {one.resource_object_id: LOOKUP[one.permissionship] for one in found} == expected
        assert len(found) == len(expected)


def paged(method, request, size, limit) -> list:
    """All results of a stream that is read in pages of a size, with the cursors that come with them; 0: at once."""
    setattr(request, limit, size)
    found = []
    while page := list(method(request)):
        assert not size or len(page) <= size
        found += page
        if not size:
            break
        request.optional_cursor.CopyFrom(page[-1].after_result_cursor)
    return found


@pytest.mark.slow
def test_lookup_of_subjects(loaded, scenario):
    case = loaded.case
    kinds = sorted({(subject.type, subject.relation) for subject in case.subjects})
    for kind, permission in loaded.permissions:
        for object, (type, relation) in itertools.product(case.objects(kind), kinds):
            request = LookupSubjectsRequest(
                consistency=FULLY,
                resource=write_object(object),
                permission=permission,
                subject_object_type=type,
                optional_subject_relation=relation,
            )
            found = [holder(one) for one in loaded.client.LookupSubjects(request)]
            listed = {one.id: one for one in found}
            assert len(listed) == len(found)
            ids = {one.id for one in case.subjects if (one.type, one.relation) == (type, relation)}
            ids |= {"somebody-else"} | listed.keys() - {WILDCARD}
            asked = [(object, permission, Subject(type, id, relation), {}) for id in sorted(ids)]
            for (_, _, subject, _), verdict in zip(asked, loaded.verdicts(asked), strict=True):
                assert scenario.verdict_of(listed, subject.id) is verdict, f"{object}#{permission}@{subject}: {found}"


def holder(answer) -> Holder:
    def one(subject) -> Holder:
        return Holder(subject.subject_object_id, tuple(subject.partial_caveat_info.missing_required_context))

    return one(answer.subject)._replace(excluded=tuple(map(one, answer.excluded_subjects)))


def test_the_tree_names_who_may(loaded):
    """Conditions do not travel in a tree, so that only files without any say who may."""
    case, trees = loaded.case, {}

    def inside(object: Object, permission: str, subject: Subject, above: frozenset) -> bool:
        place = object, permission
        if place in above:
            return False
        if place not in trees:
            request = ExpandPermissionTreeRequest(
                consistency=FULLY, resource=write_object(object), permission=permission
            )
            trees[place] = loaded.client.ExpandPermissionTree(request).tree_root
        return of(trees[place], subject, above | {place})

    def of(tree, subject: Subject, above: frozenset) -> bool:
        if tree.WhichOneof("tree_type") == "intermediate":
            parts = [of(child, subject, above) for child in tree.intermediate.children]
            kind = tree.intermediate.DESCRIPTOR.enum_types_by_name["Operation"].values_by_number
            match kind[tree.intermediate.operation].name:
                case "OPERATION_UNION":
                    return any(parts)
                case "OPERATION_INTERSECTION":
                    return all(parts)
                case "OPERATION_EXCLUSION":
                    return parts[0] and not any(parts[1:])
        for found in map(read_subject, tree.leaf.subjects):
            everyone = found.id == WILDCARD and (found.type, "") == (subject.type, subject.relation)
            if (
                found == subject
                or everyone
                or (found.relation and inside(found.object, found.relation, subject, above))
            ):
                return True
        return False

    subjects = [one for one in case.subjects if not one.relation]
    conditions = any(fact.caveat for fact in case.facts)
    for kind, permission in loaded.permissions:
        asked = [(object, permission, subject, {}) for object in case.objects(kind) for subject in subjects]
        for (object, _, subject, _), verdict in zip(asked, loaded.verdicts(asked), strict=True):
            found = inside(object, permission, subject, frozenset())
            assert conditions or found == (verdict is Verdict.YES), f"{object}#{permission}@{subject}"


@pytest.mark.parametrize("size", PAGES)
def test_what_is_written_is_read_exported_imported_and_watched(loaded, size):
    case, client = loaded.case, loaded.client
    alive = set(case.alive)
    types = sorted({fact.object.type for fact in case.facts})
    read = []
    for type in types:
        request = ReadRelationshipsRequest(
            consistency=FULLY, relationship_filter=RelationshipFilter(resource_type=type)
        )
        read += paged(client.ReadRelationships, request, size, "optional_limit")
    assert sorted(map(str, alive)) == sorted(str(read_relationship(one.relationship)) for one in read)

    exported = list(
        client.ExportBulkRelationships(ExportBulkRelationshipsRequest(consistency=FULLY, optional_limit=size))
    )
    assert not size or all(len(one.relationships) <= size for one in exported)
    kept = [one for answer in exported for one in answer.relationships]
    assert set(map(read_relationship, kept)) == alive
    for type in types:
        client.DeleteRelationships(
            DeleteRelationshipsRequest(relationship_filter=RelationshipFilter(resource_type=type))
        )
    width = size or len(kept) or 1
    batches = [kept[start : start + width] for start in range(0, len(kept), width)]
    loading = client.ImportBulkRelationships(ImportBulkRelationshipsRequest(relationships=one) for one in batches)
    assert loading.num_loaded == len(alive)
    if any(fact not in alive for fact in case.facts):
        return
    now: set[Relationship] = set()
    stream = client.Watch(WatchRequest(optional_start_cursor=loaded.start))
    seen = 0
    # Written one and all, deleted type by type, written again: the changes lead to what is there.
    for answer in stream:
        for update in answer.updates:
            one, gone = read_relationship(update.relationship), update.operation == DELETE
            now = now - {one} if gone else now | {one}
            seen += 1
        if seen == 3 * len(alive):
            break
    stream.cancel()
    assert now == alive


DELETE = write_update(touch("a:b#c@d:e")._replace(operation=Operation.DELETE)).operation


def test_relationships_travel_unchanged(case):
    for fact in case.facts:
        assert read_relationship(write_relationship(fact)) == fact
