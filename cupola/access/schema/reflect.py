"""What depends on what in a schema.

Not here: who has a permission (`engine/`).
Invariant: answers follow names alone, so they hold for whatever relationships are written.
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from cupola.access.errors import InvalidArgument, Named, UnknownName, meant
from cupola.access.schema.model import (
    Arrow,
    Computed,
    Exclusion,
    Expression,
    Intersection,
    Itself,
    Relation,
    Schema,
    This,
    Union,
)


class Reference(NamedTuple):
    """A relation or permission of a type.

    Args:
        relation: name; "" for objects of the type themselves.
    """

    type: str
    relation: str


def leaves(expression: Expression) -> Iterator[Expression]:
    """Yields the parts of an expression that are no operator, from left to right."""
    match expression:
        case Union(operands) | Intersection(operands):
            for operand in operands:
                yield from leaves(operand)
        case Exclusion(base, subtracted):
            yield from leaves(base)
            yield from leaves(subtracted)
        case _:
            yield expression


def computable_permissions(schema: Schema, type: str, relation: str = "") -> list[Reference]:
    """Returns the relations and permissions that some subject could have through a relation of an object, sorted.

    Args:
        type: of the object.
        relation: or permission; "" where the object itself is the subject.

    Raises:
        UnknownName: the schema has no such type or relation.
    """
    start = Reference(type, relation)
    _known(schema, start)
    relations = _relations(schema)
    users: dict[Reference, list[Reference]] = defaultdict(list)
    for target in relations:
        for source in _sources(relations, target):
            users[source].append(target)
    return _reach(start, users)


def dependent_relations(schema: Schema, type: str, permission: str) -> list[Reference]:
    """Returns the relations and permissions that a permission is computed from, sorted.

    Raises:
        UnknownName: the schema has no such type or permission.
        InvalidArgument: it is a relation.
    """
    start = Reference(type, permission)
    found = _known(schema, start)
    if found is None or isinstance(found.rewrite, This):
        raise InvalidArgument(
            f"`{permission}` of `{type}` is a relation", where="permission", remedy="Ask a permission."
        )
    relations = _relations(schema)
    sources = {target: [one for one in _sources(relations, target) if one.relation] for target in relations}
    reached = {*_reach(start, sources), start}
    for target in tuple(reached):
        for leaf in leaves(relations[target].rewrite) if target in relations else ():
            if isinstance(leaf, Arrow):
                reached.add(Reference(target.type, leaf.tupleset))
    return sorted(reached - {start})


def subject_types(schema: Schema, type: str, relation: str) -> set[str]:
    """Returns the types of the objects that can be subjects of a relation or permission in the end."""
    relations = _relations(schema)
    sources = {target: list(_sources(relations, target)) for target in relations}
    return {found.type for found in _reach(Reference(type, relation), sources) if not found.relation}


def _relations(schema: Schema) -> dict[Reference, Relation]:
    return {
        Reference(definition.name, relation.name): relation
        for definition in schema.definitions
        for relation in definition
    }


def _sources(relations: dict[Reference, Relation], target: Reference) -> Iterator[Reference]:
    """Yields whose subjects a relation takes over; not the relations that only lead there, left of an arrow."""
    relation = relations[target]
    for leaf in leaves(relation.rewrite):
        match leaf:
            case This():
                for allowed in relation.allowed:
                    yield Reference(allowed.type, allowed.relation)
            case Computed(name):
                yield Reference(target.type, name)
            case Itself():
                yield Reference(target.type, "")
            case Arrow(tupleset, computed, _):
                steps = relations.get(Reference(target.type, tupleset))
                for type in dict.fromkeys(allowed.type for allowed in steps.allowed) if steps else ():
                    step = Reference(type, computed)
                    if step in relations:
                        yield step


def _reach(start: Reference, edges: dict[Reference, list[Reference]]) -> list[Reference]:
    """Returns all that edges lead to from a start, without it, sorted."""
    found: set[Reference] = set()
    waiting = [start]
    while waiting:
        fresh = set(edges.get(waiting.pop(), ())) - found
        found |= fresh
        waiting += fresh
    return sorted(found - {start})


def _known(schema: Schema, start: Reference) -> Relation | None:
    definition = schema.types.get(start.type)
    if definition is None:
        raise UnknownName(
            f"object definition `{start.type}` not found",
            kind=Named.TYPE,
            where="type",
            remedy=meant(start.type, schema.types),
        )
    found = definition.get(start.relation) if start.relation else None
    if start.relation and found is None:
        raise UnknownName(
            f"relation/permission `{start.relation}` not found under definition `{start.type}`",
            kind=Named.RELATION,
            where="relation",
            remedy=meant(start.relation, [one.name for one in definition]),
        )
    return found
