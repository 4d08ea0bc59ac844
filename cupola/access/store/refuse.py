"""What every store refuses, in the same words.

Invariant: a message names the relationship or filter at fault.
"""

from collections.abc import Sequence

from cupola.access.errors import AlreadyExists, Conflict, InvalidArgument, PreconditionFailed, RevisionGone
from cupola.access.relation import Filter, Must, Relationship, Update


def already_exists(one: Relationship) -> AlreadyExists:
    """Returns the error of a relationship that is there and was to be created."""
    return AlreadyExists(
        "the relationship is there already", where=str(one), remedy="Use touch, which replaces what is there."
    )


def precondition_failed(must: Must, filter: Filter) -> PreconditionFailed:
    """Returns the error of a precondition that does not hold."""
    asked = " ".join(f"{name}={part!r}" for name, part in filter._asdict().items() if part not in ("", None))
    so = "no relationship matches" if must is Must.MATCH else "a relationship matches"
    return PreconditionFailed(
        f"{so} {asked or 'anything'}", where="precondition", remedy="Read again, and write what fits what is so."
    )


def check_once(updates: Sequence[Update]) -> None:
    """Refuses two changes of one relationship.

    Raises:
        InvalidArgument: there are two.
    """
    seen = set()
    for _, one in updates:
        if one.key in seen:
            raise InvalidArgument("is changed twice in one write", where=str(one), remedy="Send one change of it.")
        seen.add(one.key)


def check_expected(schema_id: str | None, head: int | None, *, newest_schema_id: str | None, newest_head: int) -> None:
    """Refuses a write that another one came before.

    Args:
        schema_id: expected; None: any.
        head: expected; None: any.

    Raises:
        Conflict: the newest schema or revision is another one.
    """
    if schema_id is not None and schema_id != newest_schema_id:
        raise Conflict(
            "the schema was changed meanwhile", where=f"schema {schema_id}", remedy="Check again and write again."
        )
    if head is not None and head != newest_head:
        raise Conflict(
            f"another write came between: the newest revision is {newest_head}, not {head}",
            where="revision",
            remedy="Read again and write again.",
        )


def check_made(revision: int, head: int) -> None:
    """Refuses a revision that was never made.

    Raises:
        InvalidArgument: it is none.
    """
    if not 0 <= revision <= head:
        raise InvalidArgument(
            f"revision {revision} was never made; the newest is {head}",
            where="revision",
            remedy="Pass a token that this store gave.",
        )


def check_kept(revision: int, oldest: int) -> None:
    """Refuses a revision that is older than the oldest that is kept.

    Raises:
        RevisionGone: it is.
    """
    if revision < oldest:
        raise RevisionGone(
            f"revision {revision} is no longer kept; the oldest is {oldest}",
            where="revision",
            remedy="Ask at a newer token, or for at least this one.",
        )


def check_limit(limit: int | None) -> None:
    """Refuses a page of nothing.

    Raises:
        InvalidArgument: the limit is under 1.
    """
    if limit is not None and limit < 1:
        raise InvalidArgument(f"a page of {limit} can hold nothing", where="limit", remedy="Pass 1 or more.")
