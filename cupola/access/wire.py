"""The messages of `authzed.api.v1` and our records, both ways.

Not here: questions and answers (`server/grpc/`, `calls.py`), which are made of these.
Invariant: what comes in is checked for its form, so that a record holds nothing that its text could not; what goes
out and comes in again is equal.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from authzed.api.v1 import core_pb2 as core
from authzed.api.v1 import permission_service_pb2 as permission
from google.protobuf import struct_pb2, timestamp_pb2

from cupola.access import consistency, relation
from cupola.access.errors import InvalidArgument
from cupola.access.relation import (
    WILDCARD,
    Caveated,
    Filter,
    Must,
    Object,
    Operation,
    Precondition,
    Relationship,
    Subject,
    Update,
)

Struct = struct_pb2.Struct
_OPERATIONS = {
    Operation.CREATE: core.RelationshipUpdate.OPERATION_CREATE,
    Operation.TOUCH: core.RelationshipUpdate.OPERATION_TOUCH,
    Operation.DELETE: core.RelationshipUpdate.OPERATION_DELETE,
}
_OPERATIONS_IN = {number: operation for operation, number in _OPERATIONS.items()}
_MUST = {
    Must.MATCH: permission.Precondition.OPERATION_MUST_MATCH,
    Must.NOT_MATCH: permission.Precondition.OPERATION_MUST_NOT_MATCH,
}
_PLAIN = re.compile(r"[\w/|=+-]{1,128}")
_MUST_IN = {number: must for must, number in _MUST.items()}


def read_object(message: core.ObjectReference, field: str = "resource") -> Object:
    """Returns the object of a message.

    Raises:
        InvalidArgument: it is empty or has characters that no object has.
    """
    if not _is_object(message.object_type, message.object_id):
        raise _strange(field, f"{message.object_type}:{message.object_id}", "a type and an id")
    return Object(message.object_type, message.object_id)


def read_subject(message: core.SubjectReference, field: str = "subject") -> Subject:
    """Returns the subject of a message.

    Raises:
        InvalidArgument: it is empty or has characters that no subject has.
    """
    found = Subject(message.object.object_type, message.object.object_id, message.optional_relation)
    if not _is_subject(found):
        raise _strange(field, f"{found.type}:{found.id}#{found.relation}", "a type, an id and perhaps a relation")
    return found._replace(relation="") if found.relation == "..." else found


def read_name(text: str, field: str) -> str:
    """Returns a name that must be there.

    Raises:
        InvalidArgument: it is empty.
    """
    if not text:
        raise InvalidArgument("is empty", where=field, remedy=f"Set {field}.")
    return text


def write_object(object: Object) -> core.ObjectReference:
    """Returns the message of an object."""
    return core.ObjectReference(object_type=object.type, object_id=object.id)


def write_subject(subject: Subject) -> core.SubjectReference:
    """Returns the message of a subject."""
    reference = core.ObjectReference(object_type=subject.type, object_id=subject.id)
    return core.SubjectReference(object=reference, optional_relation=subject.relation)


def read_relationship(message: core.Relationship) -> Relationship:
    """Returns the relationship of a message.

    Raises:
        InvalidArgument: a part is missing or has strange characters.
    """
    caveat = None
    if message.HasField("optional_caveat") and message.optional_caveat.caveat_name:
        caveat = Caveated.of(message.optional_caveat.caveat_name, read_struct(message.optional_caveat.context))
    return Relationship(
        read_object(message.resource),
        read_name(message.relation, "relation"),
        read_subject(message.subject),
        caveat,
        read_time(message.optional_expires_at) if message.HasField("optional_expires_at") else None,
    )


def write_relationship(relationship: Relationship) -> core.Relationship:
    """Returns the message of a relationship."""
    message = core.Relationship(
        resource=write_object(relationship.object),
        relation=relationship.relation,
        subject=write_subject(relationship.subject),
    )
    if relationship.caveat is not None:
        message.optional_caveat.caveat_name = relationship.caveat.name
        message.optional_caveat.context.CopyFrom(write_struct(relationship.caveat.parameters))
    if relationship.expires_seconds is not None:
        message.optional_expires_at.CopyFrom(write_time(relationship.expires_seconds))
    return message


def read_update(message: core.RelationshipUpdate) -> Update:
    """Returns the change of a message.

    Raises:
        InvalidArgument: it has no operation, or is of no relationship.
    """
    operation = _OPERATIONS_IN.get(message.operation)
    if operation is None:
        raise InvalidArgument("has no operation", where="updates", remedy="Use CREATE, TOUCH or DELETE.")
    return Update(operation, read_relationship(message.relationship))


def write_update(update: Update) -> core.RelationshipUpdate:
    """Returns the message of a change."""
    return core.RelationshipUpdate(
        operation=_OPERATIONS[update.operation], relationship=write_relationship(update.relationship)
    )


def read_filter(message: permission.RelationshipFilter, field: str = "relationship_filter") -> Filter:
    """Returns the filter of a message.

    Raises:
        InvalidArgument: it says nothing, or asks for an id and a prefix, or for subjects of no type.
    """
    subject = message.optional_subject_filter if message.HasField("optional_subject_filter") else None
    found = Filter(
        message.resource_type,
        message.optional_resource_id,
        message.optional_resource_id_prefix,
        message.optional_relation,
        read_name(subject.subject_type, f"{field}.optional_subject_filter.subject_type") if subject else "",
        subject.optional_subject_id if subject else "",
        _own(subject.optional_relation.relation) if subject and subject.HasField("optional_relation") else None,
    )
    if found == Filter():
        raise InvalidArgument("says nothing", where=field, remedy="Give a type, an id, a relation or a subject.")
    if found.id and found.id_prefix:
        raise InvalidArgument("has an id and a prefix of ids", where=field, remedy="Give one of the two.")
    return found


def write_filter(filter: Filter) -> permission.RelationshipFilter:
    """Returns the message of a filter."""
    message = permission.RelationshipFilter(
        resource_type=filter.type,
        optional_resource_id=filter.id,
        optional_resource_id_prefix=filter.id_prefix,
        optional_relation=filter.relation,
    )
    if filter.subject_type or filter.subject_id or filter.subject_relation is not None:
        message.optional_subject_filter.subject_type = filter.subject_type
        message.optional_subject_filter.optional_subject_id = filter.subject_id
        if filter.subject_relation is not None:
            message.optional_subject_filter.optional_relation.relation = filter.subject_relation
            message.optional_subject_filter.optional_relation.SetInParent()
    return message


def read_preconditions(messages: Iterable[permission.Precondition]) -> list[Precondition]:
    """Returns the preconditions of messages.

    Raises:
        InvalidArgument: one has no operation or an empty filter.
    """
    found = []
    for message in messages:
        must = _MUST_IN.get(message.operation)
        if must is None:
            raise InvalidArgument(
                "has no operation", where="optional_preconditions", remedy="Use MUST_MATCH or MUST_NOT_MATCH."
            )
        found.append(Precondition(must, read_filter(message.filter, "optional_preconditions.filter")))
    return found


def write_preconditions(preconditions: Iterable[Precondition]) -> list[permission.Precondition]:
    """Returns the messages of preconditions."""
    return [
        permission.Precondition(operation=_MUST[one.must], filter=write_filter(one.filter)) for one in preconditions
    ]


def read_consistency(message: permission.Consistency) -> consistency.Consistency:
    """Returns the wish of a message; none is for the least latency.

    Raises:
        InvalidArgument: a wish that is false, which says nothing.
    """
    match message.WhichOneof("requirement"):
        case "at_least_as_fresh":
            return consistency.at_least(message.at_least_as_fresh.token)
        case "at_exact_snapshot":
            return consistency.at_exactly(message.at_exact_snapshot.token)
        case "fully_consistent" if message.fully_consistent:
            return consistency.LATEST
        case None | "minimize_latency" if message.minimize_latency or not message.WhichOneof("requirement"):
            return consistency.FAST
    raise InvalidArgument("is set to false", where="consistency", remedy="Set the one that is wanted to true.")


def write_consistency(wanted: consistency.Consistency) -> permission.Consistency:
    """Returns the message of a wish."""
    match wanted.freshness:
        case consistency.Freshness.AT_LEAST:
            return permission.Consistency(at_least_as_fresh=core.ZedToken(token=wanted.token))
        case consistency.Freshness.EXACTLY:
            return permission.Consistency(at_exact_snapshot=core.ZedToken(token=wanted.token))
        case consistency.Freshness.FULLY:
            return permission.Consistency(fully_consistent=True)
    return permission.Consistency(minimize_latency=True)


def read_struct(message: struct_pb2.Struct) -> dict[str, Any]:
    """Returns the JSON object of a message; numbers without a fraction are whole ones, as JSON writes them.

    Raises:
        InvalidArgument: a number that JSON does not have.
    """
    return {name: _read_value(value) for name, value in message.fields.items()}


def write_struct(values: Mapping[str, Any]) -> struct_pb2.Struct:
    """Returns the message of a JSON object.

    Raises:
        InvalidArgument: JSON has no such values.
    """
    message = struct_pb2.Struct()
    try:
        message.update(json.loads(json.dumps(dict(values), allow_nan=False)))
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"is no JSON object: {error}", where="context", remedy="Use JSON values.") from None
    return message


def read_time(message: timestamp_pb2.Timestamp) -> float:
    """Returns the seconds since 1970 of a message."""
    # A quotient of whole numbers is the nearest float there is, so a time comes back as it was sent.
    return (message.seconds * 10**9 + message.nanos) / 10**9


def write_time(seconds: float | int) -> timestamp_pb2.Timestamp:
    """Returns the message of seconds since 1970, to the microsecond."""
    whole, rest = divmod(round(seconds * 10**6), 10**6)
    return timestamp_pb2.Timestamp(seconds=whole, nanos=rest * 1000)


def _read_value(value: struct_pb2.Value) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "number_value":
        number = value.number_value
        if not math.isfinite(number):
            raise InvalidArgument(f"{number} is no number of JSON", where="context", remedy="Send it as a text.")
        return int(number) if number.is_integer() and abs(number) < 2**53 else number
    if kind == "struct_value":
        return read_struct(value.struct_value)
    if kind == "list_value":
        return [_read_value(one) for one in value.list_value.values]
    return None if kind in (None, "null_value") else getattr(value, kind)


def _is_object(type: str, id: str) -> bool:
    return _plain(type, id) or (id != WILDCARD and _parses(Object, (type, id)))


def _is_subject(subject: Subject) -> bool:
    if subject.relation == "...":
        return _is_subject(subject._replace(relation=""))
    return _plain(*subject[:2], subject.relation or "x") or _parses(Subject, subject)


def _plain(*parts: str) -> bool:
    """Whether parts are such as nearly all are, which needs no parsing to see."""
    return all(_PLAIN.fullmatch(part) for part in parts)


def _parses(kind: type[Object] | type[Subject], parts: tuple[str, ...]) -> bool:
    try:
        return kind.parse(str(kind(*parts))) == parts
    except InvalidArgument:
        return False


def _own(name: str) -> str:
    return "" if name == "..." else name


def _strange(field: str, text: str, wanted: str) -> InvalidArgument:
    shown = text if len(text) <= relation.LONGEST_ID else text[: relation.LONGEST_ID] + "..."
    return InvalidArgument(f"{shown!r} is none", where=field, remedy=f"Give {wanted}, without spaces, #, @ or *.")
