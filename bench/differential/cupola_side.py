"""Cupola's answers, in the form in which the peers' come.

Not here: the peers' (`bench/peers/access_spicedb.py`, `fga.py`).
"""

import itertools
from collections.abc import Iterator
from typing import Any

from cupola.access import Graph, touch
from cupola.access.decision import Decision, Question
from cupola.access.engine.at import Node
from cupola.access.errors import AccessError
from cupola.access.relation import Caveated, Object, Relationship, Subject


def answer(world: dict[str, Any]) -> dict[str, Any]:
    """Returns whether the schema and each relationship was taken, and the answers."""
    with Graph.open(":memory:") as graph:
        try:
            graph.write_schema(world["schema"])
        except AccessError as error:
            return {"schema": str(error), "relationships": [], "answers": []}
        taken = _write(graph, [relationship(*parts) for parts in world["relationships"]])
        bulk = _bulk(graph, [one for one in world["questions"] if one[0] == "bulk"])
        asked = [next(bulk) if one[0] == "bulk" else _ask(graph, *one) for one in world["questions"]]
        return {"schema": "", "relationships": taken, "answers": asked}


def relationship(object: Any, relation: str, who: Any, caveat: Any, expires_seconds: float | None) -> Relationship:
    """Returns a relationship of its parts."""
    condition = None if caveat is None else Caveated.of(*caveat)
    return Relationship(Object(*object), relation, Subject(*who), condition, expires_seconds)


def _write(graph: Graph, relationships: list[Relationship]) -> list[str]:
    try:
        graph.write(*map(touch, relationships))
        return [""] * len(relationships)
    except AccessError:
        return [_attempt(graph, one) for one in relationships]


def _attempt(graph: Graph, relationship: Relationship) -> str:
    try:
        graph.write(touch(relationship))
    except AccessError as error:
        return str(error)
    return ""


def _bulk(graph: Graph, questions: list[Any]) -> Iterator[Any]:
    asked = [Question(Object(*object), name, Subject(*who), context) for _, object, name, who, context in questions]
    for one in graph.check_many(asked):
        yield {"error": str(one.error)} if one.error is not None else _verdict(one)


def _ask(graph: Graph, kind: str, *question: Any) -> Any:
    try:
        match kind, question:
            case "check", (object, name, who, context):
                return _verdict(graph.check((Object(*object), name), Subject(*who), context=context))
            case "resources", (type, name, who, context):
                _, resources = graph.lookup_resources(type, name, Subject(*who), context=context)
                return {one.id: sorted(one.missing) for one in resources}
            case "subjects", (object, name, type, relation, context):
                _, holders = graph.lookup_subjects((Object(*object), name), type, relation, context=context)
                return {
                    one.id: [sorted(one.missing), {other.id: sorted(other.missing) for other in one.excluded}]
                    for one in holders
                }
            case "expand", (object, name):
                _, node = graph.expand((Object(*object), name))
                return _tree(node)
    except AccessError as error:
        return {"error": str(error)}
    raise ValueError(f"no kind of question: {kind}")


def _verdict(decision: Decision) -> Any:
    return "yes" if decision.allowed else sorted(decision.missing) or "no"


def _tree(node: Node) -> Any:
    if not node.operator:
        return ["leaf", sorted(str(one) for one in node.subjects)]
    return [node.operator, [_tree(child) for child in node.children]]


def plain_tree(tree: Any) -> Any:
    """Returns a tree of `expand` without what has no meaning: unions within unions, of one, and their order."""
    operator, parts = tree
    if operator == "leaf":
        return ["leaf", sorted(set(parts))]
    parts = [plain_tree(part) for part in parts]
    if operator == "exclusion":
        return [operator, [parts[0], *sorted(parts[1:], key=str)]]
    if not parts:
        return ["leaf", []]
    flat = list(itertools.chain.from_iterable(part[1] if part[0] == operator else [part] for part in parts))
    if operator == "union":
        subjects = sorted({one for part in flat if part[0] == "leaf" for one in part[1]})
        flat = [part for part in flat if part[0] != "leaf"]
        if subjects or not flat:
            flat.append(["leaf", subjects])
    found = sorted({str(part): part for part in flat}.items())
    return found[0][1] if len(found) == 1 else [operator, [part for _, part in found]]
