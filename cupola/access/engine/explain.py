"""Why an answer is what it is: the path that allowed, or every path that was tried.

Not here: the answer itself (`solve.py`), which is the same as the fast way's.
Invariant: a question is taken apart once; where it turns up again, a note says so. What allowed rests on what was
found before it, so that a path ends at relationships and never in a circle. No recursion along the graph.
"""

from collections.abc import Iterator
from typing import NamedTuple

from cupola.access.decision import Step, Verdict
from cupola.access.engine.check import Asking
from cupola.access.engine.compile import Compiled
from cupola.access.engine.condition import Value
from cupola.access.engine.solve import Ask, Formula, Node, Solution, conjunction
from cupola.access.relation import WILDCARD, Object, Relationship, Subject
from cupola.access.schema.model import (
    Arrow,
    Computed,
    Exclusion,
    Expression,
    Intersection,
    Itself,
    Quantifier,
    This,
    Union,
)


class _Place(NamedTuple):
    """A part of the explanation before its answer is put in.

    Args:
        text: what is asked.
        value: the answer.
        relationship: the fact it rests on.
        note: why.
        node: that is asked about, to be taken apart below; None: the parts are given.
        parts: questions it depends on.
    """

    text: str
    value: Value
    relationship: Relationship | None = None
    note: str = ""
    node: Node | None = None
    parts: "tuple[_Place, ...]" = ()


def explain(compiled: Compiled, asking: Asking, object: Object, permission: str) -> Step:
    """Returns the explanation of a question.

    Raises:
        Late: the time is over.
    """
    root = object.type, object.id, permission
    walk = _Walk(compiled, asking, Solution(compiled, asking, root))
    parts: dict[Node, tuple[_Place, ...]] = {}
    parent: dict[Node, Node] = {}
    pending = [root]
    while pending:
        node = pending.pop()
        asking.on_time()
        parts[node] = walk.parts(node)
        for below in _nodes(parts[node]):
            if below != root and below not in parent:
                parent[below] = node
                pending.append(below)
    steps: dict[Node, Step] = {}
    order = list(parts)
    # Whoever is asked from a node first was noted after it: from the end on, all parts are ready.
    for node in reversed(order):
        assembled = _assemble(parts[node], node, parent, steps)
        steps[node] = _step(_Place(walk.text(node), walk.solution.value(Ask(node))), assembled)
    return steps[root]


class _Walk:
    """Takes questions apart."""

    def __init__(self, compiled: Compiled, asking: Asking, solution: Solution):
        self._compiled, self._asking, self.solution = compiled, asking, solution
        self._subject = asking.subject

    def text(self, node: Node) -> str:
        """Returns a question as text."""
        type, id, relation = node
        return f"{type}:{id}#{relation}@{self._subject}"

    def parts(self, node: Node) -> tuple[_Place, ...]:
        """Returns what the answer to a node rests on."""
        type, id, name = node
        if node == self._subject:
            return (_Place(str(self._subject), True, note="a set of subjects is in itself"),)
        whole = self._of(self._compiled.relations[type, name].rewrite, Object(type, id), name, self._rank(node))
        return whole.parts if whole.parts and whole.text in ("", "or") else (whole,)

    def _rank(self, node: Node) -> int:
        return self.solution.rank.get(node, 0)

    def _of(self, expression: Expression, object: Object, relation: str, before: int) -> _Place:
        """Returns the explanation of an expression, where what allowed was found before a rank."""

        def part(one: Expression) -> _Place:
            return self._of(one, object, relation, before)

        match expression:
            case This():
                return self._either(list(self._this(object, relation)), before)
            case Computed(name):
                return self._ask((object.type, object.id, name))
            case Itself():
                found = self._subject == (*object, "")
                return _Place(f"{object} is {self._subject}", found)
            case Arrow(tupleset, computed, quantifier):
                return self._arrow(object, tupleset, computed, quantifier, before)
            case Union(operands):
                return self._either([part(one) for one in operands], before)
            case Intersection(operands):
                return _all(
                    "all of these",
                    [part(one) for one in operands],
                    self.solution.value(self._formula(expression, object, relation)),
                )
            case Exclusion(base, subtracted):
                value = self.solution.value(self._formula(expression, object, relation))
                return _Place("the first and not the second", value, parts=(part(base), part(subtracted)))
        return _Place("nil", False, note="nobody")

    def _formula(self, expression: Expression, object: Object, relation: str) -> Formula:
        return self.solution.formula_of(expression, object, relation)

    def _either(self, places: list[_Place], before: int) -> _Place:
        """Returns the one that allowed, if one did, else all."""
        allowed = [place for place in places if place.value is True]
        if allowed:
            return min(allowed, key=lambda place: self._found(place, before))
        value: Value = False
        for place in places:
            if not isinstance(place.value, bool):
                value = place.value if isinstance(value, bool) else value | place.value
        return _Place("or", value, parts=tuple(places))

    def _found(self, place: _Place, before: int) -> int:
        """Returns the rank at which a place was found; those that are no earlier than what rests on it come last."""
        ranks = [self._rank(node) for node in _nodes((place,)) if self.solution.lower.get(node) is True]
        latest = max(ranks, default=-1)
        return latest if latest < before else latest + before

    def _ask(self, node: Node, relationship: Relationship | None = None) -> _Place:
        formula = self.solution.ask(*node)
        parts: list[Formula] = [formula] if relationship is None else [formula, self._asking.value(relationship)]
        value = self.solution.value(conjunction(parts))
        if formula is False:
            known = (node[0], node[2]) in self._compiled.relations
            note = f"no {self._subject.type} can be there" if known else f"{node[0]} has no {node[2]}"
            return _Place(self.text(node), value, relationship, note)
        if relationship is None:
            return _Place(self.text(node), value, node=node)
        below = _Place(self.text(node), self.solution.value(formula), node=node)
        return _Place(
            f"{relationship.subject} by {relationship.object}#{relationship.relation}",
            value,
            relationship,
            "its condition does not hold" if self._asking.value(relationship) is False else "",
            parts=(below,),
        )

    def _this(self, object: Object, relation: str) -> Iterator[_Place]:
        facts, subject = self._asking.facts, self._subject
        names = [subject]
        if not subject.relation and subject.id != WILDCARD:
            names.append(Subject(subject.type, WILDCARD))
        for name in names:
            found, note = facts.find(object, relation, name), "no such relationship"
            if found is not None:
                value = self._asking.value(found)
                note = "its condition does not hold" if value is False else ""
                yield _Place(f"{object}#{relation}@{name}", value, found, note)
                continue
            hidden = facts.stored(object, relation, name)
            if hidden is not None:
                note = "expired" if not facts.lives(hidden) else "the schema does not allow it"
            if hidden is not None or name is subject:
                yield _Place(f"{object}#{relation}@{name}", False, hidden, note)
        for one in facts.indirect(object, relation):
            if one.subject.relation and one.subject != subject:
                yield self._ask((one.subject.type, one.subject.id, one.subject.relation), one)

    def _arrow(self, object: Object, tupleset: str, computed: str, quantifier: Quantifier, before: int) -> _Place:
        found = self._asking.facts.subjects(object, tupleset)
        places = [
            self._ask((one.subject.type, one.subject.id, computed), one) for one in found if one.subject.id != WILDCARD
        ]
        if not places:
            return _Place(f"{object}#{tupleset}->{computed}", False, note="leads nowhere")
        if quantifier is Quantifier.ANY:
            either = self._either(places, before)
            return either._replace(text=f"{object}#{tupleset}->{computed}") if either.text == "or" else either
        arrow = Arrow(tupleset, computed, quantifier)
        return _all(
            f"{object}#{tupleset}.all({computed})", places, self.solution.value(self._formula(arrow, object, ""))
        )


def _all(text: str, places: list[_Place], value: Value) -> _Place:
    return _Place(text, value, parts=tuple(places))


def _nodes(places: tuple[_Place, ...]) -> list[Node]:
    found: list[Node] = []
    for place in places:
        if place.node is not None:
            found.append(place.node)
        found += _nodes(place.parts)
    return found


def _assemble(
    places: tuple[_Place, ...], owner: Node, parent: dict[Node, Node], steps: dict[Node, Step]
) -> tuple[Step, ...]:
    """Returns places as steps; a node that this owner asked first has its own parts below it."""
    made = []
    for place in places:
        node = place.node
        if node is None:
            made.append(_step(place, _assemble(place.parts, owner, parent, steps)))
        elif parent.get(node) == owner and node in steps:
            made.append(steps.pop(node))
        else:
            above = owner
            while above != node and above in parent:
                above = parent[above]
            note = "already being asked: a cycle" if above == node else "explained elsewhere"
            made.append(_step(place._replace(note=note), ()))
    return tuple(made)


def _step(place: _Place, parts: tuple[Step, ...]) -> Step:
    value = place.value
    verdict = Verdict.CONDITIONAL if not isinstance(value, bool) else Verdict.YES if value else Verdict.NO
    missing = () if isinstance(value, bool) else tuple(sorted(value))
    return Step(place.text, verdict, place.relationship, missing, place.note, parts)
