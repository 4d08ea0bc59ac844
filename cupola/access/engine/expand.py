"""The tree of who has a permission.

Not here: who is in the groups at its leaves; whoever wants to know expands them.
Invariant: a leaf is the relationships of one relation; a node that lies on its own way again is an empty leaf there,
which changes nothing, as nobody is in it by way of itself alone.
Source: Pang et al. 2019, "Zanzibar", section 2.4.5.
"""

from collections.abc import Generator
from typing import NamedTuple

from cupola.access.engine.at import Node
from cupola.access.engine.check import Asking
from cupola.access.engine.compile import Compiled
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

UNION, INTERSECTION, EXCLUSION = "union", "intersection", "exclusion"


class _Place(NamedTuple):
    """A relation or permission of an object."""

    object: Object
    relation: str


Making = Generator[_Place, Node, Node]
"""Makes a node: yields the places whose nodes it needs, and is sent them."""


def expand(compiled: Compiled, asking: Asking, object: Object, permission: str) -> Node:
    """Returns the tree of a permission. What arrows lead to is in it, what groups lead to is not.

    Raises:
        UnknownName: the schema has no such type, relation or permission.
        Late: the time is over.
    """
    compiled.require(object.type, permission, Subject(object.type, object.id, permission))
    done: dict[_Place, Node] = {}
    depth: dict[_Place, int] = {}
    way: list[tuple[_Place, Making]] = []
    # For each place on the way, how far up the highest place is that was met again below it.
    highest: list[int] = []
    wanted: _Place | None = _Place(object, permission)
    node = Node(object, permission)
    while True:
        asking.on_time()
        if wanted is not None:
            depth[wanted] = len(way)
            highest.append(len(way))
            way.append((wanted, _place(compiled, asking, wanted)))
        place, making = way[-1]
        try:
            request = making.send(node) if wanted is None else next(making)
        except StopIteration as end:
            node, wanted = end.value, None
            way.pop()
            met = highest.pop()
            if met >= depth.pop(place):
                done[place] = node
            else:
                # It was cut short by a place above: elsewhere it would be another tree.
                highest[-1] = min(highest[-1], met)
            if not way:
                return node
            continue
        wanted = None
        if request in done:
            node = done[request]
        elif request in depth:
            highest[-1] = min(highest[-1], depth[request])
            node = Node(*request)
        else:
            wanted = request


def _place(compiled: Compiled, asking: Asking, place: _Place) -> Making:
    rewrite = compiled.relations[place.object.type, place.relation].rewrite
    return (yield from _expression(compiled, asking, place, rewrite))


def _expression(compiled: Compiled, asking: Asking, place: _Place, expression: Expression) -> Making:
    object, relation = place
    operands: tuple[Expression, ...]
    match expression:
        case This():
            return Node(object, relation, relationships=tuple(asking.facts.subjects(object, relation)))
        case Itself():
            return Node(object, relation, relationships=(Relationship(object, relation, Subject(*object)),))
        case Computed(name):
            return (yield _Place(object, name))
        case Arrow(tupleset, computed, quantifier):
            operator = UNION if quantifier is Quantifier.ANY else INTERSECTION
            children = []
            for one in asking.facts.subjects(object, tupleset):
                type, id, _ = one.subject
                if id == WILDCARD:
                    continue
                through = one if one.caveat is not None else None
                if (type, computed) in compiled.relations:
                    child = yield _Place(Object(type, id), computed)
                    children.append(child._replace(through=through))
                elif quantifier is Quantifier.ALL:
                    children.append(Node(Object(type, id), computed, through=through))
            return Node(object, relation, operator, tuple(children)) if children else Node(object, relation)
        case Union(operands):
            operator = UNION
        case Intersection(operands):
            operator = INTERSECTION
        case Exclusion(base, subtracted):
            operator, operands = EXCLUSION, (base, subtracted)
        case _:
            return Node(object, relation)
    children = []
    for operand in operands:
        children.append((yield from _expression(compiled, asking, place, operand)))
    return Node(object, relation, operator, tuple(children))
