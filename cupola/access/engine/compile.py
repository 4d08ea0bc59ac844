"""Compiles a schema: for each relation and kind of subject, the plan by which the subject is looked for.

Not here: following a plan (`check.py`).
Invariant: a plan is a union. Whatever lies at the same object without an intersection, an exclusion or an arrow over
all objects between is drawn into one plan, and what a kind of subject can never reach is not in it.
Source: Pang et al. 2019, "Zanzibar", section 3.2.2 (checks as boolean expressions, direct and indirect reads apart).
"""

import threading
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from cupola.access.engine.condition import Conditions
from cupola.access.errors import Named, UnknownName, meant
from cupola.access.relation import WILDCARD, Relationship, Subject
from cupola.access.schema.model import (
    Arrow,
    Computed,
    Exclusion,
    Expression,
    Intersection,
    Itself,
    Nil,
    Quantifier,
    Relation,
    Schema,
    This,
    Union,
)

Kind = tuple[str, str]
"""Type and relation of a subject; "" for objects themselves."""


class Plan:
    """How a kind of subject is looked for at objects of a type.

    Args:
        type: of the objects.
        relation: that the plan answers; "" for a part of an expression.

    Attributes:
        itself: whether the subject is found when it is the object.
        direct: relations in which it may stand itself.
        wild: relations in which all of its type may stand.
        hops: relations to follow: whether as an arrow, and the plans by the kind of subject that they lead to, which
            is (type,) of an arrow and (type, relation) of usersets.
        operators: what must be evaluated object by object.
        nested: whether it leads to groups of its own kind, so that an index is worth asking.
        alive: whether the kind of subject can be found at all.
    """

    __slots__ = ("alive", "direct", "hops", "itself", "nested", "operators", "relation", "type", "wild")

    def __init__(self, type: str, relation: str):
        self.type, self.relation = type, relation
        self.itself = self.alive = self.nested = False
        self.direct: tuple[str, ...] = ()
        self.wild: tuple[str, ...] = ()
        self.hops: tuple[Hop, ...] = ()
        self.operators: tuple[Operator, ...] = ()


Hop = tuple[bool, str, dict[tuple[str, ...], Plan]]


class Meet:
    """An intersection of plans of one object."""

    def __init__(self, operands: tuple[Plan, ...]):
        self.operands = operands

    @property
    def alive(self) -> bool:
        """Whether the kind of subject can be in it."""
        return all(operand.alive for operand in self.operands)


class Minus:
    """A plan without another, of one object."""

    def __init__(self, base: Plan, subtracted: Plan):
        self.base, self.subtracted = base, subtracted

    @property
    def alive(self) -> bool:
        """Whether the kind of subject can be in it."""
        return self.base.alive


class Every:
    """An arrow over all objects that a relation leads to; a type without a plan has nobody."""

    def __init__(self, relation: str, plans: dict[str, Plan]):
        self.relation, self.plans = relation, plans

    @property
    def alive(self) -> bool:
        """Whether the kind of subject can be in it."""
        return any(plan.alive for plan in self.plans.values())


Operator = Meet | Minus | Every


class _Part(NamedTuple):
    """An expression of a relation, of which a plan is to be made."""

    type: str
    relation: str
    rewrite: Expression


class Compiled:
    """A schema, and the plans that were made of it.

    Args:
        caveat_cost: steps of evaluating one condition.
    """

    def __init__(self, schema: Schema, caveat_cost: int):
        self.schema, self.conditions = schema, Conditions(schema, caveat_cost)
        self.relations: dict[Kind, Relation] = {
            (definition.name, relation.name): relation for definition in schema.definitions for relation in definition
        }
        self._allowed = {
            kind: frozenset((one.type, one.relation, one.wildcard, one.caveat, one.expires) for one in relation.allowed)
            for kind, relation in self.relations.items()
        }
        self._types = frozenset(definition.name for definition in schema.definitions)
        self._related = frozenset(type for type, _ in self.relations)
        self._lock = threading.Lock()
        self._plans: dict[tuple[str, str, str, str], Plan] = {}

    def allows(self, relationship: Relationship) -> bool:
        """Whether the schema allows a relationship."""
        (type, _), relation, subject, caveat, expires = relationship
        name = "" if caveat is None else caveat.name
        kind = (subject.type, subject.relation, subject.id == WILDCARD, name, expires is not None)
        return kind in self._allowed.get((type, relation), ())

    def leads(self, relationship: Relationship) -> bool:
        """Whether a plan can go on from the subject of a relationship."""
        _, _, subject, _, _ = relationship
        return bool(subject.relation) or subject.type in self._related

    def require(self, type: str, permission: str, subject: Subject) -> None:
        """Refuses a question about what the schema does not have.

        Raises:
            UnknownName: a type, a relation or a permission.
        """
        self._require_name(type, permission)
        if subject.relation:
            self._require_name(subject.type, subject.relation)
        elif subject.type not in self._types:
            raise self._unknown_type(subject.type)

    def plan(self, type: str, permission: str, subject: Subject) -> Plan:
        """Returns the plan that looks for a kind of subject.

        Raises:
            UnknownName: the schema has no such type, relation or permission.
        """
        key = (type, permission, subject.type, subject.relation)
        if (found := self._plans.get(key)) is None:
            self.require(type, permission, subject)
            with self._lock:
                made = _Maker(self, (subject.type, subject.relation), self._plans).make(type, permission)
                self._plans |= made
                found = self._plans[key]
        return found

    def targets(self, type: str, tupleset: str, computed: str) -> dict[str, Relation]:
        """Returns what an arrow leads to: the relation by each type that has it."""
        source = self.relations.get((type, tupleset))
        types = [] if source is None else [one.type for one in source.allowed if not one.wildcard]
        return {one: self.relations[one, computed] for one in types if (one, computed) in self.relations}

    def _require_name(self, type: str, name: str) -> None:
        if (type, name) in self.relations:
            return
        if type not in self._types:
            raise self._unknown_type(type)
        known = [relation for owner, relation in self.relations if owner == type]
        raise UnknownName(
            f"type {type} has no relation or permission {name!r}",
            kind=Named.RELATION,
            where=f"{type}#{name}",
            remedy=meant(name, known) or (f"It has {', '.join(known)}." if known else "It has none: add one."),
        )

    def _unknown_type(self, type: str) -> UnknownName:
        known = ", ".join(sorted(self._types))
        return UnknownName(
            f"the schema has no type {type!r}",
            kind=Named.TYPE,
            where=type,
            remedy=meant(type, self._types) or (f"It has {known}." if known else ""),
        )


class _Maker:
    """Makes the plans of one kind of subject, and of all that they lead to, without recursion.

    Args:
        known: plans that are finished.
    """

    def __init__(self, compiled: Compiled, kind: Kind, known: dict[tuple[str, str, str, str], Plan]):
        self._compiled, self._kind, self._known = compiled, kind, known
        self._made: dict[tuple[str, str, str, str], Plan] = {}
        self._operators: dict[tuple[str, str, Expression], Operator] = {}
        self._every: list[Plan] = []
        self._pending: list[tuple[Plan, _Part]] = []

    def make(self, type: str, permission: str) -> dict[tuple[str, str, str, str], Plan]:
        """Returns the plans that were not known, by their key."""
        self._named(type, permission)
        while self._pending:
            self._fill(*self._pending.pop())
        grew = True
        while grew:
            grew = False
            for plan in self._every:
                if not plan.alive and self._reaches(plan):
                    plan.alive = grew = True
        for plan in self._every:
            plan.hops = tuple(_living(plan.hops))
            plan.nested = any(kind == (plan.type, plan.relation) for _, _, leads in plan.hops for kind in leads)
            plan.operators = tuple(operator for operator in plan.operators if operator.alive)
        return self._made

    def _named(self, type: str, relation: str) -> Plan:
        key = (type, relation, *self._kind)
        found = self._known.get(key) or self._made.get(key)
        if found is None:
            rewrite = self._compiled.relations[type, relation].rewrite
            found = self._made[key] = self._new(type, relation, _Part(type, relation, rewrite))
            found.itself = (type, relation) == self._kind
        return found

    def _new(self, type: str, relation: str, part: _Part) -> Plan:
        plan = Plan(type, relation)
        self._every.append(plan)
        self._pending.append((plan, part))
        return plan

    def _fill(self, plan: Plan, part: _Part) -> None:
        type = part.type
        direct, wild = dict[str, None](), dict[str, None]()
        hops, operators = list[Hop](), list[Operator]()
        names, parts = {plan.relation}, [part]
        while parts:
            _, relation, rewrite = parts.pop()
            match rewrite:
                case This():
                    leads: dict[tuple[str, ...], Plan] = {}
                    for one in self._compiled.relations[type, relation].allowed:
                        if (one.type, one.relation) == self._kind:
                            (wild if one.wildcard else direct)[relation] = None
                        if one.relation and (one.type, one.relation) in self._compiled.relations:
                            leads[one.type, one.relation] = self._named(one.type, one.relation)
                    if leads:
                        hops.append((False, relation, leads))
                case Computed(name):
                    plan.itself |= (type, name) == self._kind
                    found = self._compiled.relations.get((type, name))
                    if name not in names and found is not None:
                        names.add(name)
                        parts.append(_Part(type, name, found.rewrite))
                case Itself():
                    plan.itself |= (type, "") == self._kind
                case Union(operands):
                    parts += (_Part(type, relation, operand) for operand in reversed(operands))
                case Arrow(tupleset, computed, Quantifier.ANY):
                    targets = self._compiled.targets(type, tupleset, computed)
                    if targets:
                        hops.append((True, tupleset, {(one,): self._named(one, computed) for one in targets}))
                case Nil():
                    pass
                case _:
                    # One for all plans that it is drawn into, or a permission within itself would have no end.
                    key = type, relation, rewrite
                    if key not in self._operators:
                        self._operators[key] = self._operator(type, relation, rewrite)
                    operators.append(self._operators[key])
        plan.direct, plan.wild = tuple(direct), tuple(wild)
        plan.hops, plan.operators = tuple(hops), tuple(operators)

    def _operator(self, type: str, relation: str, rewrite: Expression) -> Operator:
        def part(expression: Expression) -> Plan:
            return self._new(type, "", _Part(type, relation, expression))

        match rewrite:
            case Intersection(operands):
                return Meet(tuple(part(operand) for operand in operands))
            case Exclusion(base, subtracted):
                return Minus(part(base), part(subtracted))
            case Arrow(tupleset, computed, Quantifier.ALL):
                targets = self._compiled.targets(type, tupleset, computed)
                return Every(tupleset, {one: self._named(one, computed) for one in targets})
        raise TypeError(f"{rewrite!r} is no expression")

    @staticmethod
    def _reaches(plan: Plan) -> bool:
        leads = (lead for _, _, leads in plan.hops for lead in leads.values())
        return (
            plan.itself
            or bool(plan.direct or plan.wild)
            or any(operator.alive for operator in plan.operators)
            or any(lead.alive for lead in leads)
        )


def _living(hops: Iterable[Hop]) -> Iterator[Hop]:
    for arrow, relation, leads in hops:
        alive = {kind: plan for kind, plan in leads.items() if plan.alive}
        if alive:
            yield arrow, relation, alive
