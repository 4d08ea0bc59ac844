"""What the playground runs: a schema, relationships, checks and assertions as texts; answers with line and column.

Not here: the page (`playground.py`).
Invariant: a mistake in one text is told with its place, and keeps from running only what depends on it. All is
bounded: lines, answers, the nodes of an explanation, and time.
"""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from cupola.access.decision import Decision, Step, Verdict
from cupola.access.errors import AccessError, InvalidArgument, SchemaError
from cupola.access.graph import Graph
from cupola.access.limits import Limits
from cupola.access.relation import Relationship, touch
from cupola.access.schema.relate import check_relationship

LIMITS = Limits(updates=5000, context_bytes=4096, caveat_cost=2000, seconds=5.0)
MOST_LINES = 200
"""Checks and assertions, of each."""
MOST_NODES = 1000
"""Of one explanation; what goes beyond is told as a number."""

_EXPECTED = {"assertTrue": Verdict.YES, "assertCaveated": Verdict.CONDITIONAL, "assertFalse": Verdict.NO}
_HEADING = re.compile(r"(assertTrue|assertFalse|assertCaveated)\s*:\s*(?:\[\s*\])?")
_WITH = re.compile(r"\s+with\s+(?=\{)")


class Texts(NamedTuple):
    """What stands in the page."""

    schema: str
    relationships: str = ""
    checks: str = ""
    assertions: str = ""


class Line(NamedTuple):
    """A line that asks something.

    Args:
        number: from 1.
        expected: by an assertion; None: by a check, which expects nothing.
    """

    number: int
    text: str
    expected: Verdict | None = None


class Mistake(NamedTuple):
    """Where a text is at fault."""

    part: str
    line: int
    column: int
    message: str
    remedy: str = ""


def run_texts(texts: Texts) -> dict[str, Any]:
    """Returns {mistakes, checks, assertions}: all that the texts' answers are."""
    mistakes: list[Mistake] = []
    with Graph.open(limits=LIMITS) as graph:
        if _prepare(graph, texts, mistakes):
            checks = [_answer(graph, line, "checks", mistakes) for line in _lines(texts.checks)]
            asserted = list(_assertions(texts.assertions, mistakes))
            assertions = [_answer(graph, line, "assertions", mistakes) for line in asserted]
        else:
            checks, assertions = [], []
    return {
        "mistakes": [mistake._asdict() for mistake in mistakes],
        "checks": [one for one in checks if one is not None],
        "assertions": [one for one in assertions if one is not None],
    }


def _prepare(graph: Graph, texts: Texts, mistakes: list[Mistake]) -> bool:
    """Writes schema and relationships; returns whether there is something to ask."""
    try:
        graph.write_schema(texts.schema)
    except SchemaError as error:
        mistakes.append(Mistake("schema", error.line, error.column, error.problem, error.remedy))
        return False
    except AccessError as error:
        mistakes.append(Mistake("schema", 0, 0, error.problem, error.remedy))
        return False
    schema, good = graph.schema().schema, dict[Any, Relationship]()
    for line in _lines(texts.relationships, LIMITS.updates):
        try:
            relationship = Relationship.parse(line.text)
            check_relationship(schema, relationship)
            if relationship.key in good:
                raise InvalidArgument("the relationship stands twice", remedy="Take one of them out.")
            good[relationship.key] = relationship
        except AccessError as error:
            mistakes.append(Mistake("relationships", line.number, 1, error.problem, error.remedy))
    if good:
        graph.write(*(touch(one) for one in good.values()))
    return True


def _lines(text: str, most: int = MOST_LINES) -> list[Line]:
    """The lines that say something: not empty, no comment."""
    found = [Line(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    kept = [line for line in found if line.text and not line.text.startswith(("//", "# "))]
    if len(kept) > most:
        raise InvalidArgument(f"{len(kept)} lines, at most {most}", where="playground", remedy="Try out less.")
    return kept


def _assertions(text: str, mistakes: list[Mistake]) -> Iterator[Line]:
    """The assertions of a text in the form of validation files: a heading, then `- question` lines."""
    expected: Verdict | None = None
    for line in _lines(text):
        heading = _HEADING.fullmatch(line.text)
        if heading:
            expected = _EXPECTED[heading[1]]
        elif expected is None:
            mistakes.append(
                Mistake("assertions", line.number, 1, "no heading stands above it", "Write assertTrue: above it.")
            )
        else:
            yield Line(line.number, _unquoted(line.text.removeprefix("-").strip()), expected)


def _unquoted(text: str) -> str:
    for mark in "'\"":
        if len(text) > 1 and text[0] == text[-1] == mark:
            return text[1:-1].replace("''", "'") if mark == "'" else text[1:-1].replace('\\"', '"')
    return text


def _answer(graph: Graph, line: Line, part: str, mistakes: list[Mistake]) -> dict[str, Any] | None:
    try:
        decision = _decide(graph, line.text)
    except AccessError as error:
        mistakes.append(Mistake(part, line.number, 1, error.problem, error.remedy))
        return None
    why = None if decision.why is None else _shown(decision.why, [MOST_NODES])
    told: dict[str, Any] = {
        "line": line.number,
        "text": line.text,
        "verdict": decision.verdict.value,
        "missing": decision.missing,
        "why": why,
    }
    if line.expected is None:
        return told
    return told | {"expected": line.expected.value, "passed": line.expected is decision.verdict}


def _decide(graph: Graph, text: str) -> Decision:
    question, context = text, dict[str, Any]()
    if found := _WITH.search(text):
        question, context = text[: found.start()], _context(text[found.end() :])
    asked = Relationship.parse(question)
    if asked.caveat is not None or asked.expires_seconds is not None:
        raise InvalidArgument("a question has no condition", remedy='Give parameters: ... with {"name": value}')
    return graph.check((asked.object, asked.relation), asked.subject, context=context, explain=True)


def _context(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InvalidArgument("what follows `with` is no JSON object", remedy='Write with {"name": value}')
    return found


def _shown(step: Step, left: list[int]) -> dict[str, Any]:
    """An explanation with at most so many nodes; `left` counts down over all of it."""
    left[0] -= 1
    parts: list[dict[str, Any]] = []
    for part in step.parts:
        if left[0] <= 0:
            parts.append(_more(step.parts[len(parts) :]))
            break
        parts.append(_shown(part, left))
    return {
        "text": step.text,
        "verdict": step.verdict.value,
        "relationship": None if step.relationship is None else str(step.relationship),
        "missing": step.missing,
        "note": step.note,
        "parts": parts,
    }


def _more(parts: Sequence[Step]) -> dict[str, Any]:
    text = f"{len(parts)} more that are not drawn"
    return {"text": text, "verdict": parts[0].verdict.value, "missing": (), "note": "", "parts": []}
