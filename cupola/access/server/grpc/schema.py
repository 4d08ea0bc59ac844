"""Schemas: read, write, compare, and what depends on what in one.

Not here: what a schema means (`schema/`).
Invariant: an answer tells of the schema in force at the revision of its token.
"""

from collections.abc import Callable, Sequence
from typing import Any

from authzed.api.v1 import core_pb2 as core
from authzed.api.v1 import schema_service_pb2 as api

from cupola.access.consistency import LATEST, Consistency, at_exactly
from cupola.access.errors import InvalidArgument
from cupola.access.schema.diff import Difference, Kind, diff
from cupola.access.schema.model import Allowed, Caveat, Definition, Relation, Schema
from cupola.access.schema.read import read_schema as parse_schema
from cupola.access.schema.reflect import Reference, computable_permissions, dependent_relations
from cupola.access.server.grpc.gate import Call
from cupola.access.store.protocol import SchemaVersion
from cupola.access.wire import read_consistency, read_name


def read_schema(call: Call, request: api.ReadSchemaRequest) -> api.ReadSchemaResponse:
    """Answers with the text of the schema in force."""
    token, version = _in_force(call, LATEST)
    return api.ReadSchemaResponse(schema_text=version.text, read_at=core.ZedToken(token=token))


def write_schema(call: Call, request: api.WriteSchemaRequest) -> api.WriteSchemaResponse:
    """Makes a text the schema from now on."""
    return api.WriteSchemaResponse(written_at=core.ZedToken(token=call.graph.write_schema(request.schema)))


def reflect_schema(call: Call, request: api.ReflectSchemaRequest) -> api.ReflectSchemaResponse:
    """Answers with the definitions and caveats of the schema, or those whose names begin as the filters say."""
    filters = [_checked(one) for one in request.optional_filters]
    token, version = _in_force(call, read_consistency(request.consistency))
    types = not filters or any(one.optional_definition_name_filter for one in filters)
    caveats = not filters or any(one.optional_caveat_name_filter for one in filters)
    return api.ReflectSchemaResponse(
        definitions=[
            _definition(one, filters)
            for one in version.schema.definitions
            if types and _matches(filters, "optional_definition_name_filter", one.name)
        ],
        caveats=[
            _caveat(one)
            for one in version.schema.caveats
            if caveats and _matches(filters, "optional_caveat_name_filter", one.name)
        ],
        read_at=core.ZedToken(token=token),
    )


def computable(call: Call, request: api.ComputablePermissionsRequest) -> api.ComputablePermissionsResponse:
    """Answers with the permissions that a relation could give somebody."""
    token, version = _in_force(call, read_consistency(request.consistency))
    type = read_name(request.definition_name, "definition_name")
    found = computable_permissions(version.schema, type, request.relation_name)
    begins = request.optional_definition_name_filter
    return api.ComputablePermissionsResponse(
        permissions=[_reference(version.schema, one) for one in found if one.type.startswith(begins)],
        read_at=core.ZedToken(token=token),
    )


def dependent(call: Call, request: api.DependentRelationsRequest) -> api.DependentRelationsResponse:
    """Answers with the relations and permissions that a permission is computed from."""
    token, version = _in_force(call, read_consistency(request.consistency))
    type = read_name(request.definition_name, "definition_name")
    found = dependent_relations(version.schema, type, read_name(request.permission_name, "permission_name"))
    return api.DependentRelationsResponse(
        relations=[_reference(version.schema, one) for one in found], read_at=core.ZedToken(token=token)
    )


def diff_schema(call: Call, request: api.DiffSchemaRequest) -> api.DiffSchemaResponse:
    """Answers with what a text would change in the schema."""
    token, version = _in_force(call, read_consistency(request.consistency))
    call.graph.limits.check("schema_bytes", len(request.comparison_schema.encode()))
    after = parse_schema(request.comparison_schema)
    return api.DiffSchemaResponse(
        diffs=[_difference(one, version.schema, after) for one in diff(version.schema, after)],
        read_at=core.ZedToken(token=token),
    )


def _in_force(call: Call, consistency: Consistency) -> tuple[str, SchemaVersion]:
    token = call.graph.token(consistency)
    return token, call.graph.schema(at_exactly(token))


def _checked(filter: api.ReflectionSchemaFilter) -> api.ReflectionSchemaFilter:
    part = filter.optional_relation_name_filter or filter.optional_permission_name_filter
    both = filter.optional_relation_name_filter and filter.optional_permission_name_filter
    if both or (filter.optional_definition_name_filter and filter.optional_caveat_name_filter):
        raise InvalidArgument(
            "asks for two things of which nothing is both", where="optional_filters", remedy="Send two filters."
        )
    if part and not filter.optional_definition_name_filter:
        raise InvalidArgument(
            f"asks for {part} of no definition", where="optional_filters", remedy="Set optional_definition_name_filter."
        )
    return filter


def _matches(filters: Sequence[Any], field: str, name: str, type: str = "") -> bool:
    """Whether a name begins as one of the filters for such names says; true where there is none."""
    asking = [filter for filter in filters if getattr(filter, field)]
    return not asking or any(
        name.startswith(getattr(filter, field))
        and (not type or type.startswith(filter.optional_definition_name_filter))
        for filter in asking
    )


def _definition(definition: Definition, filters: Sequence[Any] = ()) -> api.ReflectionDefinition:
    type = definition.name
    return api.ReflectionDefinition(
        name=type,
        comment=definition.doc,
        relations=[
            _relation(type, one)
            for one in definition
            if one.writable and _matches(filters, "optional_relation_name_filter", one.name, type)
        ],
        permissions=[
            _permission(type, one)
            for one in definition
            if not one.writable and _matches(filters, "optional_permission_name_filter", one.name, type)
        ],
    )


def _relation(type: str, relation: Relation) -> api.ReflectionRelation:
    return api.ReflectionRelation(
        name=relation.name,
        comment=relation.doc,
        parent_definition_name=type,
        subject_types=[_allowed(one) for one in relation.allowed],
    )


def _permission(type: str, relation: Relation) -> api.ReflectionPermission:
    return api.ReflectionPermission(name=relation.name, comment=relation.doc, parent_definition_name=type)


def _allowed(allowed: Allowed) -> api.ReflectionTypeReference:
    message = api.ReflectionTypeReference(subject_definition_name=allowed.type, optional_caveat_name=allowed.caveat)
    if allowed.wildcard:
        message.is_public_wildcard = True
    elif allowed.relation:
        message.optional_relation_name = allowed.relation
    else:
        message.is_terminal_subject = True
    return message


def _caveat(caveat: Caveat) -> api.ReflectionCaveat:
    return api.ReflectionCaveat(
        name=caveat.name,
        comment=caveat.doc,
        parameters=[_parameter(caveat.name, name, type) for name, type in caveat.parameters],
        expression=caveat.expression,
    )


def _parameter(caveat: str, name: str, type: str) -> api.ReflectionCaveatParameter:
    return api.ReflectionCaveatParameter(name=name, type=type, parent_caveat_name=caveat)


def _reference(schema: Schema, found: Reference) -> api.ReflectionRelationReference:
    relation = schema.relation(found.type, found.relation)
    return api.ReflectionRelationReference(
        definition_name=found.type,
        relation_name=found.relation,
        is_permission=relation is not None and not relation.writable,
    )


def _difference(found: Difference, before: Schema, after: Schema) -> api.ReflectionSchemaDiff:
    return api.ReflectionSchemaDiff(**{found.kind.value: _ABOUT[_subject(found.kind)](found, before, after)})


def _subject(kind: Kind) -> str:
    """What a difference tells of: the first word of its name, unless it is a part of that."""
    if kind in (Kind.SUBJECT_ADDED, Kind.SUBJECT_REMOVED):
        return "subject"
    if kind is Kind.PARAMETER_TYPE_CHANGED:
        return "parameter type"
    if kind in (Kind.PARAMETER_ADDED, Kind.PARAMETER_REMOVED):
        return "parameter"
    return kind.value.partition("_")[0]


def _which(found: Difference, before: Schema, after: Schema) -> Schema:
    """The schema that has what a difference tells of: the new one, unless it was taken away."""
    gone = (Kind.DEFINITION_REMOVED, Kind.RELATION_REMOVED, Kind.PERMISSION_REMOVED, Kind.CAVEAT_REMOVED)
    return before if found.kind in gone else after


def _known(found: Difference, before: Schema, after: Schema) -> Relation:
    relation = _which(found, before, after).relation(found.type, found.relation)
    if relation is None:
        raise RuntimeError(f"{found} is in neither schema")
    return relation


def _subject_change(found: Difference, before: Schema, after: Schema) -> api.ReflectionRelationSubjectTypeChange:
    if found.allowed is None:
        raise RuntimeError(f"{found} names no kind of subject")
    return api.ReflectionRelationSubjectTypeChange(
        relation=_relation(found.type, _known(found, before, after)), changed_subject_type=_allowed(found.allowed)
    )


_ABOUT: dict[str, Callable[[Difference, Schema, Schema], Any]] = {
    "definition": lambda found, *both: _definition(_which(found, *both).types[found.type]),
    "relation": lambda found, *both: _relation(found.type, _known(found, *both)),
    "permission": lambda found, *both: _permission(found.type, _known(found, *both)),
    "subject": _subject_change,
    "caveat": lambda found, *both: _caveat(_which(found, *both).conditions[found.caveat]),
    "parameter": lambda found, *_: _parameter(found.caveat, found.parameter, found.after or found.before),
    "parameter type": lambda found, *_: api.ReflectionCaveatParameterTypeChange(
        parameter=_parameter(found.caveat, found.parameter, found.after), previous_type=found.before
    ),
}
