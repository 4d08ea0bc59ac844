"""Checks, one and many, and expand, as the clients of others ask."""

import grpc
import pytest
from authzed.api.v1 import (
    AlgebraicSubjectSet,
    BulkCheckPermissionRequest,
    BulkCheckPermissionRequestItem,
    CheckBulkPermissionsRequest,
    CheckBulkPermissionsRequestItem,
    CheckPermissionRequest,
    CheckPermissionResponse,
    Consistency,
    ContextualizedCaveat,
    ExpandPermissionTreeRequest,
    ZedToken,
)
from authzed.api.v1 import debug_pb2 as debug
from google.protobuf import struct_pb2

from cupola.access.errors import Late
from cupola.access.graph import Graph

HAS = CheckPermissionResponse.PERMISSIONSHIP_HAS_PERMISSION
NOT = CheckPermissionResponse.PERMISSIONSHIP_NO_PERMISSION
PERHAPS = CheckPermissionResponse.PERMISSIONSHIP_CONDITIONAL_PERMISSION


def context(**values) -> struct_pb2.Struct:
    message = struct_pb2.Struct()
    message.update(values)
    return message


@pytest.fixture
def written(authzed, m):
    """A group of which ada is a member may read, and so may eve who is near enough."""
    request = m.touches(
        "group:research#member@user:ada", "model:kiln#reader@group:research#member", "model:kiln#reader@user:eve"
    )
    caveat = ContextualizedCaveat(caveat_name="near", context=context(allowed=10))
    request.updates[2].relationship.optional_caveat.CopyFrom(caveat)
    return authzed.WriteRelationships(request).written_at


@pytest.mark.parametrize(
    ("subject", "given", "answer"),
    [
        ("user:ada", {}, HAS),
        ("user:bob", {}, NOT),
        ("group:research#member", {}, HAS),
        ("user:eve", {}, PERHAPS),
        ("user:eve", {"distance": 10}, HAS),
        ("user:eve", {"distance": 11}, NOT),
    ],
)
def test_a_check(authzed, written, m, subject, given, answer):
    consistency = Consistency(at_least_as_fresh=written)
    found = authzed.CheckPermission(
        m.question("model:kiln#use", subject, context=context(**given), consistency=consistency)
    )
    assert found.permissionship == answer
    assert list(found.partial_caveat_info.missing_required_context) == (["distance"] if answer == PERHAPS else [])
    assert found.checked_at.token == written.token
    assert not found.HasField("debug_trace")


def test_consistency(authzed, written, m):
    later = authzed.WriteRelationships(m.touches("model:kiln#banned@user:ada")).written_at

    def ask(**wanted):
        return authzed.CheckPermission(m.question("model:kiln#use", "user:ada", consistency=Consistency(**wanted)))

    assert ask(at_exact_snapshot=written).permissionship == HAS
    assert ask(at_exact_snapshot=written).checked_at == written
    for wanted in ({"at_least_as_fresh": written}, {"at_least_as_fresh": later}, {"fully_consistent": True}):
        assert ask(**wanted).permissionship == NOT
        assert ask(**wanted).checked_at == later
    assert ask(minimize_latency=True).permissionship == ask().permissionship == NOT


@pytest.mark.parametrize(
    "wanted",
    [
        {"fully_consistent": False},
        {"minimize_latency": False},
        {"at_least_as_fresh": ZedToken(token="nonsense")},
        {"at_exact_snapshot": ZedToken()},
    ],
)
def test_a_consistency_that_cannot_be(authzed, m, wanted):
    found = m.refused(
        lambda: authzed.CheckPermission(m.question("model:kiln#use", "user:ada", consistency=Consistency(**wanted)))
    )
    assert found.code is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("permission", "subject", "code", "reason"),
    [
        ("modle:kiln#use", "user:ada", "FAILED_PRECONDITION", "ERROR_REASON_UNKNOWN_DEFINITION"),
        ("model:kiln#uze", "user:ada", "FAILED_PRECONDITION", "ERROR_REASON_UNKNOWN_RELATION_OR_PERMISSION"),
        ("model:kiln#use", "usr:ada", "FAILED_PRECONDITION", "ERROR_REASON_UNKNOWN_DEFINITION"),
        ("model:kiln#use", "group:a#members", "FAILED_PRECONDITION", "ERROR_REASON_UNKNOWN_RELATION_OR_PERMISSION"),
        ("model:ki ln#use", "user:ada", "INVALID_ARGUMENT", "ERROR_REASON_UNSPECIFIED"),
        ("model:*#use", "user:ada", "INVALID_ARGUMENT", "ERROR_REASON_UNSPECIFIED"),
        ("model:kiln#", "user:ada", "INVALID_ARGUMENT", "ERROR_REASON_UNSPECIFIED"),
        (":kiln#use", "user:ada", "INVALID_ARGUMENT", "ERROR_REASON_UNSPECIFIED"),
        ("model:kiln#use", "user:a b", "INVALID_ARGUMENT", "ERROR_REASON_UNSPECIFIED"),
        ("model:kiln#use", "user:", "INVALID_ARGUMENT", "ERROR_REASON_UNSPECIFIED"),
    ],
)
def test_a_question_that_cannot_be_asked(authzed, m, permission, subject, code, reason):
    object, name = permission.split("#")
    request = CheckPermissionRequest(resource=m.thing(object), permission=name, subject=m.who(subject))
    found = m.refused(lambda: authzed.CheckPermission(request))
    assert (found.code.name, found.reason) == (code, reason)
    assert found.metadata["problem"] in found.text


def test_an_empty_question(authzed, m):
    assert m.refused(lambda: authzed.CheckPermission(CheckPermissionRequest())).code is (
        grpc.StatusCode.INVALID_ARGUMENT
    )


def test_numbers_that_json_does_not_have(authzed, written, m):
    request = m.question("model:kiln#use", "user:eve", context=context(distance=float("nan")))
    assert m.refused(lambda: authzed.CheckPermission(request)).code is grpc.StatusCode.INVALID_ARGUMENT


def test_a_trace(authzed, written, m):
    found = authzed.CheckPermission(m.question("model:kiln#use", "user:ada", with_tracing=True)).debug_trace
    assert "definition model" in found.schema_used
    root = found.check
    assert (root.resource, root.permission) == (m.thing("model:kiln"), "use")
    assert root.permission_type == debug.CheckDebugTrace.PERMISSION_TYPE_PERMISSION
    assert root.result == debug.CheckDebugTrace.PERMISSIONSHIP_HAS_PERMISSION

    def every(trace):
        yield trace
        for part in trace.sub_problems.traces:
            yield from every(part)

    asked = {(one.resource.object_id, one.permission) for one in every(root)}
    assert {("kiln", "use"), ("kiln", "reader")} <= asked


def test_a_trace_of_a_condition(authzed, written, m):
    found = authzed.CheckPermission(m.question("model:kiln#use", "user:eve", with_tracing=True)).debug_trace

    def every(trace):
        yield trace
        for part in trace.sub_problems.traces:
            yield from every(part)

    info = next(one.caveat_evaluation_info for one in every(found.check) if one.HasField("caveat_evaluation_info"))
    assert info.caveat_name == "near"
    assert info.result == debug.CaveatEvalInfo.RESULT_MISSING_SOME_CONTEXT
    assert list(info.partial_caveat_info.missing_required_context) == ["distance"]
    assert dict(info.context) == {"allowed": 10}


def items(m, kind, *questions):
    return [
        kind(resource=m.thing(text.split("#")[0]), permission=text.split("#")[1], subject=m.who(subject))
        for text, subject in questions
    ]


QUESTIONS = (
    ("model:kiln#use", "user:ada"),
    ("model:kiln#use", "user:bob"),
    ("modle:kiln#use", "user:ada"),
    ("model:ki ln#use", "user:ada"),
    ("model:kiln#use", "user:eve"),
    ("model:kiln#use", "user:ada"),
)


def test_many_checks_each_with_its_answer_or_its_error(authzed, written, m):
    request = CheckBulkPermissionsRequest(
        items=items(m, CheckBulkPermissionsRequestItem, *QUESTIONS), with_tracing=True
    )
    found = authzed.CheckBulkPermissions(request)
    assert [pair.request for pair in found.pairs] == list(request.items)
    assert [pair.item.permissionship for pair in found.pairs] == [HAS, NOT, 0, 0, PERHAPS, HAS]
    assert [pair.error.code for pair in found.pairs] == [0, 0, 9, 3, 0, 0]
    assert found.pairs[4].item.partial_caveat_info.missing_required_context == ["distance"]
    assert found.pairs[0].item.debug_trace.check.permission == "use"
    assert found.checked_at == written


def test_many_checks_by_the_older_name(authzed, written, m):
    request = BulkCheckPermissionRequest(items=items(m, BulkCheckPermissionRequestItem, *QUESTIONS))
    found = authzed.BulkCheckPermission(request)
    assert [pair.item.permissionship for pair in found.pairs] == [HAS, NOT, 0, 0, PERHAPS, HAS]
    assert found.checked_at == written


def test_no_checks_at_all(authzed, m):
    assert authzed.CheckBulkPermissions(CheckBulkPermissionsRequest()).checked_at.token


def test_too_many_checks(authzed, m):
    request = CheckBulkPermissionsRequest(items=items(m, CheckBulkPermissionsRequestItem, QUESTIONS[0]) * 10_001)
    found = m.refused(lambda: authzed.CheckBulkPermissions(request))
    assert (found.code.name, found.reason) == ("RESOURCE_EXHAUSTED", "ERROR_REASON_TOO_MANY_CHECKS_IN_REQUEST")


def test_expand(authzed, written, m):
    found = authzed.ExpandPermissionTree(ExpandPermissionTreeRequest(resource=m.thing("model:kiln"), permission="use"))
    assert found.expanded_at == written
    root = found.tree_root
    assert (root.expanded_object, root.expanded_relation) == (m.thing("model:kiln"), "use")
    assert root.intermediate.operation == AlgebraicSubjectSet.OPERATION_EXCLUSION

    def leaves(tree):
        if tree.HasField("leaf"):
            yield tree
        for child in tree.intermediate.children:
            yield from leaves(child)

    subjects = {
        (leaf.expanded_relation, one.object.object_id, one.optional_relation)
        for leaf in leaves(root)
        for one in leaf.leaf.subjects
    }
    assert {("reader", "eve", ""), ("reader", "research", "member")} <= subjects


def test_expand_of_what_is_not_there(authzed, m):
    request = ExpandPermissionTreeRequest(resource=m.thing("model:kiln"), permission="uze")
    assert m.refused(lambda: authzed.ExpandPermissionTree(request)).reason == (
        "ERROR_REASON_UNKNOWN_RELATION_OR_PERMISSION"
    )


def test_a_question_ends_when_its_caller_waits_no_longer(client, monkeypatch):
    left = []

    def within(graph, seconds):
        left.append(seconds)
        return bounded(graph, -1)

    bounded = Graph.within
    monkeypatch.setattr(Graph, "within", within)
    with pytest.raises(Late) as told:
        client.check("model:kiln#use", "user:ada")
    assert "takes too long" in told.value.problem, "the engine says so, not the channel"
    assert 0 < left[0] < 61
