"""What can go wrong for a user of the permission graph: each kind knows its gRPC status and HTTP code.

Not here: how an error is written to a client (`server/`). This room imports no other, so its errors have a
base of their own with the same three parts: where, what is so, what to type instead.
Invariant: an operation that raises one of these has written nothing.
"""

import difflib
import enum
from collections.abc import Iterable


class Status(enum.Enum):
    """The gRPC status of an error: its number, and the HTTP code that goes with it."""

    INVALID_ARGUMENT = 3, 400
    DEADLINE_EXCEEDED = 4, 504
    NOT_FOUND = 5, 404
    ALREADY_EXISTS = 6, 409
    PERMISSION_DENIED = 7, 403
    RESOURCE_EXHAUSTED = 8, 429
    FAILED_PRECONDITION = 9, 400
    ABORTED = 10, 409
    OUT_OF_RANGE = 11, 400
    UNIMPLEMENTED = 12, 501
    INTERNAL = 13, 500
    UNAVAILABLE = 14, 503
    UNAUTHENTICATED = 16, 401

    @property
    def grpc(self) -> int:
        """The number of the status."""
        return self.value[0]

    @property
    def http(self) -> int:
        """The HTTP code."""
        return self.value[1]


class AccessError(Exception):
    """A mistake that the user can mend.

    Args:
        problem: what was asked, what is so, and why it cannot be.
        where: the relationship, field, file or line at fault.
        remedy: what to type instead.
    """

    status = Status.INVALID_ARGUMENT

    def __init__(self, problem: str, *, where: str = "", remedy: str = ""):
        super().__init__(problem, where, remedy)
        self.problem, self.where, self.remedy = problem, where, remedy

    def __str__(self) -> str:
        first = f"{self.where}: {self.problem}" if self.where else self.problem
        return f"{first}\n{self.remedy}" if self.remedy else first


class InvalidArgument(AccessError, ValueError):
    """A text, an id, a filter or a limit that cannot be."""


class SchemaError(AccessError, ValueError):
    """A schema that cannot be read or does not hold together.

    Args:
        line: from 1; 0 where it is about no line.
        column: from 1; 0 likewise.
        source: name of the file, where there are several.
    """

    def __init__(
        self, problem: str, *, line: int = 0, column: int = 0, source: str = "", where: str = "", remedy: str = ""
    ):
        place = ":".join(str(part) for part in (source, line, column) if part)
        super().__init__(problem, where=where or place, remedy=remedy)
        self.line, self.column, self.source = line, column, source


class Named(enum.Enum):
    """What a name is of."""

    TYPE = "type"
    RELATION = "relation"
    """Or a permission, where either can stand."""
    CAVEAT = "caveat"


class UnknownName(AccessError, LookupError):
    """A type, relation, permission or caveat that the schema does not have.

    Args:
        kind: what the name would be of.
    """

    status = Status.FAILED_PRECONDITION

    def __init__(self, problem: str, *, kind: Named, where: str = "", remedy: str = ""):
        super().__init__(problem, where=where, remedy=remedy)
        self.kind = kind


class NotAllowed(AccessError, ValueError):
    """A relationship that the schema does not allow."""


class AlreadyExists(AccessError):
    """A relationship that was to be created and is there."""

    status = Status.ALREADY_EXISTS


class PreconditionFailed(AccessError):
    """What a write takes for granted is not so."""

    status = Status.FAILED_PRECONDITION


class Orphaned(PreconditionFailed):
    """A schema that does not allow relationships which are there; its status is SpiceDB's."""

    status = Status.INVALID_ARGUMENT


class NotFound(AccessError, LookupError):
    """There is no such schema, store, model or revision."""

    status = Status.NOT_FOUND


class RevisionGone(AccessError):
    """A snapshot older than the window in which old revisions are kept."""

    status = Status.OUT_OF_RANGE


class Conflict(AccessError):
    """Another write came between; to be tried again."""

    status = Status.ABORTED


class MissingContext(AccessError):
    """A condition lacks parameters, where a caller wants a plain yes or no."""


class TooMuch(AccessError):
    """A batch, a context, an expression or a question over its limit, or a quota that is used up."""

    status = Status.RESOURCE_EXHAUSTED


class Late(AccessError):
    """The time for an answer is over."""

    status = Status.DEADLINE_EXCEEDED


class StoreUnavailable(AccessError):
    """The database is locked, full, gone or of another version."""

    status = Status.UNAVAILABLE


class Unauthenticated(AccessError):
    """No key or token, or one that is not good here."""

    status = Status.UNAUTHENTICATED


class Denied(AccessError):
    """The caller is known and may not do this."""

    status = Status.PERMISSION_DENIED


def meant(name: str, known: Iterable[str]) -> str:
    """Returns a remedy for a name that is not there: the nearest of those that are, or "" where none is near."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"Did you mean `{close[0]}`?" if close else ""
