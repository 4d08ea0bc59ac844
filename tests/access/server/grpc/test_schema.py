"""Schemas over the wire: read, write, reflect, compare."""

import grpc
import pytest
from authzed.api.v1 import (
    ComputablePermissionsRequest,
    Consistency,
    DependentRelationsRequest,
    DiffSchemaRequest,
    ReadSchemaRequest,
    ReflectionSchemaFilter,
    ReflectSchemaRequest,
    WriteSchemaRequest,
)
from authzed.api.v1 import experimental_service_pb2 as experimental

FULLY = Consistency(fully_consistent=True)


def test_a_schema_is_read_as_it_was_written(authzed, m):
    found = authzed.ReadSchema(ReadSchemaRequest())
    assert found.schema_text == m.SCHEMA
    token = authzed.WriteSchema(WriteSchemaRequest(schema="definition user {}")).written_at
    found = authzed.ReadSchema(ReadSchemaRequest())
    assert (found.schema_text, found.read_at) == ("definition user {}", token)


def test_no_schema_yet(server, m):
    client = m.connect(server)
    for call in (
        lambda: client.ReadSchema(ReadSchemaRequest()),
        lambda: client.CheckPermission(m.question("model:kiln#use", "user:ada")),
        lambda: client.WriteRelationships(m.touches("model:kiln#owner@user:ada")),
    ):
        assert m.refused(call).code is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("text", ["definition {", "definition user { relation x: nobody }", "ünsinn"])
def test_a_schema_that_does_not_hold_together(authzed, m, text):
    found = m.refused(lambda: authzed.WriteSchema(WriteSchemaRequest(schema=text)))
    assert (found.code.name, found.reason) == ("INVALID_ARGUMENT", "ERROR_REASON_SCHEMA_PARSE_ERROR")
    assert int(found.metadata["source_line"]) == 1
    assert int(found.metadata["source_column"]) >= 1


def test_a_schema_that_would_orphan_relationships(authzed, m):
    authzed.WriteRelationships(m.touches("group:research#member@user:ada"))
    found = m.refused(lambda: authzed.WriteSchema(WriteSchemaRequest(schema="definition user {}")))
    assert found.code is grpc.StatusCode.INVALID_ARGUMENT
    assert found.reason == "ERROR_REASON_SCHEMA_TYPE_ERROR"
    assert "group:research#member@user:ada" in found.text
    assert authzed.ReadSchema(ReadSchemaRequest()).schema_text == m.SCHEMA


def test_reflection(authzed, m):
    found = authzed.ReflectSchema(ReflectSchemaRequest(consistency=FULLY))
    assert [one.name for one in found.definitions] == ["user", "group", "model"]
    model = found.definitions[2]
    assert model.comment == "what was trained"
    assert [one.name for one in model.relations] == ["reader", "owner", "banned", "guest"]
    assert [one.name for one in model.permissions] == ["own", "use"]
    assert model.relations[0].comment == "who may read"
    kinds = [
        (one.subject_definition_name, one.WhichOneof("typeref"), one.optional_caveat_name)
        for one in model.relations[0].subject_types
    ]
    assert kinds[:3] == [
        ("user", "is_terminal_subject", ""),
        ("group", "optional_relation_name", ""),
        ("user", "is_terminal_subject", "near"),
    ]
    assert model.relations[3].subject_types[1].is_public_wildcard
    (caveat,) = found.caveats
    assert [(one.name, one.type, one.parent_caveat_name) for one in caveat.parameters] == [
        ("distance", "int", "near"),
        ("allowed", "int", "near"),
    ]
    assert "distance <= allowed" in caveat.expression
    older = authzed.ExperimentalReflectSchema(experimental.ExperimentalReflectSchemaRequest(consistency=FULLY))
    assert older.SerializeToString() == found.SerializeToString()


@pytest.mark.parametrize(
    ("filters", "definitions", "caveats"),
    [
        ([{"optional_definition_name_filter": "mod"}], ["model"], []),
        ([{"optional_caveat_name_filter": "n"}], [], ["near"]),
        ([{"optional_definition_name_filter": "us"}, {"optional_caveat_name_filter": "x"}], ["user"], []),
    ],
)
def test_reflection_of_a_part(authzed, filters, definitions, caveats):
    request = ReflectSchemaRequest(optional_filters=[ReflectionSchemaFilter(**one) for one in filters])
    found = authzed.ReflectSchema(request)
    assert [one.name for one in found.definitions] == definitions
    assert [one.name for one in found.caveats] == caveats


def test_reflection_of_some_relations(authzed):
    filter = ReflectionSchemaFilter(optional_definition_name_filter="model", optional_relation_name_filter="ow")
    (model,) = authzed.ReflectSchema(ReflectSchemaRequest(optional_filters=[filter])).definitions
    assert [one.name for one in model.relations] == ["owner"]


@pytest.mark.parametrize(
    "filter",
    [
        {"optional_definition_name_filter": "a", "optional_caveat_name_filter": "b"},
        {"optional_relation_name_filter": "a"},
        {"optional_permission_name_filter": "a"},
        {
            "optional_definition_name_filter": "a",
            "optional_relation_name_filter": "b",
            "optional_permission_name_filter": "c",
        },
    ],
)
def test_a_filter_of_nothing(authzed, m, filter):
    request = ReflectSchemaRequest(optional_filters=[ReflectionSchemaFilter(**filter)])
    assert m.refused(lambda: authzed.ReflectSchema(request)).code is grpc.StatusCode.INVALID_ARGUMENT


def names(references) -> list[tuple[str, str, bool]]:
    return [(one.definition_name, one.relation_name, one.is_permission) for one in references]


def test_what_a_relation_could_give(authzed, m):
    request = ComputablePermissionsRequest(definition_name="group", relation_name="member")
    found = authzed.ComputablePermissions(request)
    assert names(found.permissions) == [("model", "reader", False), ("model", "use", True)]
    request.optional_definition_name_filter = "gr"
    assert not authzed.ComputablePermissions(request).permissions
    request.relation_name = "none"
    assert m.refused(lambda: authzed.ComputablePermissions(request)).code is grpc.StatusCode.FAILED_PRECONDITION
    older = experimental.ExperimentalComputablePermissionsRequest(definition_name="group", relation_name="member")
    assert names(authzed.ExperimentalComputablePermissions(older).permissions) == names(found.permissions)


def test_what_a_permission_is_made_of(authzed, m):
    request = DependentRelationsRequest(definition_name="model", permission_name="use")
    found = authzed.DependentRelations(request)
    assert {("model", "reader", False), ("model", "own", True), ("model", "banned", False)} <= set(
        names(found.relations)
    )
    older = experimental.ExperimentalDependentRelationsRequest(definition_name="model", permission_name="use")
    assert names(authzed.ExperimentalDependentRelations(older).relations) == names(found.relations)
    request.permission_name = "reader"
    assert m.refused(lambda: authzed.DependentRelations(request)).code is grpc.StatusCode.INVALID_ARGUMENT


CHANGES = [
    ("definition user {}", "/** any */\ndefinition user {}", "definition_doc_comment_changed"),
    ("definition group {", "definition team {}\n\ndefinition group {", "definition_added"),
    ("relation owner: user\n", "relation owner: user\n    relation tester: user\n", "relation_added"),
    ("/** who may read */", "/** readers */", "relation_doc_comment_changed"),
    ("relation banned: user", "relation banned: user | group#member", "relation_subject_type_added"),
    ("guest: user | user:*", "guest: user", "relation_subject_type_removed"),
    ("permission own = owner", "permission own = owner\n    permission see = owner", "permission_added"),
    ("permission own = owner", "/** have */\n    permission own = owner", "permission_doc_comment_changed"),
    ("reader + own + guest - banned", "reader + own + guest", "permission_expr_changed"),
    ("caveat near", "/** close */\ncaveat near", "caveat_doc_comment_changed"),
    ("distance <= allowed", "distance < allowed", "caveat_expr_changed"),
    ("allowed int) {", 'allowed int, unit string) { unit == "m" && ', "caveat_parameter_added"),
    ("caveat near", "caveat far(x int) { x > 1 }\n\ncaveat near", "caveat_added"),
]
BACK = {"added": "removed", "removed": "added"}


@pytest.mark.parametrize(("old", "new", "kind"), CHANGES)
def test_what_a_text_would_change(authzed, m, old, new, kind):
    changed = m.SCHEMA.replace(old, new)
    assert changed != m.SCHEMA
    found = authzed.DiffSchema(DiffSchemaRequest(comparison_schema=changed))
    assert kind in [one.WhichOneof("diff") for one in found.diffs]
    assert all(one.WhichOneof("diff") for one in found.diffs)
    older = experimental.ExperimentalDiffSchemaRequest(comparison_schema=changed)
    assert authzed.ExperimentalDiffSchema(older).SerializeToString() == found.SerializeToString()
    authzed.WriteSchema(WriteSchemaRequest(schema=changed))
    back = authzed.DiffSchema(DiffSchemaRequest(comparison_schema=m.SCHEMA))
    start, _, end = kind.rpartition("_")
    assert f"{start}_{BACK.get(end, end)}" in [one.WhichOneof("diff") for one in back.diffs]


def test_a_parameter_of_another_type(authzed, m):
    text = m.SCHEMA.replace("distance int, allowed int", "distance double, allowed double")
    found = authzed.DiffSchema(DiffSchemaRequest(comparison_schema=text)).diffs
    changed = [one.caveat_parameter_type_changed for one in found if one.HasField("caveat_parameter_type_changed")]
    assert [(one.parameter.name, one.previous_type, one.parameter.type) for one in changed] == [
        ("distance", "int", "double"),
        ("allowed", "int", "double"),
    ]


def test_no_change_and_a_text_that_cannot_be_read(authzed, m):
    assert not authzed.DiffSchema(DiffSchemaRequest(comparison_schema=m.SCHEMA)).diffs
    found = m.refused(lambda: authzed.DiffSchema(DiffSchemaRequest(comparison_schema="definition {")))
    assert found.reason == "ERROR_REASON_SCHEMA_PARSE_ERROR"


def test_counters_are_not_there(authzed, m):
    request = experimental.ExperimentalCountRelationshipsRequest(name="x")
    assert m.refused(lambda: authzed.ExperimentalCountRelationships(request)).code is grpc.StatusCode.UNIMPLEMENTED
