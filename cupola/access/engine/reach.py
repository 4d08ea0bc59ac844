"""Which relations lead to which: the graph of a schema, walked backwards from subjects to objects.

Not here: relationships (`lookup_resources.py`).
Invariant: whoever has a relation has it at the end of a chain of leads from himself; not every chain gives it,
unless all its leads are certain. Of an intersection only the first part leads on, of an exclusion only the base:
nobody is in the whole who is not in these.
"""

import functools
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from cupola.access.errors import Named, UnknownName, meant
from cupola.access.relation import WILDCARD
from cupola.access.schema.model import (
    Arrow,
    Computed,
    Exclusion,
    Expression,
    Intersection,
    Itself,
    Quantifier,
    Relation,
    Schema,
    This,
    Union,
)

Pair = tuple[str, str]
"""A type and its relation or permission; as a kind of subject, the relation may be "" or `*`."""


class Lead(NamedTuple):
    """One step from a kind of subject towards the objects on which it has something.

    Args:
        pair: what the step gives.
        tupleset: whose relationships it follows from a subject to objects; "": it stays at the object.
        relation: of the subject in these relationships: "", a relation, or `*` for the wildcard.
        certain: whether the step alone gives it, where the relationship has no condition.
    """

    pair: Pair
    tupleset: str
    relation: str
    certain: bool


class Reach:
    """The leads of a schema.

    Args:
        schema: a valid one.
    """

    def __init__(self, schema: Schema):
        self.relations: Mapping[Pair, Relation] = MappingProxyType(
            {(definition.name, relation.name): relation for definition in schema.definitions for relation in definition}
        )
        leads: dict[Pair, dict[Lead, None]] = {}
        for pair, relation in self.relations.items():
            for start, lead in self._leads(pair, relation):
                leads.setdefault(start, {})[lead] = None
        self.leads: Mapping[Pair, tuple[Lead, ...]] = MappingProxyType(
            {start: tuple(several) for start, several in leads.items()}
        )

    def require(self, type: str, name: str) -> Pair:
        """Returns the pair of a relation or permission.

        Raises:
            UnknownName: the schema does not have it.
        """
        if (type, name) not in self.relations:
            known = [relation for owner, relation in self.relations if owner == type]
            raise UnknownName(
                f"the schema has no relation or permission {name!r} of type {type!r}",
                kind=Named.RELATION if known else Named.TYPE,
                where=f"{type}#{name}",
                remedy=meant(name, known) or f"It has {', '.join(known)}."
                if known
                else "Write a schema with this type first.",
            )
        return type, name

    def into(self, target: Pair) -> frozenset[Pair]:
        """Returns the pairs that lead to one, and that one."""
        before: dict[Pair, list[Pair]] = {}
        for start, leads in self.leads.items():
            for lead in leads:
                before.setdefault(lead.pair, []).append(start)
        return _closure([target], before)

    def out_of(self, starts: Iterable[Pair]) -> frozenset[Pair]:
        """Returns the pairs to which some lead, and those."""
        return _closure(starts, {start: [lead.pair for lead in leads] for start, leads in self.leads.items()})

    def _leads(self, pair: Pair, relation: Relation) -> Iterable[tuple[Pair, Lead]]:
        """Yields (start, lead) for each lead into a pair."""
        type = pair[0]
        parts: list[tuple[Expression, bool]] = [(relation.rewrite, True)]
        while parts:
            part, certain = parts.pop()
            match part:
                case This():
                    for allowed in relation.allowed:
                        kind = WILDCARD if allowed.wildcard else allowed.relation
                        yield (allowed.type, kind), Lead(pair, relation.name, kind, certain)
                case Itself():
                    yield (type, ""), Lead(pair, "", "", certain)
                case Computed(name):
                    yield (type, name), Lead(pair, "", "", certain)
                case Arrow(tupleset, computed, quantifier):
                    source = self.relations.get((type, tupleset))
                    for allowed in source.allowed if source is not None else ():
                        if (allowed.type, computed) in self.relations and not allowed.wildcard:
                            enough = certain and quantifier is Quantifier.ANY
                            yield (allowed.type, computed), Lead(pair, tupleset, allowed.relation, enough)
                case Union(operands):
                    parts += ((operand, certain) for operand in operands)
                case Intersection(operands):
                    parts += ((operand, certain and len(operands) == 1) for operand in operands[:1])
                case Exclusion(base, _):
                    parts.append((base, False))


@functools.lru_cache(maxsize=64)
def reach_of(schema: Schema) -> Reach:
    """Returns the leads of a schema, which are kept."""
    return Reach(schema)


def _closure(starts: Iterable[Pair], edges: Mapping[Pair, Iterable[Pair]]) -> frozenset[Pair]:
    found, pending = set(starts), list(starts)
    while pending:
        for pair in edges.get(pending.pop(), ()):
            if pair not in found:
                found.add(pair)
                pending.append(pair)
    return frozenset(found)
