"""All answers of a small graph at once: simple, whole, and written without a look at the engine.

A set of subjects is a whole number with a bit for each subject that there could be. A value is three kinds of sets:
who is in it for certain, who may be, and for each parameter whose membership hangs on it. Every relation of every
object is evaluated again and again, from nobody on, until nothing changes. What an exclusion takes away is read from
a second copy: the first copy is who is in (least, given who cannot be kept out), the second who cannot be kept out
(least, given who is in), and both are worked out until they stay. Whoever is in the second alone, by a circle through
an exclusion, is not in.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from cupola.access.relation import WILDCARD, Relationship, Subject
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

Node = tuple[str, str, str]
Value = tuple[int, ...]
"""Certain, possible, and one set for each parameter."""
Holds = Callable[[str, Mapping[str, Any]], tuple[int, frozenset[str]]]
"""A caveat's name and parameters -> 0, 1 (perhaps) or 2, and the parameters that are missing."""


class Naive:
    """Who has what.

    Args:
        relationships: those that the schema allows and that have not expired count.
        ids: of the objects of each type, other than the wildcard.
        parameters: names that may be missing.
    """

    def __init__(
        self,
        schema: Schema,
        relationships: Iterable[Relationship],
        ids: Mapping[str, Sequence[str]],
        now_seconds: float,
        context: Mapping[str, Any],
        holds: Holds,
        parameters: Sequence[str],
    ):
        self.parameters = parameters
        self.rewrites = {(d.name, r.name): r.rewrite for d in schema.definitions for r in d}
        self.nodes = [(type, id, name) for type, name in self.rewrites for id in ids[type]]
        self.subjects = [Subject(type, id) for type in ids for id in (*ids[type], WILDCARD)]
        self.subjects += [Subject(*node) for node in self.nodes]
        self.bit = {subject: 1 << place for place, subject in enumerate(self.subjects)}
        self.everybody = (1 << len(self.subjects)) - 1
        self.public = {type: sum(self.bit[Subject(type, id)] for id in (*ids[type], WILDCARD)) for type in ids}
        self.nobody: Value = (0,) * (2 + len(parameters))
        self.context, self.holds = context, holds
        self.of: dict[Node, list[tuple[Subject, Value]]] = {}
        for one in relationships:
            if one.expires_seconds is None or one.expires_seconds > now_seconds:
                self.of.setdefault((*one.object, one.relation), []).append((one.subject, self.condition(one)))
        self.inside, self.kept = self._solve()

    def answer(self, node: Node, subject: Subject) -> tuple[int, tuple[str, ...]]:
        """Returns 0, 1 (perhaps) or 2, and what is missing, of a subject at a relation of an object."""
        sure, possible, *names = self.inside[node]
        bit = self.bit[subject]
        missing = tuple(name for name, on in zip(self.parameters, names, strict=True) if on & bit)
        return (2, ()) if sure & bit else (1, missing) if possible & bit else (0, ())

    @property
    def decided(self) -> bool:
        """Whether nobody is left undecided by a circle through an exclusion."""
        return all(self.inside[node][:2] == self.kept[node][:2] for node in self.nodes)

    def _solve(self) -> tuple[dict[Node, Value], dict[Node, Value]]:
        inside = dict.fromkeys(self.nodes, self.nobody)
        while True:
            kept = self._least(inside)
            before, inside = inside, self._least(kept)
            if inside in (before, kept):
                break
        # Parameters come last: on the way, some matter that in the end do not.
        while True:
            more = self._pass(inside, kept), self._pass(kept, inside)
            if more == (inside, kept):
                return more
            inside, kept = more

    def _least(self, other: dict[Node, Value]) -> dict[Node, Value]:
        values = dict.fromkeys(self.nodes, self.nobody)
        nameless = self.nobody[2:]
        while True:
            better = {node: value[:2] + nameless for node, value in self._pass(values, other).items()}
            if better == values:
                return values
            values = better

    def _pass(self, values: dict[Node, Value], other: dict[Node, Value]) -> dict[Node, Value]:
        found = dict(values)
        for node in self.nodes:
            value = self._of(self.rewrites[node[0], node[2]], node, found, other)
            found[node] = either([value, self._certain(self.bit[Subject(*node)])])
        return found

    def _certain(self, mask: int) -> Value:
        return (mask, mask, *self.nobody[2:])

    def condition(self, relationship: Relationship) -> Value:
        """Returns everybody, as far as a relationship holds."""
        caveat = relationship.caveat
        if caveat is None:
            return self._certain(self.everybody)
        sure, missing = self.holds(caveat.name, {**self.context, **caveat.parameters})
        names = (self.everybody * (name in missing) for name in self.parameters)
        return (self.everybody * (sure == 2), self.everybody * (sure > 0), *names)

    def named(self, subject: Subject, values: dict[Node, Value]) -> Value:
        """Returns whom a relationship with this subject means."""
        if subject.relation:
            return values[tuple(subject)]
        return self._certain(self.public[subject.type] if subject.id == WILDCARD else self.bit[subject])

    def opposite(self, value: Value) -> Value:
        """Returns who is not in a set."""
        sure, possible, *names = value
        return (self.everybody & ~possible, self.everybody & ~sure, *names)

    def _of(self, expression: Expression, node: Node, values: dict[Node, Value], other: dict[Node, Value]) -> Value:
        type, id, _ = node
        match expression:
            case This():
                found = [both([self.named(one, values), condition]) for one, condition in self.of.get(node, ())]
                return either([self.nobody, *found])
            case Computed(computed):
                return values[type, id, computed]
            case Itself():
                return self._certain(self.bit[Subject(type, id)])
            case Arrow(tupleset, computed, quantifier):
                found = [
                    both([values.get((subject.type, subject.id, computed), self.nobody), condition])
                    for subject, condition in self.of.get((type, id, tupleset), ())
                    if subject.id != WILDCARD
                ]
                return (both if found and quantifier is Quantifier.ALL else either)(found or [self.nobody])
            case Union(operands):
                return either([self._of(one, node, values, other) for one in operands])
            case Intersection(operands):
                return both([self._of(one, node, values, other) for one in operands])
            case Exclusion(base, subtracted):
                rest = self.opposite(self._of(subtracted, node, other, values))
                return both([self._of(base, node, values, other), rest])
        return self.nobody


def either(values: Sequence[Value]) -> Value:
    """Returns who is in one of several."""
    sets = list(values[0])
    for value in values[1:]:
        sets = [one | more for one, more in zip(sets, value, strict=True)]
    return _named(sets)


def both(values: Sequence[Value]) -> Value:
    """Returns who is in all of several."""
    sets = list(values[0])
    for value in values[1:]:
        sets = [sets[0] & value[0], sets[1] & value[1], *(a | b for a, b in zip(sets[2:], value[2:], strict=True))]
    return _named(sets)


def _named(sets: list[int]) -> Value:
    perhaps = sets[1] & ~sets[0]
    return (sets[0], sets[1], *(one & perhaps for one in sets[2:]))
