"""Answers any question: whole systems of equations over everything that the question leads to.

Not here: the fast way (`check.py`), whose answers are the same.
Invariant: the answer is the least fixed point; through exclusions, the well-founded model, and what that leaves
undefined is denied. No recursion along the graph: depth is bounded by memory and time alone.
Source: Van Gelder 1993, "The alternating fixpoint of logic programs with negation", component by component;
Kleene's three values, where the third carries the names of what is missing.
"""

import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from cupola.access.engine.check import Asking
from cupola.access.engine.compile import Compiled
from cupola.access.engine.components import components
from cupola.access.engine.condition import Value
from cupola.access.relation import WILDCARD, Object, Subject
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

Node = tuple[str, str, str]
"""Type and id of an object, and its relation."""


class Ask(NamedTuple):
    """The answer to another node."""

    node: Node


class Any(NamedTuple):
    """One of the operands."""

    operands: "tuple[Formula, ...]"


class All(NamedTuple):
    """All of the operands."""

    operands: "tuple[Formula, ...]"


class Not(NamedTuple):
    """The opposite."""

    operand: "Formula"


Formula = bool | frozenset[str] | Ask | Any | All | Not
_Values = dict[Node, Value]
_Users = dict[Node, list[Node]]
EMPTY: frozenset[str] = frozenset()
STRIDE = 64
"""Nodes between two looks at the clock."""


class Solution:
    """The values of a node and of all that it leads to, for one subject.

    Args:
        asking: the question.

    Attributes:
        lower: what is so for certain.
        upper: what is not refuted; it differs from `lower` only on cycles through exclusions.
        rank: when a value was found, which is later than those that it rests on.

    Raises:
        Late: the time is over.
    """

    def __init__(self, compiled: Compiled, asking: Asking, root: Node):
        self._compiled, self._asking, self._subject = compiled, asking, asking.subject
        self._formulas: dict[Node, Formula] = {}
        self._uses: dict[Node, tuple[Node, ...]] = {}
        self.lower: _Values = {}
        self.upper: _Values = {}
        self.rank: dict[Node, int] = {}
        self._tick = itertools.count().__next__
        self.value(Ask(root))

    def value(self, formula: Formula) -> Value:
        """Returns what a formula is equal to, and finds the nodes in it that have no value yet."""
        lacking = [node for node in _asked(formula) if node not in self.lower]
        for component in components(lacking, self._successors):
            if component[0] not in self.lower:
                self._settle(component)
        return self._evaluate(formula, self.lower, self.upper)

    def formula(self, node: Node) -> Formula:
        """Returns what a node is equal to; facts are already in it."""
        found = self._formulas.get(node)
        if found is None:
            if len(self._formulas) % STRIDE == 0:
                self._asking.on_time()
            type, id, name = node
            relation = self._compiled.relations[type, name]
            found = True if node == self._subject else self.formula_of(relation.rewrite, Object(type, id), name)
            self._formulas[node] = found
        return found

    def formula_of(self, expression: Expression, object: Object, relation: str) -> Formula:
        """Returns what an expression at an object is equal to."""
        match expression:
            case This():
                return self._this(object, relation)
            case Computed(name):
                return self.ask(object.type, object.id, name)
            case Itself():
                return self._subject == (*object, "")
            case Arrow(tupleset, computed, quantifier):
                return self._arrow(object, tupleset, computed, quantifier)
            case Union(operands):
                return disjunction(self.formula_of(one, object, relation) for one in operands)
            case Intersection(operands):
                return conjunction(self.formula_of(one, object, relation) for one in operands)
            case Exclusion(base, subtracted):
                without = self.formula_of(subtracted, object, relation)
                return conjunction([self.formula_of(base, object, relation), negation(without)])
        return False

    def ask(self, type: str, id: str, relation: str) -> Formula:
        """Returns the formula of a node: no where the schema has none, or the subject can never be in it."""
        if (type, relation) not in self._compiled.relations:
            return False
        return Ask((type, id, relation)) if self._compiled.plan(type, relation, self._subject).alive else False

    def _evaluate(self, formula: Formula, lower: _Values, upper: _Values) -> Value:
        """Returns the value of a formula; below a Not, the sides change places."""
        match formula:
            case Ask(node):
                return lower.get(node, False)
            case Any(operands):
                names: frozenset[str] | None = None
                for operand in operands:
                    value = self._evaluate(operand, lower, upper)
                    if value is True:
                        return True
                    if value is not False:
                        names = value if names is None else names | value
                return False if names is None else names
            case All(operands):
                names = None
                for operand in operands:
                    value = self._evaluate(operand, lower, upper)
                    if value is False:
                        return False
                    if value is not True:
                        names = value if names is None else names | value
                return True if names is None else names
            case Not(operand):
                value = self._evaluate(operand, upper, lower)
                return not value if isinstance(value, bool) else value
        return formula

    def _this(self, object: Object, relation: str) -> Formula:
        facts, asking, subject = self._asking.facts, self._asking, self._subject
        found: list[Formula] = []
        exact = facts.find(object, relation, subject)
        if exact is not None:
            found.append(asking.value(exact))
        if not subject.relation and subject.id != WILDCARD:
            everyone = facts.find(object, relation, Subject(subject.type, WILDCARD))
            if everyone is not None:
                found.append(asking.value(everyone))
        if True in found:
            return True
        for one in facts.indirect(object, relation):
            group = one.subject
            if group.relation and group != subject:
                found.append(conjunction([self.ask(*group), asking.value(one)]))
        return disjunction(found)

    def _arrow(self, object: Object, tupleset: str, computed: str, quantifier: Quantifier) -> Formula:
        parts: list[Formula] = []
        for one in self._asking.facts.subjects(object, tupleset):
            type, id, _ = one.subject
            if id != WILDCARD:
                parts.append(conjunction([self.ask(type, id, computed), self._asking.value(one)]))
        if quantifier is Quantifier.ANY:
            return disjunction(parts)
        return conjunction(parts) if parts else False

    def _successors(self, node: Node) -> tuple[Node, ...]:
        if node in self.lower:
            return ()
        found = self._uses.get(node)
        if found is None:
            found = self._uses[node] = tuple(dict.fromkeys(_asked(self.formula(node))))
        return found

    def _settle(self, component: list[Node]) -> None:
        """Finds the values of nodes that depend on each other, where all others that they lead to have theirs."""
        if len(component) == 1 and component[0] not in self._uses[component[0]]:
            self._assign(component[0])
            return
        users: dict[Node, list[Node]] = {node: [] for node in component}
        for node in component:
            self.lower[node] = False
            for used in self._uses[node]:
                if used in users:
                    users[used].append(node)
        before: list[Value] = []
        while before != (before := [self.lower[node] for node in component]):
            self._least(component, users, self.upper, self.lower)
            self._least(component, users, self.lower, self.upper)
            if all(self.lower[node] == self.upper[node] for node in component):
                break
        # The names that matter are found last: on the way, some were missing that in the end are not.
        # Each side may need the other's, so both are asked each time: no short cut through any().
        sides = (self.lower, self.upper), (self.upper, self.lower)
        while sum(self._name(component, users, *pair) for pair in sides):
            self._asking.on_time()

    def _assign(self, node: Node) -> None:
        formula = self.formula(node)
        self.upper[node] = self._evaluate(formula, self.upper, self.lower)
        self.lower[node] = self._evaluate(formula, self.lower, self.upper)
        self.rank[node] = self._tick()

    def _least(self, component: list[Node], users: _Users, side: _Values, other: _Values) -> None:
        """Raises the values of one side from no until nothing changes, where the other side stays."""
        for node in component:
            side[node] = False
        for node, value in self._changes(component, users, side, other):
            value = value if isinstance(value, bool) else EMPTY
            if value != side[node]:
                side[node] = value
                self.rank[node] = self._tick()

    def _name(self, component: list[Node], users: _Users, side: _Values, other: _Values) -> bool:
        """Adds the names that the unknown values of one side depend on, and returns whether there were new ones."""
        unknown, grew = [node for node in component if not isinstance(side[node], bool)], False
        for node, value in self._changes(unknown, users, side, other):
            if not isinstance(value, bool) and value != side[node]:
                side[node], grew = value, True
        return grew

    def _changes(self, start: list[Node], users: _Users, side: _Values, other: _Values) -> Iterator[tuple[Node, Value]]:
        """Yields nodes with their value, those first and then the users of each that the receiver has changed."""
        pending, waiting = list(reversed(start)), set(start)
        steps = 0
        while pending:
            steps += 1
            if steps % STRIDE == 0:
                self._asking.on_time()
            node = pending.pop()
            waiting.discard(node)
            before = side[node]
            yield node, self._evaluate(self.formula(node), side, other)
            if side[node] != before:
                for user in users[node]:
                    if user not in waiting:
                        waiting.add(user)
                        pending.append(user)


def disjunction(operands: Iterable[Formula]) -> Formula:
    """Returns the formula that one of them holds."""
    kept: list[Formula] = []
    for one in operands:
        if one is True:
            return True
        if one is not False:
            kept.append(one)
    return kept[0] if len(kept) == 1 else Any(tuple(kept)) if kept else False


def conjunction(operands: Iterable[Formula]) -> Formula:
    """Returns the formula that all of them hold."""
    kept: list[Formula] = []
    for one in operands:
        if one is False:
            return False
        if one is not True:
            kept.append(one)
    return kept[0] if len(kept) == 1 else All(tuple(kept)) if kept else True


def negation(operand: Formula) -> Formula:
    """Returns the formula that it does not hold."""
    return not operand if isinstance(operand, bool) else operand if isinstance(operand, frozenset) else Not(operand)


def _asked(formula: Formula) -> Iterable[Node]:
    pending = [formula]
    while pending:
        one = pending.pop()
        match one:
            case Ask(node):
                yield node
            case Any(operands) | All(operands):
                pending += operands
            case Not(operand):
                pending.append(operand)
