"""AuthZEN's API: evaluation, evaluations, the three searches, and the document that tells of them.

Not here: the properties of subjects, resources and actions, which are context to us: they reach conditions as
parameters, and what `context` says beats them.
Invariant: a question about names that the schema lacks is answered with no and the reason, as the standard asks of
a decision point; only a malformed question is an error.
Source: OpenID Foundation, "Authorization API 1.0".
"""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any, Literal, TypeVar

from starlette.responses import Response

from cupola.access.consistency import FAST, Consistency, at_exactly
from cupola.access.decision import Decision, Verdict
from cupola.access.engine.at import NOTHING, Holder
from cupola.access.errors import AccessError, InvalidArgument, NotFound, UnknownName
from cupola.access.graph import Graph
from cupola.access.relation import WILDCARD, Object, Subject
from cupola.access.server.http.body import Lenient
from cupola.access.server.http.call import Call, Endpoint
from cupola.access.server.http.cursor import cursor_of, place_of
from cupola.access.server.http.errors import error_headers, http_code, json_response
from cupola.access.server.identity import Role
from cupola.access.server.quota import Spending

PAGE = 100
"""Results of a page, where the client names no limit."""
MOST = 100
"""Evaluations of one call."""

Found = TypeVar("Found")


class Entity(Lenient, kw_only=True):
    """A subject or a resource; its id is left out where it is searched for."""

    type: str
    id: str = ""
    properties: dict[str, Any] = {}


class Action(Lenient, kw_only=True):
    """What is to be done: the name of a permission or relation."""

    name: str
    properties: dict[str, Any] = {}


class Evaluation(Lenient, kw_only=True):
    """One question; what is left out stands beside the list of questions."""

    subject: Entity | None = None
    action: Action | None = None
    resource: Entity | None = None
    context: dict[str, Any] | None = None


class Options(Lenient, kw_only=True):
    """How a list of questions is gone through."""

    evaluations_semantic: Literal["execute_all", "deny_on_first_deny", "permit_on_first_permit"] = "execute_all"


class Evaluations(Evaluation, kw_only=True):
    """Many questions."""

    evaluations: list[Evaluation] = []
    options: Options = Options()


class Page(Lenient, kw_only=True):
    """Which part of a search's results; a page after the first has the limit of the first."""

    token: str = ""
    limit: int | None = None


class Search(Evaluation, kw_only=True):
    """A question of which one part is searched for."""

    page: Page = Page()


def refuse(error: AccessError) -> Response:
    """Returns the answer for an error: its text, as the standard has it."""
    return json_response(" ".join(str(error).split()), http_code(error), error_headers(error))


async def evaluate(call: Call) -> Response:
    """Answers one question."""
    asked = call.parse(Evaluation)
    token = FAST
    answer = await call.ask(lambda graph: _evaluate(graph, asked, token))
    return json_response(_told(call, asked, answer))


async def evaluate_many(call: Call) -> Response:
    """Answers many questions, in their order; without a list of them, the one that stands in its place."""
    asked = call.parse(Evaluations)
    if not asked.evaluations:
        answer = await call.ask(lambda graph: _evaluate(graph, asked, FAST))
        return json_response(_told(call, asked, answer))
    if len(asked.evaluations) > MOST:
        raise InvalidArgument(f"{len(asked.evaluations)} evaluations, at most {MOST}", where="evaluations")
    questions = [_with_defaults(one, asked) for one in asked.evaluations]
    call.spend(Spending.QUESTIONS, len(questions) - 1)
    last = {"deny_on_first_deny": False, "permit_on_first_permit": True}.get(asked.options.evaluations_semantic)

    def run(graph: Graph) -> list[Decision | AccessError]:
        wanted, found = at_exactly(graph.token(FAST)), []
        for one in questions:
            try:
                answer: Decision | AccessError = _evaluate(graph, one, wanted)
            except AccessError as error:
                answer = error
            found.append(answer)
            if last is (isinstance(answer, Decision) and answer.allowed):
                break
        return found

    answers = await call.ask(run)
    told = [_told(call, one, answer) for one, answer in zip(questions, answers, strict=False)]
    return json_response({"evaluations": told})


def _with_defaults(one: Evaluation, defaults: Evaluation) -> Evaluation:
    return Evaluation(
        subject=one.subject or defaults.subject,
        action=one.action or defaults.action,
        resource=one.resource or defaults.resource,
        context=defaults.context if one.context is None else one.context,
    )


def _evaluate(graph: Graph, asked: Evaluation, wanted: Consistency) -> Decision | AccessError:
    resource, subject, action = _entity(asked.resource, "resource"), _entity(asked.subject, "subject"), _action(asked)
    who = Subject(subject.type, subject.id)
    try:
        return graph.check(
            (Object(resource.type, resource.id), action.name), who, context=_context(asked), consistency=wanted
        )
    except (UnknownName, NotFound) as error:
        return error


def _told(call: Call, asked: Evaluation, answer: Decision | AccessError) -> dict[str, Any]:
    if isinstance(answer, AccessError):
        return {"decision": False, "context": {"error": {"status": http_code(answer), "message": answer.problem}}}
    resource, subject, action = asked.resource, asked.subject, asked.action
    if resource and subject and action:
        call.decided(answer, f"{resource.type}:{resource.id}#{action.name}@{subject.type}:{subject.id}")
    if answer.verdict is Verdict.CONDITIONAL:
        return {"decision": False, "context": {"reason": "context is missing", "missing": answer.missing}}
    return {"decision": answer.allowed}


async def search_resource(call: Call) -> Response:
    """Returns the resources of a type on which a subject may do something."""
    asked = call.parse(Search)
    subject, action = _entity(asked.subject, "subject"), _action(asked)
    type = _entity(asked.resource, "resource", has_id=False).type

    def found(graph: Graph, wanted: Consistency, after: str) -> tuple[str, Iterator[str]]:
        who = Subject(subject.type, subject.id)
        token, entries = graph.lookup_resources(
            type, action.name, who, context=_context(asked), consistency=wanted, after=after
        )
        return token, (one.id for one in entries if not one.missing)

    return await _search(call, asked, found, lambda id: {"type": type, "id": id})


async def search_subject(call: Call) -> Response:
    """Returns the subjects of a type that may do something to a resource; of `*` the context tells."""
    asked = call.parse(Search)
    resource, action = _entity(asked.resource, "resource"), _action(asked)
    type = _entity(asked.subject, "subject", has_id=False).type
    context: dict[str, Any] = {}

    def found(graph: Graph, wanted: Consistency, after: str) -> tuple[str, Iterator[str]]:
        object = Object(resource.type, resource.id)
        token, entries = graph.lookup_subjects(
            (object, action.name), type, context=_context(asked), consistency=wanted, after=after
        )
        return token, named(entries)

    def named(holders: Iterator[Holder]) -> Iterator[str]:
        for holder in holders:
            if holder.id == WILDCARD and not holder.missing:
                context["everyone_except"] = [one.id for one in holder.excluded]
            elif not holder.missing:
                yield holder.id

    return await _search(call, asked, found, lambda id: {"type": type, "id": id}, context)


async def search_action(call: Call) -> Response:
    """Returns what a subject may do to a resource."""
    asked = call.parse(Search)
    resource, subject = _entity(asked.resource, "resource"), _entity(asked.subject, "subject")

    def found(graph: Graph, wanted: Consistency, after: str) -> tuple[str, Iterator[str]]:
        token = graph.token(wanted)
        answers = graph.permissions(
            Object(resource.type, resource.id),
            Subject(subject.type, subject.id),
            context=_context(asked),
            consistency=at_exactly(token),
        )
        names = sorted(name for name, one in answers.items() if one.allowed)
        return token, (name for name in names if name > after)

    return await _search(call, asked, found, lambda name: {"name": name})


async def _search(call: Call, asked: Search, found: Any, shown: Any, context: Mapping[str, Any] = NOTHING) -> Response:
    """Answers with a page of what is found; `context` is looked at afterwards."""
    parts = [asked.subject, asked.action, asked.resource]
    question = [call.http.url.path, *(repr(part) for part in parts), asked.context]
    wanted, after, limit = FAST, "", PAGE if asked.page.limit is None else asked.page.limit
    if asked.page.token:
        token, after, of_first = place_of(asked.page.token, question, 3)
        wanted, after, limit = at_exactly(str(token)), str(after), int(of_first)
        if asked.page.limit not in (None, limit):
            raise InvalidArgument(
                f"{asked.page.limit} is not the limit of the first page",
                where="page.limit",
                remedy=f"Send {limit} or nothing.",
            )
    if limit < 0:
        raise InvalidArgument(f"{limit} is no size of a page", where="page.limit", remedy="Send 0 or more.")
    # Of more than a page may have, the rest comes with the next.
    size = min(limit, call.service.bounds.page)

    def run(graph: Graph) -> tuple[str, list[str]]:
        token, entries = found(graph, wanted, after)
        return token, list(itertools.islice(entries, size + 1))

    token, entries = await call.ask(run)
    page = entries[:size]
    more = cursor_of(question, token, page[-1] if page else after, limit) if len(entries) > size else ""
    told: dict[str, Any] = {"page": {"next_token": more, "count": len(page)}}
    if context:
        told["context"] = context
    return json_response(told | {"results": [shown(one) for one in page]})


def configuration(base: str) -> Response:
    """Tells where the endpoints are, under the URL by which the server is known."""
    return json_response(
        {
            "policy_decision_point": base,
            "access_evaluation_endpoint": f"{base}/access/v1/evaluation",
            "access_evaluations_endpoint": f"{base}/access/v1/evaluations",
            "search_subject_endpoint": f"{base}/access/v1/search/subject",
            "search_resource_endpoint": f"{base}/access/v1/search/resource",
            "search_action_endpoint": f"{base}/access/v1/search/action",
        }
    )


def _entity(entity: Entity | None, name: str, *, has_id: bool = True) -> Entity:
    if entity is None or not entity.type or (has_id and not entity.id):
        raise InvalidArgument(f"{name} is incomplete", where=name, remedy="Send its type and id.")
    return entity


def _action(asked: Evaluation) -> Action:
    if asked.action is None or not asked.action.name:
        raise InvalidArgument("action is incomplete", where="action", remedy="Send its name.")
    return asked.action


def _context(asked: Evaluation) -> Mapping[str, Any]:
    parts = (asked.subject, asked.resource, asked.action)
    return {name: value for part in parts if part for name, value in part.properties.items()} | (asked.context or {})


CONFIGURATION = "/.well-known/authzen-configuration"
ROUTES = [
    Endpoint("POST", "/access/v1/evaluation", Role.READER, evaluate, refuse),
    Endpoint("POST", "/access/v1/evaluations", Role.READER, evaluate_many, refuse),
    Endpoint("POST", "/access/v1/search/subject", Role.READER, search_subject, refuse),
    Endpoint("POST", "/access/v1/search/resource", Role.READER, search_resource, refuse),
    Endpoint("POST", "/access/v1/search/action", Role.READER, search_action, refuse),
]
