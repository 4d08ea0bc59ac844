"""Whether a relation can have anybody at all: its entry points.

Not here: other rules (`validate.py`).
Invariant: the answer is the least fixed point, so relations that only lead to each other have none. What is taken
away counts too: OpenFGA refuses `a but not b` where nobody can be in `b`.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping

from cupola.access.schema.model import (
    Arrow,
    Computed,
    Definition,
    Exclusion,
    Expression,
    Intersection,
    Relation,
    This,
    Union,
)

Key = tuple[str, str]
"""A type and a relation of it."""


class Entries:
    """The relations of a schema that have an entry point.

    Args:
        types: definitions by name.
    """

    def __init__(self, types: Mapping[str, Definition]):
        self._relations: dict[Key, Relation] = {
            (type, relation.name): relation for type, definition in types.items() for relation in definition
        }
        self._found: set[Key] = set()
        readers: dict[Key, list[Key]] = defaultdict(list)
        for key, relation in self._relations.items():
            for read in self._reads(key, relation.rewrite):
                readers[read].append(key)
        waiting = list(self._relations)
        while waiting:
            key = waiting.pop()
            if key not in self._found and self._enters(key, self._relations[key].rewrite):
                self._found.add(key)
                waiting += readers[key]
        self._circling = self._circles()

    def has(self, type: str, relation: str) -> bool:
        """Returns whether somebody can have the relation."""
        return (type, relation) in self._found

    def loops(self, type: str, relation: str) -> bool:
        """Returns whether what keeps a relation from having an entry point leads into a circle on the same object."""
        return (type, relation) in self._circling

    def _circles(self) -> set[Key]:
        """Returns the relations left when those are taken away, time and again, that nothing left hinders."""
        hinders: dict[Key, list[Key]] = defaultdict(list)
        left: dict[Key, int] = {}
        for key in self._relations.keys() - self._found:
            by = {
                (key[0], name) for name in self._hindrances(key, self._relations[key].rewrite)
            } & self._relations.keys()
            left[key] = len(by)
            for each in by:
                hinders[each].append(key)
        free = [key for key, count in left.items() if not count]
        while free:
            key = free.pop()
            del left[key]
            for each in hinders[key]:
                left[each] -= 1
                if not left[each]:
                    free.append(each)
        return set(left)

    def _enters(self, key: Key, expression: Expression) -> bool:
        match expression:
            case This():
                allowed = self._relations[key].allowed
                return any(not each.relation or (each.type, each.relation) in self._found for each in allowed)
            case Computed() | Arrow():
                return any(read in self._found for read in self._reads(key, expression))
            case Union(operands):
                return any(self._enters(key, operand) for operand in operands)
            case Intersection(operands):
                return all(self._enters(key, operand) for operand in operands)
            case Exclusion(base, subtracted):
                return self._enters(key, base) and self._enters(key, subtracted)
        return False

    def _reads(self, key: Key, expression: Expression) -> Iterator[Key]:
        """Yields the relations whose members a rewrite takes in."""
        type = key[0]
        match expression:
            case This():
                yield from ((each.type, each.relation) for each in self._relations[key].allowed if each.relation)
            case Computed(name):
                yield type, name
            case Arrow(tupleset, computed):
                if (type, tupleset) in self._relations:
                    yield from ((each.type, computed) for each in self._relations[type, tupleset].allowed)
            case Union(operands) | Intersection(operands):
                for operand in operands:
                    yield from self._reads(key, operand)
            case Exclusion(base, subtracted):
                yield from self._reads(key, base)
                yield from self._reads(key, subtracted)

    def _hindrances(self, key: Key, expression: Expression) -> Iterator[str]:
        """Yields the relations of the same object for want of which a rewrite has no entry point."""
        match expression:
            case Computed(name):
                yield name
            case Union(operands):
                for operand in operands:
                    yield from self._hindrances(key, operand)
            case Intersection(operands):
                yield from self._hindrances(key, next(x for x in operands if not self._enters(key, x)))
            case Exclusion(base, subtracted):
                yield from self._hindrances(key, subtracted if self._enters(key, base) else base)
