"""Plain REST's questions: check, explain, expand, lookups, permissions.

Not here: the fields of requests and answers (`records.py`).
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from starlette.responses import Response

from cupola.access.consistency import Consistency, at_exactly
from cupola.access.decision import Decision
from cupola.access.engine.at import Holder, Resource
from cupola.access.errors import InvalidArgument
from cupola.access.graph import Graph
from cupola.access.relation import Object, Subject
from cupola.access.server.http.call import Call, Endpoint
from cupola.access.server.http.cursor import cursor_of, place_of
from cupola.access.server.http.errors import error_body, json_response
from cupola.access.server.http.records import (
    Check,
    CheckMany,
    Expand,
    LookupResources,
    LookupSubjects,
    Permissions,
    consistency,
    permission_of,
    shown_decision,
    shown_holder,
    shown_node,
    shown_resource,
)
from cupola.access.server.identity import Role
from cupola.access.server.quota import Spending

Found = TypeVar("Found", Resource, Holder)


async def check(call: Call) -> Response:
    """Answers whether a subject has a permission."""
    asked = call.parse(Check)
    return json_response(shown_decision(await _decide(call, asked, explain=asked.explain)))


async def explain(call: Call) -> Response:
    """Answers likewise, and why, as a tree and as text."""
    decision = await _decide(call, call.parse(Check), explain=True)
    return json_response({**shown_decision(decision), "text": str(decision.why)})


async def _decide(call: Call, asked: Check, *, explain: bool) -> Decision:
    permission, who = permission_of(asked.permission), Subject.parse(asked.subject)
    options = asked.options()
    decision = await call.ask(
        lambda graph: graph.check(permission, who, context=asked.context, explain=explain, **options)
    )
    call.decided(decision, f"{asked.permission}@{asked.subject}")
    return decision


async def check_many(call: Call) -> Response:
    """Answers many questions at one revision, in their order; one that cannot be asked has its error."""
    asked = call.parse(CheckMany)
    questions, options = [item.question() for item in asked.questions], asked.options()
    call.spend(Spending.QUESTIONS, max(0, len(questions) - 1))
    answers = await call.ask(lambda graph: graph.check_many(questions, **options))
    for item, answer in zip(asked.questions, answers, strict=True):
        if answer.error is None:
            call.decided(answer, f"{item.permission}@{item.subject}")
    shown = [shown_decision(one) if one.error is None else error_body(one.error) for one in answers]
    return json_response({"answers": shown})


async def expand(call: Call) -> Response:
    """Returns the tree of who has a permission."""
    asked = call.parse(Expand)
    permission, options = permission_of(asked.permission), asked.options()
    token, node = await call.ask(lambda graph: graph.expand(permission, **options))
    return json_response({"revision": token, "tree": shown_node(node)})


async def permissions(call: Call) -> Response:
    """Returns the decision on every relation and permission of an object for a subject."""
    asked = call.parse(Permissions)
    object, who, wanted = Object.parse(asked.object), Subject.parse(asked.subject), consistency(asked.consistency)

    def ask(graph: Graph) -> dict[str, Decision]:
        return graph.permissions(object, who, context=asked.context, consistency=wanted)

    found = await call.ask(ask)
    return json_response({"permissions": {name: shown_decision(one) for name, one in found.items()}})


async def lookup_resources(call: Call) -> Response:
    """Returns a page of the objects on which a subject has a permission."""
    asked = call.parse(LookupResources)
    question = [asked.type, asked.permission, asked.subject, asked.context, asked.relationships, asked.schema_id]
    who, options = Subject.parse(asked.subject), asked.options()

    def ask(graph: Graph, wanted: Consistency, after: str) -> tuple[str, Iterator[Resource]]:
        with_page = options | {"consistency": wanted, "after": after, "context": asked.context}
        return graph.lookup_resources(asked.type, asked.permission, who, **with_page)

    token, found, cursor = await _page(call, ask, question, asked.cursor, asked.limit, options["consistency"])
    return json_response({"revision": token, "resources": [shown_resource(one) for one in found], "cursor": cursor})


async def lookup_subjects(call: Call) -> Response:
    """Returns a page of the subjects of a type that have a permission."""
    asked = call.parse(LookupSubjects)
    kind = asked.subject_type, asked.subject_relation
    question = [asked.permission, *kind, asked.context, asked.relationships, asked.schema_id]
    permission, options = permission_of(asked.permission), asked.options()

    def ask(graph: Graph, wanted: Consistency, after: str) -> tuple[str, Iterator[Holder]]:
        with_page = options | {"consistency": wanted, "after": after, "context": asked.context}
        return graph.lookup_subjects(permission, *kind, **with_page)

    token, found, cursor = await _page(call, ask, question, asked.cursor, asked.limit, options["consistency"])
    return json_response({"revision": token, "subjects": [shown_holder(one) for one in found], "cursor": cursor})


async def _page(
    call: Call,
    ask: Callable[[Graph, Consistency, str], tuple[str, Iterator[Found]]],
    question: Sequence[Any],
    cursor: str,
    limit: int,
    wanted: Consistency,
) -> tuple[str, list[Found], str]:
    """Returns the token of a page, its entries and the cursor of the next one; "": it is the last."""
    check_limit(limit, call.service.bounds.page)
    after = ""
    if cursor:
        token, after = map(str, place_of(cursor, question, 2))
        wanted = at_exactly(token)

    def run(graph: Graph) -> tuple[str, list[Found]]:
        token, entries = ask(graph, wanted, after)
        return token, list(itertools.islice(entries, limit + 1))

    token, found = await call.ask(run)
    more = len(found) > limit
    return token, found[:limit], cursor_of(question, token, found[limit - 1].id) if more else ""


def check_limit(limit: int, most: int) -> None:
    """Refuses a page that cannot be.

    Raises:
        InvalidArgument: it is of no entries, or of too many.
    """
    if not 1 <= limit <= most:
        raise InvalidArgument(f"{limit} is no size of a page", where="limit", remedy=f"Send 1 to {most}.")


ROUTES = [
    Endpoint("POST", "/v1/check", Role.READER, check),
    Endpoint("POST", "/v1/check-many", Role.READER, check_many),
    Endpoint("POST", "/v1/explain", Role.READER, explain),
    Endpoint("POST", "/v1/expand", Role.READER, expand),
    Endpoint("POST", "/v1/permissions", Role.READER, permissions),
    Endpoint("POST", "/v1/lookup/resources", Role.READER, lookup_resources),
    Endpoint("POST", "/v1/lookup/subjects", Role.READER, lookup_subjects),
]
