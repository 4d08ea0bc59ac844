"""Whether what files claim holds.

Not here: reading them (`read.py`), the printing.
Invariant: each claim is answered at the stage that makes it, and comes out in the report once; what keeps a file from
being run at all is a `FileError`.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from cupola.access.consistency import LATEST
from cupola.access.decision import Verdict
from cupola.access.errors import AccessError, InvalidArgument
from cupola.access.graph import Graph
from cupola.access.limits import Limits
from cupola.access.relation import WILDCARD, Object, Relationship, Subject, touch
from cupola.access.schema.model import Schema
from cupola.access.schema.relate import check_relationship
from cupola.access.validate.membership import Member, members
from cupola.access.validate.place import FileError, Place
from cupola.access.validate.read import read_suites
from cupola.access.validate.report import Count, Failure, Report
from cupola.access.validate.schemas import placed
from cupola.access.validate.suite import Check, Claim, Expected, Holders, ListObjects, ListUsers, Stage, Suite
from cupola.access.validate.tuples import relationship_of

GIVES_UP = 2002
"""OpenFGA's code of a question that is too deep for it; here cycles and depth have answers."""
INVALID, NO_TYPE, NO_RELATION, BAD_TUPLE = 2000, 2021, 2022, 2027

_LONGEST_WHY = 40
"""Lines of an explanation that are kept."""

Opens = Callable[[Limits], Graph]


class Coded(InvalidArgument):
    """A refusal with OpenFGA's code of it."""

    def __init__(self, code: int, problem: str):
        super().__init__(problem)
        self.code = code


def in_memory(limits: Limits) -> Graph:
    """Returns an empty graph in memory."""
    return Graph.open(limits=limits)


def validate(path: str | Path, *, open_graph: Opens = in_memory) -> Report:
    """Reads a file, runs it, and returns what came of it.

    Args:
        path: of a validation file of SpiceDB's, a store file of OpenFGA's, or one of its staged tests.
        open_graph: opens an empty graph with these limits; closed when it is done with.

    Raises:
        FileError: the file cannot be read, its schema does not hold together, or does not allow its relationships.
    """
    return run(read_suites(Path(path)), str(path), open_graph=open_graph)


def run(suites: Iterable[Suite], source: str, *, open_graph: Opens = in_memory) -> Report:
    """Returns what came of the suites of a file; arguments as above."""
    report = Report(source)
    for suite in suites:
        with open_graph(_limits(suite)) as graph:
            for stage in suite.stages:
                schema = _begin(graph, stage, source)
                for claim in stage.claims:
                    _settle(graph, schema, claim, report)
    return report


def _limits(suite: Suite) -> Limits:
    """As much as the file has: it is the user's own."""
    updates = max((len(stage.facts) for stage in suite.stages), default=0)
    extra = max((len(claim.extra) for stage in suite.stages for claim in stage.claims), default=0)
    least = Limits()
    return dataclasses.replace(least, updates=max(updates, least.updates), extra=max(extra, least.extra))


def _begin(graph: Graph, stage: Stage, source: str) -> Schema:
    if stage.schema is None:
        raise FileError("there is no schema", Place(source), remedy="Write one, or name its file.")
    with placed(stage.schema):
        graph.write_schema(stage.schema.text, language=stage.schema.language)
    schema = graph.schema().schema
    for relationship, place in stage.facts:
        try:
            check_relationship(schema, relationship)
        except AccessError as error:
            raise FileError.of(error, place) from None
    if stage.facts:
        graph.write(*(touch(fact.relationship) for fact in stage.facts))
    return schema


def _settle(graph: Graph, schema: Schema, claim: Claim, report: Report) -> None:
    """Notes whether a claim holds."""
    try:
        found = list(_failures(graph, schema, claim))
        if claim.code is not None:
            if claim.code == GIVES_UP:
                report.counts.setdefault(claim.kind, Count()).undecided += 1
                return
            found = [_failed(claim, f"error {claim.code}", "an answer")]
    except AccessError as error:
        code = error.code if isinstance(error, Coded) else INVALID
        expected = _expectation(claim)
        found = [] if code == claim.code else [_failed(claim, expected, f"error {code}: {error.problem}")]
    if isinstance(claim, Holders):
        missing = len({failure.place for failure in found if failure.place != claim.place})
        for _ in range(max(len(claim.expected) - missing, 0 if found else 1)):
            report.note(claim.kind, None)
        for failure in found:
            report.note(claim.kind, failure)
    else:
        report.note(claim.kind, found[0] if found else None)


def _expectation(claim: Claim) -> str:
    if claim.code is not None:
        return f"error {claim.code}"
    match claim:
        case Check():
            return claim.verdict.value
        case ListObjects() | ListUsers():
            return _listed(claim.expected)
    return "an answer"


def _failures(graph: Graph, schema: Schema, claim: Claim) -> Iterator[Failure]:
    extra = list(_extra(schema, claim))
    match claim:
        case Check():
            yield from _check(graph, claim, extra)
        case ListObjects():
            _require(schema, claim.type, claim.relation)
            yield from _objects(graph, claim, extra)
        case ListUsers():
            _require(schema, Object.parse(claim.object).type, claim.relation)
            for type, relation in claim.kinds:
                _require(schema, type, relation, optional=True)
            yield from _users(graph, claim, extra)
        case Holders():
            yield from _holders(graph, claim)


def _require(schema: Schema, type: str, relation: str, *, optional: bool = False) -> None:
    """Refuses names that the schema lacks, by OpenFGA's code of that."""
    if type not in schema.types:
        raise Coded(NO_TYPE, f"there is no type {type!r}")
    if (relation or not optional) and schema.relation(type, relation) is None:
        raise Coded(NO_RELATION, f"type {type!r} has no relation {relation!r}")


def _extra(schema: Schema, claim: Claim) -> Iterator[Relationship]:
    seen = set()
    for one in claim.extra:
        try:
            found = relationship_of(one)
            check_relationship(schema, found)
        except AccessError as error:
            raise Coded(INVALID if one.condition else BAD_TUPLE, f"tuple {one}: {error.problem}") from None
        if found.key in seen:
            raise Coded(INVALID, f"tuple {one} is there twice")
        seen.add(found.key)
        yield found


def _check(graph: Graph, claim: Check, extra: Sequence[Relationship]) -> Iterator[Failure]:
    object, user = Object.parse(claim.object), Subject.parse(claim.user)
    how: dict[str, Any] = {"context": claim.context, "extra": extra, "consistency": LATEST}
    decision = graph.check((object, claim.relation), user, **how)
    two_valued = claim.kind.name == "CHECK"
    if decision.missing and two_valued:
        raise Coded(INVALID, f"the condition lacks {', '.join(decision.missing)}")
    if claim.code is None and decision.verdict is not claim.verdict:
        lacks = f", lacks {', '.join(decision.missing)}" if decision.missing else ""
        why = _why(graph, claim, object, claim.relation, user, extra)
        yield _failed(claim, claim.verdict.value, f"{decision.verdict.value}{lacks}", why)


def _objects(graph: Graph, claim: ListObjects, extra: Sequence[Relationship]) -> Iterator[Failure]:
    user = Subject.parse(claim.user)
    how: dict[str, Any] = {"context": claim.context, "extra": extra, "consistency": LATEST}
    _, resources = graph.lookup_resources(claim.type, claim.relation, user, **how)
    found = {f"{claim.type}:{one.id}": one.missing for one in resources}
    _refuse_conditional(found)
    wrong = sorted(found.keys() ^ claim.expected)
    if wrong and claim.code is None:
        why = ""
        if wrong[0].startswith(f"{claim.type}:"):
            why = _why(graph, claim, Object(claim.type, wrong[0].partition(":")[2]), claim.relation, user, extra)
        yield _failed(claim, _listed(claim.expected), _listed(found), why)


def _users(graph: Graph, claim: ListUsers, extra: Sequence[Relationship]) -> Iterator[Failure]:
    object = Object.parse(claim.object)
    how: dict[str, Any] = {"context": claim.context, "extra": extra, "consistency": LATEST}
    found: dict[str, tuple[str, ...]] = {}
    for type, relation in claim.kinds:
        _, holders = graph.lookup_subjects((object, claim.relation), type, relation, **how)
        found |= {str(Subject(type, one.id, relation)): one.missing for one in holders}
    _refuse_conditional(found)
    wrong = sorted(found.keys() ^ claim.expected)
    if wrong and claim.code is None:
        why = _why(graph, claim, object, claim.relation, Subject.parse(wrong[0]), extra)
        yield _failed(claim, _listed(claim.expected), _listed(found), why)


def _refuse_conditional(found: dict[str, tuple[str, ...]]) -> None:
    for name, missing in found.items():
        if missing:
            raise Coded(INVALID, f"the condition of {name} lacks {', '.join(missing)}")


def _holders(graph: Graph, claim: Holders) -> Iterator[Failure]:
    object = Object.parse(claim.object)
    found = members(graph, object, claim.relation)
    for one in claim.expected:
        member = found.get(one.subject)
        shown = "nobody such" if member is None else _shown(one.subject, _decided(graph, object, claim, one, member))
        expected = _shown(one.subject, Member(one.conditional, one.sources, dict(one.excluded)))
        if shown != expected:
            why = _why(graph, claim, object, claim.relation, one.subject) if member is None else ""
            yield dataclasses.replace(_failed(claim, expected, shown, why), place=one.place)
    listed = {one.subject for one in claim.expected}
    for subject, member in found.items():
        if subject not in listed:
            why = _why(graph, claim, object, claim.relation, subject)
            yield _failed(claim, f"nothing of {subject}", _shown(subject, member), why)


def _decided(graph: Graph, object: Object, claim: Holders, one: Expected, member: Member) -> Member:
    """The member, conditional too where only the condition of an arrow makes it so, which expansions do not tell."""
    if member.conditional or one.subject.id == WILDCARD:
        return member
    verdict = graph.check((object, claim.relation), one.subject, consistency=LATEST).verdict
    return dataclasses.replace(member, conditional=verdict is Verdict.CONDITIONAL)


def _shown(subject: Subject, member: Member) -> str:
    """As a validation file has it."""
    name = f"{subject}[...]" if member.conditional else str(subject)
    if member.excluded:
        out = sorted(f"{one}[...]" if perhaps else str(one) for one, perhaps in member.excluded.items())
        name += f" - {{{', '.join(out)}}}"
    return f"[{name}] is {'/'.join(sorted(f'<{source}>' for source in member.sources))}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _failed(claim: Claim, expected: str, found: str, why: str = "") -> Failure:
    return Failure(claim.kind, claim.place, str(claim), expected, found, why, claim.test)


def _why(
    graph: Graph,
    claim: Claim,
    object: Object,
    relation: str,
    user: Subject,
    extra: Sequence[Relationship] = (),
) -> str:
    try:
        step = graph.explain((object, relation), user, context=claim.context, extra=extra, consistency=LATEST)
    except AccessError as error:
        return str(error)
    lines = str(step).splitlines()
    more = [f"... {len(lines) - _LONGEST_WHY} lines more"] if len(lines) > _LONGEST_WHY else []
    return "\n".join(lines[:_LONGEST_WHY] + more)
