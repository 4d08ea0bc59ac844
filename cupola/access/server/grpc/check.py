"""Checks, one and many, and the tree of who has a permission.

Not here: how they are answered (`engine/`), traces (`trace.py`).
"""

from typing import Any

from authzed.api.v1 import core_pb2 as core
from authzed.api.v1 import permission_service_pb2 as api

from cupola.access.consistency import at_exactly
from cupola.access.decision import Decision, Question, Verdict
from cupola.access.engine.at import Node
from cupola.access.errors import AccessError, InvalidArgument
from cupola.access.server.grpc.gate import Call
from cupola.access.server.grpc.status import write_status
from cupola.access.server.grpc.trace import write_trace
from cupola.access.wire import (
    read_consistency,
    read_name,
    read_object,
    read_struct,
    read_subject,
    write_object,
    write_subject,
)

_SHIP = api.CheckPermissionResponse
_PERMISSIONSHIP = {
    Verdict.YES: _SHIP.PERMISSIONSHIP_HAS_PERMISSION,
    Verdict.NO: _SHIP.PERMISSIONSHIP_NO_PERMISSION,
    Verdict.CONDITIONAL: _SHIP.PERMISSIONSHIP_CONDITIONAL_PERMISSION,
}
_OPERATORS = {
    "union": core.AlgebraicSubjectSet.OPERATION_UNION,
    "intersection": core.AlgebraicSubjectSet.OPERATION_INTERSECTION,
    "exclusion": core.AlgebraicSubjectSet.OPERATION_EXCLUSION,
}


def check_permission(call: Call, request: api.CheckPermissionRequest) -> api.CheckPermissionResponse:
    """Answers one check."""
    decision = call.graph.check(
        (read_object(request.resource), read_name(request.permission, "permission")),
        read_subject(request.subject),
        context=read_struct(request.context),
        consistency=read_consistency(request.consistency),
        explain=request.with_tracing,
    )
    answer = api.CheckPermissionResponse(
        checked_at=core.ZedToken(token=decision.revision), permissionship=_PERMISSIONSHIP[decision.verdict]
    )
    _note_missing(answer, decision)
    if decision.why is not None:
        answer.debug_trace.CopyFrom(write_trace(call.graph, decision))
    return answer


def check_bulk_permissions(call: Call, request: api.CheckBulkPermissionsRequest) -> api.CheckBulkPermissionsResponse:
    """Answers many checks at one revision, each with its answer or its error."""
    questions: list[Question | AccessError] = [_question(item) for item in request.items]
    asked = [question for question in questions if isinstance(question, Question)]
    found = iter(call.graph.check_many(asked, consistency=read_consistency(request.consistency)))
    answer = api.CheckBulkPermissionsResponse()
    for item, question in zip(request.items, questions, strict=True):
        pair = answer.pairs.add()
        pair.request.CopyFrom(item)
        if isinstance(question, AccessError):
            pair.error.CopyFrom(write_status(question))
            continue
        decision = next(found)
        if decision.error is not None:
            pair.error.CopyFrom(write_status(decision.error))
            continue
        answer.checked_at.token = decision.revision
        pair.item.permissionship = _PERMISSIONSHIP[decision.verdict]
        _note_missing(pair.item, decision)
        if request.with_tracing:
            _trace(call, question, decision, pair.item)
    if not answer.checked_at.token:
        answer.checked_at.token = call.graph.token(read_consistency(request.consistency))
    return answer


def expand_permission_tree(call: Call, request: api.ExpandPermissionTreeRequest) -> api.ExpandPermissionTreeResponse:
    """Answers with the tree of who has a permission."""
    token, root = call.graph.expand(
        (read_object(request.resource), read_name(request.permission, "permission")),
        consistency=read_consistency(request.consistency),
    )
    return api.ExpandPermissionTreeResponse(expanded_at=core.ZedToken(token=token), tree_root=_tree(root))


def bulk_cost(request: Any) -> int:
    """Returns how many questions a batch is."""
    return len(request.items)


def _question(item: api.CheckBulkPermissionsRequestItem) -> Question | AccessError:
    try:
        return Question(
            read_object(item.resource),
            read_name(item.permission, "permission"),
            read_subject(item.subject),
            read_struct(item.context),
        )
    except InvalidArgument as error:
        return error


def _trace(call: Call, question: Question, decision: Decision, item: api.CheckBulkPermissionsResponseItem) -> None:
    """Asks once more, at the revision of the batch, for the way to the answer."""
    explained = call.graph.check(
        (question.object, question.permission),
        question.subject,
        context=question.context,
        consistency=at_exactly(decision.revision),
        explain=True,
    )
    item.debug_trace.CopyFrom(write_trace(call.graph, explained))


def _note_missing(answer: Any, decision: Decision) -> None:
    if decision.verdict is Verdict.CONDITIONAL:
        answer.partial_caveat_info.missing_required_context.extend(decision.missing)


def _tree(node: Node) -> core.PermissionRelationshipTree:
    tree = core.PermissionRelationshipTree(expanded_object=write_object(node.object), expanded_relation=node.relation)
    if node.operator:
        tree.intermediate.operation = _OPERATORS[node.operator]
        tree.intermediate.children.extend(_tree(child) for child in node.children)
    else:
        tree.leaf.SetInParent()
        tree.leaf.subjects.extend(write_subject(subject) for subject in node.subjects)
    return tree
