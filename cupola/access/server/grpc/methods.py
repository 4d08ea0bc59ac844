"""Every method of `authzed.api.v1`: who may call it, what it uses up, and who answers.

Not here: the answers. The experimental methods are older names of stable ones, with messages that have the same
fields under the same numbers, so that they are answered by the same functions.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from authzed.api.v1 import experimental_service_pb2 as experimental
from authzed.api.v1 import permission_service_pb2 as permission
from authzed.api.v1 import schema_service_pb2 as schema_api

from cupola.access.server.grpc import check, lookup, relationships, schema, watch
from cupola.access.server.grpc.gate import Call, Method
from cupola.access.server.grpc.status import Unsupported
from cupola.access.server.identity import Role
from cupola.access.server.quota import Spending, Work

_IMPORT = Method(relationships.import_bulk, Role.WRITER, Work.STREAMS, Spending.WRITES, relationships.no_cost)
_EXPORT = Method(relationships.export_bulk, work=Work.STREAMS)
_BULK_CHECK = Method(check.check_bulk_permissions, cost=check.bulk_cost)

PERMISSIONS: Mapping[str, Method] = {
    "CheckPermission": Method(check.check_permission),
    "CheckBulkPermissions": _BULK_CHECK,
    "ExpandPermissionTree": Method(check.expand_permission_tree),
    "LookupResources": Method(lookup.lookup_resources, work=Work.STREAMS),
    "LookupSubjects": Method(lookup.lookup_subjects, work=Work.STREAMS),
    "ReadRelationships": Method(relationships.read_relationships, work=Work.STREAMS),
    "WriteRelationships": Method(
        relationships.write_relationships, Role.WRITER, Work.CALLS, Spending.WRITES, relationships.write_cost
    ),
    "DeleteRelationships": Method(relationships.delete_relationships, Role.WRITER, Work.CALLS, Spending.WRITES),
    "ImportBulkRelationships": _IMPORT,
    "ExportBulkRelationships": _EXPORT,
}

SCHEMA: Mapping[str, Method] = {
    "ReadSchema": Method(schema.read_schema),
    "WriteSchema": Method(schema.write_schema, Role.ADMIN, spending=Spending.WRITES),
    "ReflectSchema": Method(schema.reflect_schema),
    "ComputablePermissions": Method(schema.computable),
    "DependentRelations": Method(schema.dependent),
    "DiffSchema": Method(schema.diff_schema),
}

WATCH: Mapping[str, Method] = {"Watch": Method(watch.watch, work=Work.STREAMS)}


def _renamed(method: Method, request: type[Any], answer: type[Any]) -> Method:
    """The method under messages of other names."""

    def one(call: Call, message: Any) -> Any:
        return _recode(method.answer(call, _recode(message, request)), answer)

    return method._replace(answer=one)


def _renamed_stream(method: Method, request: type[Any], answer: type[Any]) -> Method:
    def many(call: Call, message: Any) -> Iterator[Any]:
        return (_recode(one, answer) for one in method.answer(call, _recode(message, request)))

    return method._replace(answer=many)


def _renamed_import(method: Method, request: type[Any], answer: type[Any]) -> Method:
    def send(call: Call, messages: Any) -> Any:
        return _recode(method.answer(call, (_recode(one, request) for one in messages)), answer)

    return method._replace(answer=send)


def _recode(message: Any, kind: type[Any]) -> Any:
    return kind.FromString(message.SerializeToString())


def _refused(name: str) -> Method:
    def refuse(call: Call, message: Any) -> Any:
        raise Unsupported("is not kept here", where=name, remedy="Read what matches the filter, and count it.")

    return Method(refuse)


_COUNTERS = (
    "ExperimentalRegisterRelationshipCounter",
    "ExperimentalCountRelationships",
    "ExperimentalUnregisterRelationshipCounter",
)

EXPERIMENTAL: Mapping[str, Method] = {
    "BulkImportRelationships": _renamed_import(
        _IMPORT, permission.ImportBulkRelationshipsRequest, experimental.BulkImportRelationshipsResponse
    ),
    "BulkExportRelationships": _renamed_stream(
        _EXPORT, permission.ExportBulkRelationshipsRequest, experimental.BulkExportRelationshipsResponse
    ),
    "BulkCheckPermission": _renamed(
        _BULK_CHECK, permission.CheckBulkPermissionsRequest, experimental.BulkCheckPermissionResponse
    ),
    "ExperimentalReflectSchema": _renamed(
        SCHEMA["ReflectSchema"], schema_api.ReflectSchemaRequest, experimental.ExperimentalReflectSchemaResponse
    ),
    "ExperimentalComputablePermissions": _renamed(
        SCHEMA["ComputablePermissions"],
        schema_api.ComputablePermissionsRequest,
        experimental.ExperimentalComputablePermissionsResponse,
    ),
    "ExperimentalDependentRelations": _renamed(
        SCHEMA["DependentRelations"],
        schema_api.DependentRelationsRequest,
        experimental.ExperimentalDependentRelationsResponse,
    ),
    "ExperimentalDiffSchema": _renamed(
        SCHEMA["DiffSchema"], schema_api.DiffSchemaRequest, experimental.ExperimentalDiffSchemaResponse
    ),
    **{name: _refused(name) for name in _COUNTERS},
}
