"""The subjects of a type that have a permission on an object.

Not here: the algebra of sets with wildcards (`members.py`), conditions (`caveat/`), the order of pages (`graph.py`).
Invariant: all of them, each once, `*` first. Cycles are answered by the least fixed point; where a cycle runs through
an exclusion, by the well-founded model, and who is undecided in it is left out.
Source: Van Gelder, Ross and Schlipf 1991, "The well-founded semantics for general logic programs"; the alternating
fixed point computes it.
"""

import dataclasses
import enum
from collections import ChainMap, Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from cupola.access.decision import Verdict
from cupola.access.engine.at import Holder
from cupola.access.engine.components import components
from cupola.access.engine.members import NO, YES, Certainty, Members, either
from cupola.access.engine.reach import Pair, Reach, reach_of
from cupola.access.relation import WILDCARD, Object, Relationship
from cupola.access.schema.model import (
    Arrow,
    Computed,
    Exclusion,
    Expression,
    Intersection,
    Itself,
    Quantifier,
    Schema,
    This,
    Union,
)


@runtime_checkable
class Forward(Protocol):
    """Relationships that hold now, found by their object."""

    def subjects(self, object: Object, relation: str) -> Sequence[Relationship]:
        """Returns those of an object's relation."""

    def indirect(self, object: Object, relation: str) -> Sequence[Relationship]:
        """Returns those of them whose subject has a relation or is a wildcard."""


@dataclasses.dataclass(frozen=True, eq=False)
class Clause:
    """A union, taken apart; each clause of a schema is one object and equal to itself alone.

    Args:
        pair: that it is all of; ("", "") for an operand of an intersection or exclusion.
        own: the relation whose relationships belong to it; "": none.
        computed: relations of the same object.
        arrows: to any of the objects.
        itself: whether the object belongs to it.
        others: operands that are no unions.
    """

    pair: Pair
    own: str
    computed: tuple[str, ...]
    arrows: tuple[Arrow, ...]
    itself: bool
    others: tuple["Barrier", ...]


class Operator(enum.Enum):
    """What is made of the sets of several units."""

    ANY = "any"
    ALL = "all"
    BUT = "but"
    """The first without the second."""


class Barrier(NamedTuple):
    """An intersection, an exclusion, or an arrow to all of the objects."""

    operator: Operator
    operands: tuple[Clause, ...] = ()
    arrow: Arrow | None = None


Unit = tuple[Clause, Object]
"""A set that is worked out once."""


class Part(NamedTuple):
    """Units, each under its condition, and what is made of them."""

    operator: Operator
    operands: tuple[tuple[Certainty, Unit], ...]


class Bounds(NamedTuple):
    """Who is certainly in units, and who is not certainly out; they differ on cycles through exclusions alone."""

    lower: dict[Unit, Members]
    upper: dict[Unit, Members]


class Place(NamedTuple):
    """What a clause is at an object: members by name, units that belong to its union, and parts."""

    known: dict[str, Certainty]
    leads: list[Unit]
    parts: list[Part]


class Plan(NamedTuple):
    """What a unit is the union of: the members of places that unions lead to, and parts made of other units."""

    known: list[dict[str, Certainty]]
    parts: list[Part]

    def equation(self) -> "Equation":
        """Returns the plan with its members put together."""
        known: dict[str, Certainty] = {}
        for place in self.known:
            for id, certainty in place.items():
                known[id] = either(known[id], certainty) if id in known else certainty
        everyone = known.pop(WILDCARD, NO)
        if everyone[0] is not Verdict.NO:
            known = {id: either(certainty, everyone) for id, certainty in known.items()}
        return Equation(Members(known, everyone), self.parts)


class Equation(NamedTuple):
    """What a unit is equal to: the union of members and parts."""

    members: Members
    parts: list[Part]


def lookup_subjects(
    schema: Schema,
    facts: Forward,
    object: Object,
    permission: str,
    subject_type: str,
    subject_relation: str,
    after: str = "",
    *,
    conditions: Callable[[Relationship], Certainty],
    on_time: Callable[[], None],
) -> Iterator[Holder]:
    """Returns the subjects that have a permission on an object, `*` first, then sorted by id.

    Args:
        schema: in force.
        facts: relationships that hold and that the schema allows.
        object: on which.
        permission: or relation.
        subject_type: of the subjects.
        subject_relation: of the subjects, where they are sets such as `group:research#member`; "": none.
        after: the last id that is not wanted any more; "": from the first.
        conditions: answers whether a relationship's caveat holds; asked only where it has one.
        on_time: raises `Late` when the time is over.

    Raises:
        UnknownName: the schema has no such permission.
        Late: the time is over.
    """
    reach = reach_of(schema)
    pair = reach.require(object.type, permission)
    planner = _Planner(reach, facts, (subject_type, subject_relation), conditions)
    root = planner.clause(pair)
    if root is None:
        return iter(())
    found = _solve(planner, (root, object), on_time)
    place = (after != WILDCARD, after)
    return (one for one in found.holders() if not after or (one.id != WILDCARD, one.id) > place)


class _Planner:
    """Reads the relationships of units and says of which others they are made.

    Args:
        kind: type and relation of the subjects that are looked for.
    """

    def __init__(self, reach: Reach, facts: Forward, kind: Pair, conditions: Callable[[Relationship], Certainty]):
        self._reach, self._facts, self._kind, self._conditions = reach, facts, kind, conditions
        starts = [kind] if kind[1] else [kind, (kind[0], WILDCARD)]
        self._useful = reach.out_of(starts)
        self._direct = {lead.pair for start in starts for lead in reach.leads.get(start, ()) if lead.tupleset}
        self._clauses: dict[Pair, Clause] = {}
        self._places: dict[Unit, Place] = {}

    def clause(self, pair: Pair) -> Clause | None:
        """Returns the clause of a relation; None where nobody that is looked for can be in it."""
        relation = self._reach.relations.get(pair)
        if relation is None or pair not in self._useful:
            return None
        if pair not in self._clauses:
            self._clauses[pair] = _clause(relation.rewrite, relation.name, pair)
        return self._clauses[pair]

    def plan(self, unit: Unit, on_time: Callable[[], None]) -> Plan:
        """Returns what a unit is made of; walks through unions at once, however deep they are."""
        plan, seen, pending = Plan([], []), {unit}, [unit]
        while pending:
            on_time()
            place = self._place(pending.pop())
            plan.known.append(place.known)
            plan.parts.extend(place.parts)
            for lead in place.leads:
                if lead not in seen:
                    seen.add(lead)
                    pending.append(lead)
        return plan

    def _place(self, unit: Unit) -> Place:
        """Returns what a clause is at an object; kept, since many units lead to the same groups."""
        if (known := self._places.get(unit)) is not None:
            return known
        clause, object = unit
        place = self._places[unit] = Place({}, [], [])
        if clause.pair == self._kind or (clause.itself and (object.type, "") == self._kind):
            place.known[object.id] = YES
        for relationship in self._own(clause, object):
            certainty, subject = self._condition(relationship), relationship.subject
            if certainty[0] is Verdict.NO:
                continue
            if (subject.type, subject.relation) == self._kind:
                place.known[subject.id] = either(place.known.get(subject.id, NO), certainty)
            if subject.relation:
                self._enter(place, self.clause((subject.type, subject.relation)), subject.object, certainty)
        for name in clause.computed:
            self._enter(place, self.clause((object.type, name)), object, YES)
        for arrow in clause.arrows:
            for certainty, target in self._targets(arrow, object):
                self._enter(place, self.clause((target.type, arrow.computed)), target, certainty)
        for barrier in clause.others:
            place.parts.extend(self._parts(barrier, object))
        return place

    @staticmethod
    def _enter(place: Place, clause: Clause | None, object: Object, certainty: Certainty) -> None:
        """Adds another set: to the union if it belongs to it for certain, else as a part under a condition."""
        if clause is not None and certainty[0] is Verdict.YES:
            place.leads.append((clause, object))
        elif clause is not None and certainty[0] is Verdict.CONDITIONAL:
            place.parts.append(Part(Operator.ANY, ((certainty, (clause, object)),)))

    def _own(self, clause: Clause, object: Object) -> Sequence[Relationship]:
        if not clause.own:
            return ()
        direct = (object.type, clause.own) in self._direct
        return (self._facts.subjects if direct else self._facts.indirect)(object, clause.own)

    def _targets(self, arrow: Arrow, object: Object) -> Iterator[tuple[Certainty, Object]]:
        for relationship in self._facts.subjects(object, arrow.tupleset):
            if relationship.subject.id != WILDCARD:
                yield self._condition(relationship), relationship.subject.object

    def _parts(self, barrier: Barrier, object: Object) -> Iterator[Part]:
        """Yields the part that a barrier is at an object, or nothing where nobody passes it."""
        if barrier.arrow is None:
            yield Part(barrier.operator, tuple((YES, (clause, object)) for clause in barrier.operands))
            return
        operands = []
        for certainty, target in self._targets(barrier.arrow, object):
            clause = self.clause((target.type, barrier.arrow.computed))
            if clause is None:
                return
            operands.append((certainty, (clause, target)))
        if operands:
            yield Part(barrier.operator, tuple(operands))

    def _condition(self, relationship: Relationship) -> Certainty:
        return YES if relationship.caveat is None else self._conditions(relationship)


def _clause(expression: Expression, name: str, pair: Pair = ("", "")) -> Clause:
    """Takes the unions of an expression apart."""
    own, itself = "", False
    computed: dict[str, None] = {}
    arrows: dict[Arrow, None] = {}
    others: list[Barrier] = []
    rest = [expression]
    while rest:
        match rest.pop():
            case This():
                own = name
            case Itself():
                itself = True
            case Computed(other):
                computed[other] = None
            case Arrow(quantifier=Quantifier.ALL) as arrow:
                others.append(Barrier(Operator.ALL, arrow=arrow))
            case Arrow() as arrow:
                arrows[arrow] = None
            case Union(operands):
                rest += operands
            case Intersection(operands):
                others.append(Barrier(Operator.ALL, tuple(_clause(operand, name) for operand in operands)))
            case Exclusion(base, subtracted):
                others.append(Barrier(Operator.BUT, (_clause(base, name), _clause(subtracted, name))))
    return Clause(pair, own, tuple(computed), tuple(arrows), itself, tuple(others))


def _solve(planner: _Planner, root: Unit, on_time: Callable[[], None]) -> Members:
    """Returns the members of a unit, having worked out those that it depends on, each once."""
    plans: dict[Unit, Plan] = {}
    waiting: Counter[Unit] = Counter([root])
    pending = [root]
    while pending:
        unit = pending.pop()
        if unit not in plans:
            plans[unit] = planner.plan(unit, on_time)
            needed = _needed(plans[unit])
            waiting.update(needed)
            pending += needed
    bounds = Bounds({}, {})
    for component in components([root], lambda unit: _needed(plans[unit])):
        chosen = {unit: plans.pop(unit).equation() for unit in component}
        found = _settle(chosen, bounds, on_time)
        bounds.lower.update(found.lower)
        bounds.upper.update(found.upper)
        # A set goes as soon as all who need it are done: in a deep chain only one is there at a time.
        for unit in (needed for plan in chosen.values() for needed in _needed(plan)):
            waiting[unit] -= 1
            if not waiting[unit]:
                del bounds.lower[unit], bounds.upper[unit]
    return bounds.lower[root]


def _needed(plan: Plan | Equation) -> list[Unit]:
    return [unit for part in plan.parts for _, unit in part.operands]


def _settle(equations: dict[Unit, Equation], known: Bounds, on_time: Callable[[], None]) -> Bounds:
    """Returns the members of units that depend on one another, where all others that they need are known."""
    needed = {unit for plan in equations.values() for unit in _needed(plan)}
    cyclic = not needed.isdisjoint(equations)
    lower = {unit: Members() for unit in equations}
    if all(known.lower[unit] is known.upper[unit] for unit in needed - equations.keys()) and not _excludes(equations):
        lower = _least(equations, known.lower, known.upper, cyclic, on_time)
        return Bounds(lower, lower)
    while True:
        # Who is certainly in tells who cannot be left out, and that tells better who is certainly in.
        upper = _least(equations, known.upper, ChainMap(lower, known.lower), cyclic, on_time)
        better = _least(equations, known.lower, ChainMap(upper, known.upper), cyclic, on_time)
        if _verdicts(better) in (_verdicts(lower), _verdicts(upper)):
            return Bounds(better, better if _verdicts(better) == _verdicts(upper) else upper)
        lower = better


def _least(
    equations: dict[Unit, Equation],
    known: dict[Unit, Members],
    excluded: Mapping[Unit, Members],
    cyclic: bool,
    on_time: Callable[[], None],
) -> dict[Unit, Members]:
    """Returns the least fixed point, where `excluded` is who exclusions take away."""

    def passed(found: dict[Unit, Members]) -> dict[Unit, Members]:
        better = dict(found)
        positive = ChainMap(better, known)
        # The last ones first: those that come before lead to them.
        for unit in reversed(equations):
            on_time()
            better[unit] = _evaluate(equations[unit], positive, excluded)
        return better

    found = passed({unit: Members() for unit in equations})
    if not cyclic:
        return found
    while _verdicts(better := passed(found)) != _verdicts(found):
        found = better
    # The names that matter are found last: on the way, some were missing that no longer are.
    found = {unit: members.nameless() for unit, members in found.items()}
    while (better := passed(found)) != found:
        found = better
    return found


def _excludes(equations: dict[Unit, Equation]) -> bool:
    """Whether one of the units is taken away from another, or from itself."""
    parts = (part for plan in equations.values() for part in plan.parts)
    return any(part.operator is Operator.BUT and part.operands[1][1] in equations for part in parts)


def _verdicts(values: dict[Unit, Members]) -> list[tuple[Verdict, dict[str, Verdict]]]:
    return [members.verdicts() for members in values.values()]


def _evaluate(equation: Equation, positive: Mapping[Unit, Members], negative: Mapping[Unit, Members]) -> Members:
    found = equation.members
    for operator, operands in equation.parts:
        condition, first = operands[0]
        members = positive[first].given(condition)
        for condition, unit in operands[1:]:
            if operator is Operator.BUT:
                members = members.exclusion(negative[unit])
            else:
                members = members.intersection(positive[unit].given(condition))
        found = found.union(members)
    return found
