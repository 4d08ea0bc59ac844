"""Errors as statuses and back, those of other servers too."""

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from cupola.access import errors
from cupola.access.server.grpc.status import (
    LONGEST,
    InvalidCursor,
    Unexpected,
    Unsupported,
    read_error,
    refusal_of,
    write_status,
)
from cupola.access.server.quota import OverQuota

KINDS = [
    errors.InvalidArgument,
    errors.NotAllowed,
    errors.AlreadyExists,
    errors.PreconditionFailed,
    errors.NotFound,
    errors.RevisionGone,
    errors.Conflict,
    errors.MissingContext,
    errors.TooMuch,
    errors.Late,
    errors.StoreUnavailable,
    errors.Unauthenticated,
    errors.Denied,
    InvalidCursor,
    Unsupported,
    Unexpected,
]


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_comes_back_as_it_was(kind):
    error = kind("is wrong", where="here", remedy="Do this.")
    back = read_error(status_pb2.Status.FromString(write_status(error).SerializeToString()))
    assert type(back) is kind
    assert (back.problem, back.where, back.remedy) == ("is wrong", "here", "Do this.")
    refusal = refusal_of(error)
    assert refusal.code.value[0] == error.status.grpc
    assert refusal.details == "here: is wrong\nDo this."


@pytest.mark.parametrize("kind", errors.Named)
def test_an_unknown_name_comes_back_with_what_it_is_of(kind):
    back = read_error(write_status(errors.UnknownName("is not there", kind=kind)))
    assert (type(back), back.kind) == (errors.UnknownName, kind)


def test_every_kind_of_error_is_told_of():
    own = {kind for kind in errors.AccessError.__subclasses__() if kind.__module__ == errors.__name__}
    assert own <= {*KINDS, errors.SchemaError, errors.UnknownName, *errors.TooMuch.__subclasses__()}


def test_a_schema_error_keeps_its_place_and_a_quota_its_time():
    back = read_error(write_status(errors.SchemaError("is wrong", line=3, column=7)))
    assert isinstance(back, errors.SchemaError)
    assert (back.line, back.column, back.where) == (3, 7, "3:7")
    back = read_error(write_status(OverQuota("used up", retry_seconds=1.25)))
    assert isinstance(back, OverQuota)
    assert back.retry_seconds == 1.25


def test_a_long_text_still_fits_into_headers():
    error = errors.InvalidArgument("x" * 10_000, where="y" * 10_000, remedy="z" * 10_000)
    refusal = refusal_of(error)
    assert len(refusal.details) == LONGEST
    assert sum(len(value) for _, value in refusal.trailing_metadata) + len(refusal.details) < 16_384


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        ("INVALID_ARGUMENT", "ERROR_REASON_UNSPECIFIED", errors.InvalidArgument),
        ("INVALID_ARGUMENT", "ERROR_REASON_SCHEMA_PARSE_ERROR", errors.SchemaError),
        ("FAILED_PRECONDITION", "ERROR_REASON_UNKNOWN_DEFINITION", errors.UnknownName),
        ("FAILED_PRECONDITION", "ERROR_REASON_WRITE_OR_DELETE_PRECONDITION_FAILURE", errors.PreconditionFailed),
        ("ALREADY_EXISTS", "", errors.AlreadyExists),
        ("OUT_OF_RANGE", "", errors.RevisionGone),
        ("UNAVAILABLE", "", errors.StoreUnavailable),
        ("CANCELLED", "", Unexpected),
        ("UNKNOWN", "", Unexpected),
    ],
)
def test_what_another_server_says(code, reason, kind):
    status = status_pb2.Status(code=grpc.StatusCode[code].value[0], message="no")
    if reason:
        detail = any_pb2.Any()
        detail.Pack(error_details_pb2.ErrorInfo(reason=reason, domain="authzed.com", metadata={"a": "b"}))
        status.details.append(detail)
    back = read_error(status)
    assert type(back) is kind
    assert back.problem == "no"


def test_a_status_that_calls_itself_something_else_is_taken_by_its_code():
    status = write_status(errors.Denied("no"))
    status.code = grpc.StatusCode.NOT_FOUND.value[0]
    assert type(read_error(status)) is errors.NotFound
