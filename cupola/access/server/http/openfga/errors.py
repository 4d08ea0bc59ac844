"""OpenFGA's codes of errors, by name and HTTP code, and which of our errors is which of them.

Source: openfga/v1/errors_ignore.proto of OpenFGA's public API: 1000 to 1999 are 401 and 403, 2000 to 3499 are 400,
3500 to 3999 are 422, 4000 to 4999 are 500, 5000 on are 404; a conflict between writes is 409.
"""

import enum

from starlette.responses import Response

from cupola.access.errors import (
    AccessError,
    AlreadyExists,
    Conflict,
    Denied,
    Late,
    NotFound,
    PreconditionFailed,
    RevisionGone,
    Status,
    StoreUnavailable,
    TooMuch,
    Unauthenticated,
)
from cupola.access.server.http.errors import (
    BodyLate,
    Busy,
    Internal,
    NoRoute,
    TooLarge,
    WrongMethod,
    error_headers,
    http_code,
    json_response,
)
from cupola.access.server.quota import OverQuota


class Code(enum.Enum):
    """A code of OpenFGA's that this server answers with."""

    bearer_token_missing = 1010
    unauthenticated = 1500
    forbidden = 1600
    validation_error = 2000
    authorization_model_not_found = 2001
    invalid_write_input = 2003
    cannot_allow_duplicate_tuples_in_one_request = 2004
    invalid_continuation_token = 2007
    invalid_expand_input = 2010
    write_failed_due_to_invalid_input = 2017
    latest_authorization_model_not_found = 2020
    type_not_found = 2021
    relation_not_found = 2022
    invalid_tuple = 2027
    assertions_too_many_items = 2033
    page_size_invalid = 2039
    type_definitions_too_few_items = 2045
    query_string_type_continuation_token_mismatch = 2052
    exceeded_entity_limit = 2053
    invalid_authorization_model = 2056
    unsupported_schema_version = 2057
    internal_error = 4000
    deadline_exceeded = 4004
    resource_exhausted = 4006
    unavailable = 4010
    undefined_endpoint = 5000
    store_id_not_found = 5002

    @property
    def http(self) -> int:
        """The HTTP code that goes with it."""
        if self is Code.forbidden:
            return 403
        return next(
            http
            for least, http in ((5000, 404), (4000, 500), (3500, 422), (2000, 400), (1000, 401))
            if self.value >= least
        )


class Refused(AccessError):
    """An error that OpenFGA has a code for.

    Args:
        code: its code.
        problem: what is so, in words.
    """

    status = Status.INVALID_ARGUMENT

    def __init__(self, code: Code, problem: str, *, where: str = "", remedy: str = ""):
        super().__init__(problem, where=where, remedy=remedy)
        self.code = code


_CODES: list[tuple[tuple[type[AccessError], ...], Code]] = [
    ((Unauthenticated,), Code.unauthenticated),
    ((Denied,), Code.forbidden),
    ((NoRoute, WrongMethod), Code.undefined_endpoint),
    ((NotFound,), Code.latest_authorization_model_not_found),
    ((Busy, OverQuota), Code.resource_exhausted),
    ((TooLarge, TooMuch), Code.exceeded_entity_limit),
    ((Late,), Code.deadline_exceeded),
    ((AlreadyExists, PreconditionFailed), Code.write_failed_due_to_invalid_input),
    ((RevisionGone,), Code.invalid_continuation_token),
    ((StoreUnavailable,), Code.unavailable),
    ((Internal,), Code.internal_error),
]


def code_of(error: AccessError) -> Code:
    """Returns OpenFGA's code of an error."""
    if isinstance(error, Refused):
        return error.code
    return next((code for kinds, code in _CODES if isinstance(error, kinds)), Code.validation_error)


def message_of(error: AccessError) -> str:
    """Returns what is told of an error, in one line."""
    return " ".join(str(error).split())


def refuse(error: AccessError) -> Response:
    """Returns the answer of OpenFGA's API for an error."""
    code, name = code_of(error), code_of(error).name
    status = code.http
    if isinstance(error, Conflict):
        name, status = "Aborted", 409
    elif isinstance(error, Busy | OverQuota | TooLarge | StoreUnavailable | BodyLate | WrongMethod):
        # Its clients try 429 and 503 again after a while, which is what is meant.
        status = http_code(error)
    return json_response({"code": name, "message": message_of(error)}, status, error_headers(error))
