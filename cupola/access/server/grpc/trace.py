"""Explanations as debug traces: which question was asked on the way to another, and what was answered.

Not here: how an answer is explained (`engine/explain.py`).
Invariant: every question of the explanation is in the trace, in its order; operators between questions, for which the
message has no place, are left out and their parts stand where they stood.
"""

from collections.abc import Iterator
from typing import Any

from authzed.api.v1 import debug_pb2 as debug

from cupola.access.consistency import at_exactly
from cupola.access.decision import Decision, Step, Verdict
from cupola.access.errors import InvalidArgument
from cupola.access.graph import Graph
from cupola.access.relation import Caveated, Relationship
from cupola.access.schema.model import Schema
from cupola.access.wire import write_object, write_struct, write_subject, write_time

_RESULT = {
    Verdict.YES: debug.CheckDebugTrace.PERMISSIONSHIP_HAS_PERMISSION,
    Verdict.NO: debug.CheckDebugTrace.PERMISSIONSHIP_NO_PERMISSION,
    Verdict.CONDITIONAL: debug.CheckDebugTrace.PERMISSIONSHIP_CONDITIONAL_PERMISSION,
}
_CAVEAT_RESULT = {
    Verdict.YES: debug.CaveatEvalInfo.RESULT_TRUE,
    Verdict.NO: debug.CaveatEvalInfo.RESULT_FALSE,
    Verdict.CONDITIONAL: debug.CaveatEvalInfo.RESULT_MISSING_SOME_CONTEXT,
}


def write_trace(graph: Graph, decision: Decision) -> debug.DebugInformation:
    """Returns the message of a decision's explanation, with the schema it was found by."""
    version = graph.schema(at_exactly(decision.revision))
    message = debug.DebugInformation(schema_used=version.text)
    for trace in _traces(decision.why, version.schema) if decision.why is not None else ():
        message.check.CopyFrom(trace)
        break
    return message


def _traces(step: Step, schema: Schema) -> Iterator[debug.CheckDebugTrace]:
    try:
        asked = Relationship.parse(step.text)
    except InvalidArgument:
        for part in step.parts:
            yield from _traces(part, schema)
        return
    trace = debug.CheckDebugTrace(
        resource=write_object(asked.object),
        permission=asked.relation,
        permission_type=_kind(schema, asked),
        subject=write_subject(asked.subject),
        result=_RESULT[step.verdict],
    )
    fact = step.relationship
    if fact is not None and fact.caveat is not None:
        trace.caveat_evaluation_info.CopyFrom(_caveat(step, fact.caveat, schema))
    if fact is not None and fact.expires_seconds is not None:
        trace.optional_expires_at.CopyFrom(write_time(fact.expires_seconds))
    if step.parts:
        trace.sub_problems.traces.extend(one for part in step.parts for one in _traces(part, schema))
    yield trace


def _kind(schema: Schema, asked: Relationship) -> Any:
    relation = schema.relation(asked.object.type, asked.relation)
    if relation is None:
        return debug.CheckDebugTrace.PERMISSION_TYPE_UNSPECIFIED
    if relation.writable:
        return debug.CheckDebugTrace.PERMISSION_TYPE_RELATION
    return debug.CheckDebugTrace.PERMISSION_TYPE_PERMISSION


def _caveat(step: Step, caveat: Caveated, schema: Schema) -> debug.CaveatEvalInfo:
    known = schema.conditions.get(caveat.name)
    info = debug.CaveatEvalInfo(
        caveat_name=caveat.name,
        expression="" if known is None else known.expression,
        result=_CAVEAT_RESULT[step.verdict],
        context=write_struct(caveat.parameters),
    )
    if step.missing:
        info.partial_caveat_info.missing_required_context.extend(step.missing)
    return info
