"""OpenFGA's read, write and changes.

Not here: the form of tuples (`tuples.py`).
Invariant: a write is made whole or not at all, whatever else is written at the same time; changes are told in order,
each once, to whoever goes on from the token that it was given.
"""

from collections.abc import Sequence
from typing import Any, Literal

from starlette.responses import Response

from cupola.access.consistency import FAST, LATEST, at_exactly
from cupola.access.errors import AccessError, AlreadyExists, Conflict, InvalidArgument, PreconditionFailed, RevisionGone
from cupola.access.graph import ATTEMPTS, Graph
from cupola.access.relation import (
    Filter,
    Must,
    Object,
    Operation,
    Precondition,
    Relationship,
    Subject,
    Update,
    format_time,
    parse_time,
)
from cupola.access.server.http.body import Lenient
from cupola.access.server.http.call import Call, Endpoint
from cupola.access.server.http.cursor import cursor_of
from cupola.access.server.http.errors import json_response
from cupola.access.server.http.openfga.errors import Code, Refused, refuse
from cupola.access.server.http.openfga.stores import page_size, place, store_of, version_of
from cupola.access.server.http.openfga.tuples import Key, exactly, object_of, shown, user_of
from cupola.access.server.identity import Role
from cupola.access.server.quota import Spending
from cupola.access.store.protocol import Change
from cupola.access.token import revision_of, token_of

MOST_TUPLES = 100
"""Tuples of one write, deletes included."""

Preference = Literal["UNSPECIFIED", "MINIMIZE_LATENCY", "HIGHER_CONSISTENCY"]


class Writes(Lenient, kw_only=True):
    """Tuples to be written."""

    tuple_keys: list[Key] = []
    on_duplicate: Literal["", "error", "ignore"] = "error"


class Deletes(Lenient, kw_only=True):
    """Tuples to be deleted."""

    tuple_keys: list[Key] = []
    on_missing: Literal["", "error", "ignore"] = "error"


class Write(Lenient, kw_only=True):
    """Writes and deletes that are made together."""

    writes: Writes = Writes()
    deletes: Deletes = Deletes()
    authorization_model_id: str = ""


class Read(Lenient, kw_only=True):
    """Which tuples to read."""

    tuple_key: Key | None = None
    page_size: int | None = None
    continuation_token: str = ""
    consistency: Preference = "UNSPECIFIED"


async def write(call: Call) -> Response:
    """Writes and deletes tuples."""
    store, asked = await store_of(call), call.parse(Write)
    added = [key.relationship() for key in asked.writes.tuple_keys]
    gone = [key.relationship() for key in asked.deletes.tuple_keys]
    _check_count(added + gone)
    call.spend(Spending.WRITES, len(added) + len(gone))

    def run(graph: Graph) -> str:
        id = version_of(graph, asked.authorization_model_id).id if asked.authorization_model_id else ""
        version_of(graph, id)
        for _ in range(ATTEMPTS):
            updates = [Update(Operation.DELETE, one) for one in gone]
            require = [] if asked.deletes.on_missing == "ignore" else _present(gone)
            fresh = _fresh(graph, added) if asked.writes.on_duplicate == "ignore" else added
            updates += [Update(Operation.CREATE, one) for one in fresh]
            if not updates:
                return graph.token(LATEST)
            try:
                return graph.write(*updates, require=require, schema_id=id)
            except AlreadyExists as error:
                if asked.writes.on_duplicate != "ignore":
                    raise _failed("write a tuple which already exists", error) from None
            except PreconditionFailed as error:
                raise _failed("delete a tuple which does not exist", error) from None
        raise Conflict("other writes of the same tuples came between", remedy="Try again.")

    token = await call.ask(run, store)
    changes = [f"write {one}" for one in added] + [f"delete {one}" for one in gone]
    call.wrote("write", store, updates=len(changes), changes=changes, revision=token)
    return json_response({})


def _check_count(tuples: Sequence[Relationship]) -> None:
    if not tuples:
        raise Refused(
            Code.invalid_write_input,
            "Invalid input. Make sure you provide at least one write, or at least one delete",
        )
    if len(tuples) > MOST_TUPLES:
        problem = f"The number of write operations exceeds the allowed limit of {MOST_TUPLES}"
        raise Refused(Code.exceeded_entity_limit, problem, remedy="Send less at a time.")
    seen = set()
    for one in tuples:
        if one.key in seen:
            raise Refused(Code.cannot_allow_duplicate_tuples_in_one_request, f"duplicate tuple in write: {_named(one)}")
        seen.add(one.key)


def _present(tuples: Sequence[Relationship]) -> list[Precondition]:
    return [Precondition(Must.MATCH, exactly(one)) for one in tuples]


def _fresh(graph: Graph, tuples: Sequence[Relationship]) -> list[Relationship]:
    """Those that are not there yet.

    Raises:
        Conflict: one is there with another condition.
    """
    kept = []
    for one in tuples:
        there = graph.read(exactly(one), consistency=LATEST, limit=1)[1]
        if there and there[0].caveat != one.caveat:
            raise Conflict(f"the tuple is there with another condition: {_named(one)}", where="writes")
        if not there:
            kept.append(one)
    return kept


def _failed(what: str, error: AccessError) -> Refused:
    return Refused(Code.write_failed_due_to_invalid_input, f"cannot {what}: {error.where or error.problem}")


def _named(one: Relationship) -> str:
    return f"user: '{one.subject}', relation: '{one.relation}', object: '{one.object}'"


async def read(call: Call) -> Response:
    """Returns a page of the tuples as they were written."""
    store, asked = await store_of(call), call.parse(Read)
    filter, size = _filter(asked.tuple_key), page_size(asked.page_size)
    token, *last = place(asked.continuation_token, ["read", store, *filter], 7)
    wanted = LATEST if asked.consistency == "HIGHER_CONSISTENCY" else FAST
    after = Relationship(Object(*last[:2]), last[2], Subject(*last[3:6])) if token else None
    if token:
        wanted = at_exactly(str(token))

    def run(graph: Graph) -> tuple[str, Sequence[Relationship], str]:
        token, found = graph.read(filter, consistency=wanted, after=after, limit=size + 1)
        return token, found, _time_of(graph, token)

    token, found, written = await call.ask(run, store)
    page, more = found[:size], ""
    if len(found) > size:
        object, relation, subject = page[-1].key
        more = cursor_of(["read", store, *filter], token, *object, relation, *subject)
    tuples = [{"key": shown(one), "timestamp": written} for one in page]
    return json_response({"tuples": tuples, "continuation_token": more})


def _filter(key: Key | None) -> Filter:
    """The filter of a partial tuple: nothing, an object, or a type with a user.

    Raises:
        Refused: it is partial in another way.
    """
    if key is None or not (key.user or key.relation or key.object):
        return Filter()
    type, _, id = key.object.partition(":")
    if not type or (not id and not key.user):
        raise Refused(
            Code.validation_error,
            "the 'tuple_key' field was provided but the object type field is required and both the object id and "
            "user cannot be empty",
        )
    if id:
        object_of(key.object)
    filter = Filter(type=type, id=id, relation=key.relation)
    if not key.user:
        return filter
    subject = user_of(key.user)
    return filter._replace(subject_type=subject.type, subject_id=subject.id, subject_relation=subject.relation)


def _time_of(graph: Graph, token: str) -> str:
    """When the revision of a token was made; no tuple that it shows is younger. Older facts keep no time."""
    revision = revision_of(token, graph.store.id)
    try:
        made = graph.store.changes(max(revision - 1, 0), limit=1)
    except RevisionGone:
        made = ()
    return format_time(made[0].time_seconds if made else 0.0)


async def changes(call: Call) -> Response:
    """Returns the writes after a token, oldest first; at the end, the same token again."""
    store = await store_of(call)
    query = call.query("type", "page_size", "continuation_token", "start_time")
    type, size = query.get("type", ""), page_size(query.get("page_size"))
    since = parse_time(query["start_time"]) if query.get("start_time") else 0.0
    sent = query.get("continuation_token", "")
    after, skip = _from(sent, store, type)

    def run(graph: Graph) -> tuple[list[dict[str, Any]], str, int]:
        start = revision_of(after, graph.store.id) if after else _oldest(graph)
        return _changes(graph, start, skip, size, type, since)

    found, token, skip = await call.ask(run, store)
    more = cursor_of(["changes", store], type, token, skip) if found or sent else ""
    return json_response({"changes": found, "continuation_token": more})


def _from(sent: str, store: str, type: str) -> tuple[str, int]:
    if not sent:
        return "", 0
    asked, token, skip = place(sent, ["changes", store], 3)
    if asked != type:
        raise Refused(
            Code.query_string_type_continuation_token_mismatch,
            "The type in the querystring and the continuation token don't match",
        )
    if not isinstance(skip, int):
        raise InvalidArgument("this is no continuation token", where="continuation_token")
    return str(token), skip


def _oldest(graph: Graph) -> int:
    """The revision from which on all changes are still kept."""
    try:
        graph.store.changes(0, limit=1)
    except RevisionGone:
        return graph.store.oldest()
    return 0


def _changes(
    graph: Graph, revision: int, skip: int, size: int, type: str, since: float
) -> tuple[list[dict[str, Any]], str, int]:
    """Returns up to `size` changes, and how far that is: a revision's token and how many updates after it."""
    found: list[dict[str, Any]] = []
    while page := graph.store.changes(revision, limit=size):
        for change in page:
            for index, told in enumerate(_told(change, type, since)):
                if index < skip:
                    continue
                if len(found) == size:
                    return found, token_of(graph.store.id, revision), index
                found.append(told)
            revision, skip = change.revision, 0
    return found, token_of(graph.store.id, revision), 0


def _told(change: Change, type: str, since: float) -> list[dict[str, Any]]:
    if change.time_seconds < since:
        return []
    return [
        {
            "tuple_key": shown(update.relationship),
            "operation": "TUPLE_OPERATION_DELETE" if update.operation is Operation.DELETE else "TUPLE_OPERATION_WRITE",
            "timestamp": format_time(change.time_seconds),
        }
        for update in change.updates
        if type in ("", update.relationship.object.type)
    ]


ROUTES = [
    Endpoint("POST", "/stores/{store_id}/read", Role.READER, read, refuse),
    Endpoint("POST", "/stores/{store_id}/write", Role.WRITER, write, refuse),
    Endpoint("GET", "/stores/{store_id}/changes", Role.READER, changes, refuse),
]
