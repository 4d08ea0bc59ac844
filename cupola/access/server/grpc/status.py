"""Errors as gRPC statuses: the code, the text, and details as SpiceDB gives them.

Not here: what went wrong (`errors.py`). The way back is `read_error`, for our clients.
Invariant: an error that we foresaw says what to do; one that we did not says nothing of our insides, and is logged.
Source: google.rpc.Status, ErrorInfo and RetryInfo; the reasons are authzed.api.v1.ErrorReason.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from cupola.access import errors
from cupola.access.errors import AccessError
from cupola.access.server.quota import OverQuota

DOMAIN = "authzed.com"
"""Of the reasons."""
DETAILS = "grpc-status-details-bin"
LONGEST = 2000
"""Characters of a text: it travels in headers, which have at most 8 KiB."""

_CODES = {code.value[0]: code for code in grpc.StatusCode}
_REASONS: dict[type[AccessError], str] = {
    errors.SchemaError: "SCHEMA_PARSE_ERROR",
    errors.NotAllowed: "INVALID_SUBJECT_TYPE",
    errors.AlreadyExists: "ATTEMPT_TO_RECREATE_RELATIONSHIP",
    errors.PreconditionFailed: "WRITE_OR_DELETE_PRECONDITION_FAILURE",
    errors.Orphaned: "SCHEMA_TYPE_ERROR",
    errors.Conflict: "SERIALIZATION_FAILURE",
    errors.TooMuch: "EXCEEDS_MAXIMUM_ALLOWABLE_LIMIT",
}
_LIMITS = {
    "updates": "TOO_MANY_UPDATES_IN_REQUEST",
    "preconditions": "TOO_MANY_PRECONDITIONS_IN_REQUEST",
    "questions": "TOO_MANY_CHECKS_IN_REQUEST",
    "metadata_bytes": "TRANSACTION_METADATA_TOO_LARGE",
    "context_bytes": "MAX_RELATIONSHIP_CONTEXT_SIZE",
    "delete": "TOO_MANY_RELATIONSHIPS_FOR_TRANSACTIONAL_DELETE",
}
_FILTERS = {"relationship_filter": "INVALID_FILTER", "optional_preconditions.filter": "EMPTY_PRECONDITION"}
_UNKNOWN = {
    errors.Named.CAVEAT: "UNKNOWN_CAVEAT",
    errors.Named.RELATION: "UNKNOWN_RELATION_OR_PERMISSION",
    errors.Named.TYPE: "UNKNOWN_DEFINITION",
}
_TEXTS = {
    "is changed twice": "UPDATES_ON_SAME_RELATIONSHIP",
    "cannot write a relationship to permission": "CANNOT_UPDATE_PERMISSION",
}


class InvalidCursor(errors.InvalidArgument):
    """A cursor that is none, or another request's."""

    status = errors.Status.FAILED_PRECONDITION


class Unsupported(AccessError):
    """A part of the API that we do not have."""

    status = errors.Status.UNIMPLEMENTED


class Unexpected(AccessError):
    """What should not have happened."""

    status = errors.Status.INTERNAL


class Refusal(NamedTuple):
    """What a call is ended with; gRPC's `Status`.

    Args:
        code: of gRPC.
        details: text.
        trailing_metadata: with google.rpc.Status.
    """

    code: grpc.StatusCode
    details: str
    trailing_metadata: Sequence[tuple[str, bytes]]


def refusal_of(error: AccessError) -> Refusal:
    """Returns the status of an error."""
    status = write_status(error)
    return Refusal(_CODES[status.code], status.message, ((DETAILS, status.SerializeToString()),))


def write_status(error: AccessError) -> status_pb2.Status:
    """Returns the google.rpc.Status of an error, with its reason, our names for it, and when to try again."""
    facts = {"kind": type(error).__name__, "problem": error.problem, "where": error.where, "remedy": error.remedy}
    if isinstance(error, errors.SchemaError):
        facts |= {"source_line": str(error.line), "source_column": str(error.column)} if error.line else {}
    info = error_details_pb2.ErrorInfo(
        reason=f"ERROR_REASON_{reason_of(error)}",
        domain=DOMAIN,
        metadata={name: text[: LONGEST // 2] for name, text in facts.items() if text},
    )
    details = [any_pb2.Any()]
    details[0].Pack(info)
    if isinstance(error, OverQuota) and error.retry_seconds:
        pause = duration_pb2.Duration()
        pause.FromMilliseconds(round(error.retry_seconds * 1000) or 1)
        details.append(any_pb2.Any())
        details[1].Pack(error_details_pb2.RetryInfo(retry_delay=pause))
    return status_pb2.Status(code=error.status.grpc, message=str(error)[:LONGEST], details=details)


def reason_of(error: AccessError) -> str:
    """Returns the name of an error's reason, without its beginning; UNSPECIFIED where SpiceDB has none."""
    if isinstance(error, InvalidCursor):
        return "INVALID_CURSOR"
    if isinstance(error, errors.TooMuch) and error.where in _LIMITS:
        return _LIMITS[error.where]
    if isinstance(error, errors.UnknownName):
        return _UNKNOWN[error.kind]
    if isinstance(error, errors.InvalidArgument) and error.where in _FILTERS:
        return _FILTERS[error.where]
    for text, reason in _TEXTS.items():
        if error.problem.startswith(text):
            return reason
    return next((_REASONS[kind] for kind in type(error).__mro__ if kind in _REASONS), "UNSPECIFIED")


def read_error(status: status_pb2.Status) -> AccessError:
    """Returns the error of a status: of the kind that our server raised, or that which fits another server's."""
    info = error_details_pb2.ErrorInfo()
    for detail in status.details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            detail.Unpack(info)
    facts = dict(info.metadata)
    kind = {one.__name__: one for one in _kinds(AccessError)}.get(facts.get("kind", ""))
    if kind is None or kind.status.grpc != status.code:
        kind, facts = _fitting(status.code, info.reason), {"problem": status.message}
    said = {"where": facts.get("where", ""), "remedy": facts.get("remedy", "")}
    problem = facts.get("problem") or status.message
    if issubclass(kind, errors.SchemaError):
        line, column = (int(facts.get(name, "0")) for name in ("source_line", "source_column"))
        return kind(problem, line=line, column=column, **said)
    if issubclass(kind, errors.UnknownName):
        named = next((one for one, reason in _UNKNOWN.items() if info.reason.endswith(reason)), errors.Named.RELATION)
        return kind(problem, kind=named, **said)
    if issubclass(kind, OverQuota):
        return kind(problem, retry_seconds=_retry_seconds(status), **said)
    return kind(problem, **said)


def _retry_seconds(status: status_pb2.Status) -> float:
    retry = error_details_pb2.RetryInfo()
    for detail in status.details:
        if detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            detail.Unpack(retry)
    return retry.retry_delay.ToMilliseconds() / 1000


def _kinds(kind: type[AccessError]) -> Iterator[type[AccessError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _kinds(below)


def _fitting(code: int, reason: str) -> type[AccessError]:
    if "UNKNOWN" in reason:
        return errors.UnknownName
    if "SCHEMA" in reason:
        return errors.SchemaError if code == errors.Status.INVALID_ARGUMENT.grpc else errors.PreconditionFailed
    return {
        errors.Status.INVALID_ARGUMENT.grpc: errors.InvalidArgument,
        errors.Status.DEADLINE_EXCEEDED.grpc: errors.Late,
        errors.Status.NOT_FOUND.grpc: errors.NotFound,
        errors.Status.ALREADY_EXISTS.grpc: errors.AlreadyExists,
        errors.Status.PERMISSION_DENIED.grpc: errors.Denied,
        errors.Status.RESOURCE_EXHAUSTED.grpc: errors.TooMuch,
        errors.Status.FAILED_PRECONDITION.grpc: errors.PreconditionFailed,
        errors.Status.ABORTED.grpc: errors.Conflict,
        errors.Status.OUT_OF_RANGE.grpc: errors.RevisionGone,
        errors.Status.UNIMPLEMENTED.grpc: Unsupported,
        errors.Status.UNAVAILABLE.grpc: errors.StoreUnavailable,
        errors.Status.UNAUTHENTICATED.grpc: errors.Unauthenticated,
    }.get(code, Unexpected)
