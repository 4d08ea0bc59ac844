"""What can be asked of a server, as requests and the reading of their answers; nothing is sent from here.

Not here: who sends them and how (`client.py`), which has a method for each function here, of the same arguments.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from authzed.api.v1 import core_pb2 as core
from authzed.api.v1 import debug_pb2 as debug
from authzed.api.v1 import permission_service_pb2 as api
from authzed.api.v1 import schema_service_pb2 as schema_api
from authzed.api.v1 import watch_service_pb2 as watch_api

from cupola.access.consistency import FAST, Consistency
from cupola.access.consistency import at_least as fresh_as
from cupola.access.decision import Decision, Question, Step, Verdict
from cupola.access.engine.at import NOTHING, Holder, Node, Resource
from cupola.access.relation import Filter, Object, Precondition, Relationship, Subject, Surplus, Update, permission_of
from cupola.access.server.grpc.status import read_error
from cupola.access.wire import (
    read_object,
    read_relationship,
    read_struct,
    read_subject,
    read_update,
    write_consistency,
    write_filter,
    write_object,
    write_preconditions,
    write_relationship,
    write_struct,
    write_subject,
    write_update,
)

T = TypeVar("T")
BATCH = 1000
"""Relationships in a message of an import."""

_VERDICTS = {
    api.CheckPermissionResponse.PERMISSIONSHIP_HAS_PERMISSION: Verdict.YES,
    api.CheckPermissionResponse.PERMISSIONSHIP_NO_PERMISSION: Verdict.NO,
    api.CheckPermissionResponse.PERMISSIONSHIP_CONDITIONAL_PERMISSION: Verdict.CONDITIONAL,
}
_OPERATORS = {
    core.AlgebraicSubjectSet.OPERATION_UNION: "union",
    core.AlgebraicSubjectSet.OPERATION_INTERSECTION: "intersection",
    core.AlgebraicSubjectSet.OPERATION_EXCLUSION: "exclusion",
}


@dataclasses.dataclass(frozen=True)
class Asked(Generic[T]):
    """A call to be made.

    Args:
        method: of the API.
        request: message; an iterator of them where they are sent as a stream.
        read: makes of the answer, or of all answers of a stream, what the caller wants.
    """

    method: str
    request: Any
    read: Callable[[Any], T]


@dataclasses.dataclass(frozen=True)
class Followed(Generic[T]):
    """A stream to be listened to.

    Args:
        method: of the API.
        request: message.
        read: makes of one message what the caller wants.
    """

    method: str
    request: Any
    read: Callable[[Any], Iterator[T]]


class Sending:
    """A stream of requests that remembers what stopped it: gRPC would tell of a cancelled call alone.

    Args:
        messages: to be sent.
    """

    def __init__(self, messages: Iterator[Any]):
        self._messages = messages
        self.error: Exception | None = None

    def __iter__(self) -> "Sending":
        return self

    def __next__(self) -> Any:
        try:
            return next(self._messages)
        except StopIteration:
            raise
        except Exception as error:
            # The caller's own iterator: whatever it raises is for the caller to see.
            self.error = error
            raise


@dataclasses.dataclass(frozen=True)
class Page(Generic[T]):
    """Results at one revision.

    Args:
        revision: token.
        found: results.
        cursor: to go on behind the last; "" where there is none.
    """

    revision: str
    found: Sequence[T]
    cursor: str


class Seen(NamedTuple):
    """What a watch tells.

    Args:
        revision: token to go on from.
        updates: that were made together; none where something else is told.
        metadata: that the writer sent along.
        schema: whether the schema was written.
        checkpoint: whether it is a mere sign of life.
    """

    revision: str
    updates: tuple[Update, ...] = ()
    metadata: Mapping[str, Any] = NOTHING
    schema: bool = False
    checkpoint: bool = False


def check(
    permission: str | tuple[Object, str],
    subject: str | Subject,
    *,
    context: Mapping[str, Any] = NOTHING,
    at_least: str = "",
    consistency: Consistency = FAST,
    explain: bool = False,
) -> Asked[Decision]:
    """Asks whether a subject has a permission on an object; as `Graph.check`."""
    object, name = permission_of(permission)
    request = api.CheckPermissionRequest(
        consistency=write_consistency(fresh_as(at_least) if at_least else consistency),
        resource=write_object(object),
        permission=name,
        subject=write_subject(_subject(subject)),
        context=write_struct(context) if context else None,
        with_tracing=explain,
    )
    return Asked("CheckPermission", request, lambda answer: _decision(answer, answer.checked_at.token))


def check_many(questions: Sequence[Question], *, consistency: Consistency = FAST) -> Asked[list[Decision]]:
    """Asks many questions at one revision; as `Graph.check_many`."""
    items = [
        api.CheckBulkPermissionsRequestItem(
            resource=write_object(one.object),
            permission=one.permission,
            subject=write_subject(one.subject),
            context=write_struct(one.context) if one.context else None,
        )
        for one in questions
    ]

    def read(answer: api.CheckBulkPermissionsResponse) -> list[Decision]:
        token = answer.checked_at.token
        return [
            Decision(False, token, error=read_error(pair.error))
            if pair.HasField("error")
            else _decision(pair.item, token)
            for pair in answer.pairs
        ]

    request = api.CheckBulkPermissionsRequest(consistency=write_consistency(consistency), items=items)
    return Asked("CheckBulkPermissions", request, read)


def expand(permission: str | tuple[Object, str], *, consistency: Consistency = FAST) -> Asked[tuple[str, Node]]:
    """Asks for the tree of who has a permission; as `Graph.expand`. Conditions do not travel."""
    object, name = permission_of(permission)
    request = api.ExpandPermissionTreeRequest(
        consistency=write_consistency(consistency), resource=write_object(object), permission=name
    )
    return Asked("ExpandPermissionTree", request, lambda answer: (answer.expanded_at.token, _node(answer.tree_root)))


def lookup_resources(
    type: str,
    permission: str,
    subject: str | Subject,
    *,
    context: Mapping[str, Any] = NOTHING,
    consistency: Consistency = FAST,
    limit: int = 0,
    cursor: str = "",
) -> Asked[Page[Resource]]:
    """Asks for the objects of a type on which a subject has a permission.

    Args:
        limit: of the page; 0: all.
        cursor: of the page before.
    """
    request = api.LookupResourcesRequest(
        consistency=write_consistency(consistency),
        resource_object_type=type,
        permission=permission,
        subject=write_subject(_subject(subject)),
        context=write_struct(context) if context else None,
        optional_limit=limit,
        optional_cursor=_cursor(cursor),
    )
    return Asked(
        "LookupResources",
        request,
        lambda answers: _page(
            answers,
            lambda one: one.looked_up_at.token,
            lambda one: Resource(one.resource_object_id, _missing(one.partial_caveat_info)),
        ),
    )


def lookup_subjects(
    permission: str | tuple[Object, str],
    subject_type: str,
    subject_relation: str = "",
    *,
    context: Mapping[str, Any] = NOTHING,
    consistency: Consistency = FAST,
    limit: int = 0,
    cursor: str = "",
) -> Asked[Page[Holder]]:
    """Asks for the subjects of a type that have a permission; arguments as above. SpiceDB takes no limit here."""
    object, name = permission_of(permission)
    request = api.LookupSubjectsRequest(
        consistency=write_consistency(consistency),
        resource=write_object(object),
        permission=name,
        subject_object_type=subject_type,
        optional_subject_relation=subject_relation,
        context=write_struct(context) if context else None,
        optional_concrete_limit=limit,
        optional_cursor=_cursor(cursor),
    )

    def holder(one: api.LookupSubjectsResponse) -> Holder:
        excluded = tuple(_holder(other) for other in one.excluded_subjects)
        return _holder(one.subject)._replace(excluded=excluded)

    return Asked("LookupSubjects", request, lambda answers: _page(answers, lambda one: one.looked_up_at.token, holder))


def read(
    filter: Filter, *, consistency: Consistency = FAST, limit: int = 0, cursor: str = ""
) -> Asked[Page[Relationship]]:
    """Asks for the relationships that match; arguments as above."""
    request = api.ReadRelationshipsRequest(
        consistency=write_consistency(consistency),
        relationship_filter=write_filter(filter),
        optional_limit=limit,
        optional_cursor=_cursor(cursor),
    )
    return Asked(
        "ReadRelationships",
        request,
        lambda answers: _page(answers, lambda one: one.read_at.token, lambda one: read_relationship(one.relationship)),
    )


def write(
    *updates: Update, require: Sequence[Precondition] = (), metadata: Mapping[str, Any] | None = None
) -> Asked[str]:
    """Asks for all changes or none; as `Graph.write`."""
    request = api.WriteRelationshipsRequest(
        updates=[write_update(update) for update in updates],
        optional_preconditions=write_preconditions(require),
        optional_transaction_metadata=None if metadata is None else write_struct(metadata),
    )
    return Asked("WriteRelationships", request, lambda answer: answer.written_at.token)


def delete(
    filter: Filter,
    *,
    require: Sequence[Precondition] = (),
    limit: int = 0,
    surplus: Surplus = Surplus.STAYS,
    metadata: Mapping[str, Any] | None = None,
) -> Asked[tuple[str, int]]:
    """Asks for the deletion of what matches; as `Graph.delete`, with 0 for no limit."""
    request = api.DeleteRelationshipsRequest(
        relationship_filter=write_filter(filter),
        optional_preconditions=write_preconditions(require),
        optional_limit=limit,
        optional_allow_partial_deletions=bool(limit) and surplus is Surplus.STAYS,
        optional_transaction_metadata=None if metadata is None else write_struct(metadata),
    )
    return Asked(
        "DeleteRelationships", request, lambda answer: (answer.deleted_at.token, answer.relationships_deleted_count)
    )


def load(relationships: Iterable[Relationship]) -> Asked[int]:
    """Asks for the creation of many relationships at one revision; returns how many they were; as `Graph.load`."""

    def batches() -> Iterator[api.ImportBulkRelationshipsRequest]:
        left = iter(relationships)
        while batch := [write_relationship(one) for one in itertools.islice(left, BATCH)]:
            yield api.ImportBulkRelationshipsRequest(relationships=batch)

    return Asked("ImportBulkRelationships", Sending(batches()), lambda answer: answer.num_loaded)


def export(filter: Filter = Filter(), *, consistency: Consistency = FAST) -> Followed[Relationship]:
    """Asks for all relationships, or those that match, one after another."""
    request = api.ExportBulkRelationshipsRequest(
        consistency=write_consistency(consistency),
        optional_relationship_filter=None if filter == Filter() else write_filter(filter),
    )
    return Followed("ExportBulkRelationships", request, lambda answer: map(read_relationship, answer.relationships))


def watch(after: str = "", *, types: Sequence[str] = (), filters: Sequence[Filter] = ()) -> Followed[Seen]:
    """Asks for every write after a token, for as long as one listens.

    Args:
        after: token; "": what is written from now on. The first that is told is where that begins.
        types: of objects whose relationships to tell of; empty: all.
        filters: of relationships to tell of; empty: all. Not together with types.
    """
    kinds = [
        watch_api.WATCH_KIND_INCLUDE_RELATIONSHIP_UPDATES,
        watch_api.WATCH_KIND_INCLUDE_SCHEMA_UPDATES,
        watch_api.WATCH_KIND_INCLUDE_CHECKPOINTS,
    ]
    request = watch_api.WatchRequest(
        optional_object_types=types,
        optional_start_cursor=core.ZedToken(token=after) if after else None,
        optional_relationship_filters=[write_filter(one) for one in filters],
        optional_update_kinds=kinds,
    )
    return Followed("Watch", request, lambda answer: iter((_seen(answer),)))


def read_schema() -> Asked[tuple[str, str]]:
    """Asks for a token and the text of the schema in force."""
    return Asked(
        "ReadSchema", schema_api.ReadSchemaRequest(), lambda answer: (answer.read_at.token, answer.schema_text)
    )


def write_schema(text: str) -> Asked[str]:
    """Asks to make a text the schema from now on; as `Graph.write_schema`."""
    return Asked("WriteSchema", schema_api.WriteSchemaRequest(schema=text), lambda answer: answer.written_at.token)


def _subject(subject: str | Subject) -> Subject:
    return Subject.parse(subject) if isinstance(subject, str) else subject


def _cursor(token: str) -> core.Cursor | None:
    return core.Cursor(token=token) if token else None


def _missing(partial: core.PartialCaveatInfo) -> tuple[str, ...]:
    return tuple(partial.missing_required_context)


def _decision(answer: Any, token: str) -> Decision:
    verdict = _VERDICTS.get(answer.permissionship, Verdict.NO)
    why = _step(answer.debug_trace.check) if answer.HasField("debug_trace") else None
    return Decision(verdict is Verdict.YES, token, _missing(answer.partial_caveat_info), why)


def _step(trace: debug.CheckDebugTrace) -> Step:
    asked = f"{read_object(trace.resource)}#{trace.permission}@{read_subject(trace.subject)}"
    # The two enumerations of the API have the same numbers.
    verdict = {int(number): one for number, one in _VERDICTS.items()}.get(int(trace.result), Verdict.NO)
    return Step(
        asked,
        verdict,
        missing=_missing(trace.caveat_evaluation_info.partial_caveat_info),
        note=trace.caveat_evaluation_info.caveat_name,
        parts=tuple(_step(part) for part in trace.sub_problems.traces),
    )


def _node(tree: core.PermissionRelationshipTree) -> Node:
    object = Object(tree.expanded_object.object_type, tree.expanded_object.object_id)
    if tree.HasField("intermediate"):
        children = tuple(_node(child) for child in tree.intermediate.children)
        return Node(object, tree.expanded_relation, _OPERATORS[tree.intermediate.operation], children)
    subjects = (read_subject(one) for one in tree.leaf.subjects)
    facts = tuple(Relationship(object, tree.expanded_relation, subject) for subject in subjects)
    return Node(object, tree.expanded_relation, relationships=facts)


def _holder(subject: api.ResolvedSubject) -> Holder:
    return Holder(subject.subject_object_id, _missing(subject.partial_caveat_info))


def _page(answers: Iterable[Any], token: Callable[[Any], str], result: Callable[[Any], T]) -> Page[T]:
    got = list(answers)
    last = got[-1] if got else None
    revision, cursor = (token(last), last.after_result_cursor.token) if last is not None else ("", "")
    return Page(revision, tuple(result(one) for one in got), cursor)


def _seen(answer: watch_api.WatchResponse) -> Seen:
    return Seen(
        answer.changes_through.token,
        tuple(read_update(update) for update in answer.updates),
        read_struct(answer.optional_transaction_metadata),
        answer.schema_updated,
        answer.is_checkpoint,
    )
