"""OpenFGA's check, batch-check, expand, list-objects and list-users.

Not here: how the answers are found (`engine/`), the tree of an expansion (`tree.py`).
Invariant: a condition that lacks parameters is an error where a plain yes or no is asked for, as OpenFGA has it; a
list is whole, never cut where it gets long.
"""

import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
from starlette.responses import Response, StreamingResponse

from cupola.access.consistency import FAST, LATEST, Consistency, at_exactly
from cupola.access.decision import Decision, Question
from cupola.access.errors import AccessError, InvalidArgument
from cupola.access.graph import Graph
from cupola.access.relation import WILDCARD, Relationship
from cupola.access.schema.model import Schema
from cupola.access.server.http.body import Lenient
from cupola.access.server.http.call import Call, Endpoint
from cupola.access.server.http.errors import as_access_error, json_response
from cupola.access.server.http.openfga.errors import Code, Refused, code_of, message_of, refuse
from cupola.access.server.http.openfga.facts import Preference
from cupola.access.server.http.openfga.stores import store_of, version_of
from cupola.access.server.http.openfga.tree import tree_of
from cupola.access.server.http.openfga.tuples import Key, Keys, contextual, object_of, relation_of, user_of
from cupola.access.server.identity import Role
from cupola.access.server.quota import Spending, Work

MOST_CHECKS = 50
"""Checks of one batch."""

_CORRELATION = re.compile(r"[\w-]{1,36}")


class Asked(Lenient, kw_only=True):
    """What every question may say of the facts that it is answered from."""

    authorization_model_id: str = ""
    consistency: Preference = "UNSPECIFIED"

    @property
    def freshness(self) -> Consistency:
        """As the graph takes it."""
        return LATEST if self.consistency == "HIGHER_CONSISTENCY" else FAST


class Check(Asked, kw_only=True):
    """Whether a user has a relation to an object."""

    tuple_key: Key
    contextual_tuples: Keys = Keys()
    context: dict[str, Any] | None = None


class Item(Lenient, kw_only=True):
    """One check of a batch."""

    tuple_key: Key
    correlation_id: str
    contextual_tuples: Keys = Keys()
    context: dict[str, Any] | None = None


class BatchCheck(Asked, kw_only=True):
    """Many checks."""

    checks: list[Item] = []


class Expand(Asked, kw_only=True):
    """Who has a relation to an object, one step deep."""

    tuple_key: Key
    contextual_tuples: Keys = Keys()


class ListObjects(Asked, kw_only=True):
    """Which objects of a type a user has a relation to."""

    type: str = ""
    relation: str = ""
    user: str = ""
    contextual_tuples: Keys = Keys()
    context: dict[str, Any] | None = None


class ObjectFields(Lenient, kw_only=True):
    """An object in its parts."""

    type: str = ""
    id: str = ""


class UserFilter(Lenient, kw_only=True):
    """Of what kind the users are to be."""

    type: str = ""
    relation: str = ""


class ListUsers(Asked, kw_only=True):
    """Which users of a kind have a relation to an object."""

    object: ObjectFields
    relation: str = ""
    user_filters: list[UserFilter] = []
    contextual_tuples: list[Key] = []
    context: dict[str, Any] | None = None


async def check(call: Call) -> Response:
    """Answers whether a user has a relation to an object."""
    store, asked = await store_of(call), call.parse(Check)

    def run(graph: Graph) -> tuple[str, Decision]:
        version = version_of(graph, asked.authorization_model_id)
        extra = contextual(asked.contextual_tuples.tuple_keys, version.schema)
        question = _question(asked.tuple_key, asked.context, version.schema)
        return version.id, _decide(graph, question, extra, asked.freshness, version.id)

    id, decision = await call.ask(run, store)
    call.decided(decision, str(asked.tuple_key), store)
    return json_response({"allowed": decision.allowed, "resolution": ""}, headers=_model(id))


def _question(key: Key, context: dict[str, Any] | None, schema: Schema) -> Question:
    object, relation, user = object_of(key.object), relation_of(key.relation), user_of(key.user)
    _known(schema, object.type, relation, Code.validation_error, Code.validation_error)
    if user.type not in schema.types:
        raise Refused(Code.validation_error, f"type '{user.type}' not found")
    if user.relation:
        _known(schema, user.type, user.relation, Code.validation_error, Code.validation_error)
    return Question(object, relation, user, context or {})


def _decide(
    graph: Graph, question: Question, extra: list[Relationship], wanted: Consistency, schema_id: str
) -> Decision:
    decision = graph.check(
        (question.object, question.permission),
        question.subject,
        context=question.context,
        consistency=wanted,
        extra=extra,
        schema_id=schema_id,
    )
    return _certain(decision)


def _certain(decision: Decision) -> Decision:
    if decision.missing:
        raise _lacking(decision.missing)
    return decision


def _lacking(missing: tuple[str, ...]) -> Refused:
    return Refused(
        Code.validation_error,
        f"failed to evaluate relationship condition: context is missing parameters {list(missing)}",
        remedy="Send them in `context`.",
    )


async def batch_check(call: Call) -> Response:
    """Answers many checks at one revision, by their correlation ids."""
    store, asked = await store_of(call), call.parse(BatchCheck)
    _check_batch(asked.checks)
    call.spend(Spending.QUESTIONS, len(asked.checks) - 1)

    def run(graph: Graph) -> dict[str, Decision | AccessError]:
        version = version_of(graph, asked.authorization_model_id)
        wanted = at_exactly(graph.token(asked.freshness))
        found: dict[str, Decision | AccessError] = {}
        for item in asked.checks:
            try:
                extra = contextual(item.contextual_tuples.tuple_keys, version.schema)
                question = _question(item.tuple_key, item.context, version.schema)
                found[item.correlation_id] = _decide(graph, question, extra, wanted, version.id)
            except AccessError as error:
                found[item.correlation_id] = error
        return found

    found = await call.ask(run, store)
    for item in asked.checks:
        answer = found[item.correlation_id]
        if isinstance(answer, Decision):
            call.decided(answer, str(item.tuple_key), store)
    return json_response({"result": {id: _shown(answer) for id, answer in found.items()}})


def _check_batch(checks: list[Item]) -> None:
    if not checks:
        raise Refused(Code.validation_error, "batch check requires at least one check to evaluate, received none")
    if len(checks) > MOST_CHECKS:
        problem = f"batchCheck received {len(checks)} checks, the maximum allowed is {MOST_CHECKS}"
        raise Refused(Code.validation_error, problem, remedy="Send less at a time.")
    seen = set()
    for item in checks:
        id = item.correlation_id
        if not _CORRELATION.fullmatch(id) or id in seen:
            problem = f"received {'duplicate' if id in seen else 'malformed'} correlation id: {id[:64]}"
            raise Refused(Code.validation_error, problem, remedy="Use letters, digits and -, each id once.")
        seen.add(id)


def _shown(answer: Decision | AccessError) -> dict[str, Any]:
    if isinstance(answer, Decision):
        return {"allowed": answer.allowed}
    code = code_of(answer)
    kind = "internal_error" if code.value >= 4000 else "input_error"
    return {"error": {kind: code.name, "message": message_of(answer)}}


async def expand(call: Call) -> Response:
    """Returns the tree of who has a relation to an object, one step deep."""
    store, asked = await store_of(call), call.parse(Expand)
    if not asked.tuple_key.object or not asked.tuple_key.relation:
        raise Refused(Code.invalid_expand_input, "Invalid input. Make sure you provide an object and a relation")
    object, relation = object_of(asked.tuple_key.object), relation_of(asked.tuple_key.relation)

    def run(graph: Graph) -> dict[str, Any]:
        schema = version_of(graph, asked.authorization_model_id).schema
        _known(schema, object.type, relation, Code.validation_error, Code.validation_error)
        extra = contextual(asked.contextual_tuples.tuple_keys, schema)
        return tree_of(graph, schema, object, relation, extra, at_exactly(graph.token(asked.freshness)))

    return json_response({"tree": {"root": await call.ask(run, store)}})


async def list_objects(call: Call) -> Response:
    """Returns the objects of a type to which a user has a relation, all of them."""
    store, asked = await store_of(call), call.parse(ListObjects)
    return json_response({"objects": await call.ask(lambda graph: list(_objects(graph, asked)), store)})


async def streamed_list_objects(call: Call) -> Response:
    """Streams them, one line each, as they are found."""
    store, asked = await store_of(call), call.parse(ListObjects)
    batches = call.stream(lambda graph: _objects(graph, asked), store)
    # The first batch is before the answer begins, so that a bad question is an error and no stream.
    first: list[str] = await anext(batches, [])
    return StreamingResponse(_lines(first, batches), media_type="application/json")


async def _lines(first: list[str], batches: AsyncIterator[list[str]]) -> AsyncIterator[bytes]:
    def line(value: Any) -> bytes:
        return msgspec.json.encode(value) + b"\n"

    yield b"".join(line({"result": {"object": one}}) for one in first)
    try:
        async for batch in batches:
            yield b"".join(line({"result": {"object": one}}) for one in batch)
    except Exception as error:
        told = as_access_error(error)
        yield line({"error": {"code": code_of(told).value, "message": message_of(told)}})
        if told is not error:
            raise


def _objects(graph: Graph, asked: ListObjects) -> Iterator[str]:
    version = version_of(graph, asked.authorization_model_id)
    _known(version.schema, asked.type, asked.relation, Code.type_not_found, Code.relation_not_found)
    user = user_of(asked.user)
    if user.type not in version.schema.types:
        raise Refused(Code.validation_error, f"type '{user.type}' not found")
    if user.relation:
        _known(version.schema, user.type, user.relation, Code.validation_error, Code.validation_error)
    extra = contextual(asked.contextual_tuples.tuple_keys, version.schema)
    _, found = graph.lookup_resources(
        asked.type,
        asked.relation,
        user,
        context=asked.context or {},
        consistency=asked.freshness,
        extra=extra,
        schema_id=version.id,
    )
    for one in found:
        if one.missing:
            raise _lacking(one.missing)
        yield f"{asked.type}:{one.id}"


async def list_users(call: Call) -> Response:
    """Returns the users of a kind that have a relation to an object, all of them."""
    store, asked = await store_of(call), call.parse(ListUsers)
    if len(asked.user_filters) != 1:
        raise Refused(Code.validation_error, "user_filters must contain exactly 1 item")
    wanted = asked.user_filters[0]
    object = object_of(f"{asked.object.type}:{asked.object.id}")

    def run(graph: Graph) -> list[dict[str, Any]]:
        version = version_of(graph, asked.authorization_model_id)
        _known(version.schema, object.type, asked.relation, Code.type_not_found, Code.relation_not_found)
        _known(version.schema, wanted.type, wanted.relation, Code.type_not_found, Code.relation_not_found)
        _, found = graph.lookup_subjects(
            (object, asked.relation),
            wanted.type,
            wanted.relation,
            context=asked.context or {},
            consistency=asked.freshness,
            extra=contextual(asked.contextual_tuples, version.schema),
            schema_id=version.id,
        )
        return [_user(wanted, one.id, one.missing) for one in found]

    return json_response({"users": await call.ask(run, store)})


def _user(kind: UserFilter, id: str, missing: tuple[str, ...]) -> dict[str, Any]:
    if missing:
        raise _lacking(missing)
    if id == WILDCARD:
        return {"wildcard": {"type": kind.type}}
    if kind.relation:
        return {"userset": {"type": kind.type, "id": id, "relation": kind.relation}}
    return {"object": {"type": kind.type, "id": id}}


def _known(schema: Schema, type: str, relation: str, no_type: Code, no_relation: Code) -> None:
    """Refuses a type or a relation that a model lacks, with a code for each; "" is no relation to be looked for."""
    if type not in schema.types:
        raise Refused(no_type, f"type '{type[:300]}' not found")
    if relation and schema.relation(type, relation) is None:
        raise Refused(no_relation, f"relation '{type}#{relation[:100]}' not found")
    if not relation and no_relation is Code.validation_error:
        raise InvalidArgument("the relation is missing", where="relation")


def _model(id: str) -> dict[str, str]:
    return {"openfga-authorization-model-id": id}


ROUTES = [
    Endpoint("POST", "/stores/{store_id}/check", Role.READER, check, refuse),
    Endpoint("POST", "/stores/{store_id}/batch-check", Role.READER, batch_check, refuse),
    Endpoint("POST", "/stores/{store_id}/expand", Role.READER, expand, refuse),
    Endpoint("POST", "/stores/{store_id}/list-objects", Role.READER, list_objects, refuse),
    Endpoint(
        "POST", "/stores/{store_id}/streamed-list-objects", Role.READER, streamed_list_objects, refuse, Work.STREAMS
    ),
    Endpoint("POST", "/stores/{store_id}/list-users", Role.READER, list_users, refuse),
]
