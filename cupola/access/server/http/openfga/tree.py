"""The tree that OpenFGA's expand returns: one step deep, computed relations named and not followed.

Not here: our own expansion, which follows them (`engine/expand.py`).
"""

from collections.abc import Sequence
from typing import Any

from cupola.access.consistency import Consistency
from cupola.access.graph import Graph
from cupola.access.relation import Filter, Object, Relationship
from cupola.access.schema.model import (
    Arrow,
    Computed,
    Exclusion,
    Expression,
    Intersection,
    Itself,
    Nil,
    Relation,
    Schema,
    This,
    Union,
)
from cupola.access.server.http.openfga.tuples import allowed


def tree_of(
    graph: Graph,
    schema: Schema,
    object: Object,
    relation: str,
    extra: Sequence[Relationship],
    wanted: Consistency,
) -> dict[str, Any]:
    """Returns the root of the tree of a relation of an object.

    Args:
        relation: that the schema has.
        extra: relationships that hold in this answer only.
        wanted: at what revision.
    """
    name = f"{object}#{relation}"

    def facts(of: str) -> list[Relationship]:
        there = graph.read(Filter(type=object.type, id=object.id, relation=of), consistency=wanted)[1]
        more = [one for one in extra if one.object == object and one.relation == of]
        return allowed([*there, *more], schema)

    def node(expression: Expression) -> dict[str, Any]:
        match expression:
            case This():
                users = dict.fromkeys(str(one.subject) for one in facts(relation))
                return _leaf({"users": {"users": list(users)}})
            case Computed(computed):
                return _leaf({"computed": {"userset": f"{object}#{computed}"}})
            case Arrow(tupleset, computed):
                steps = [f"{one.subject.object}#{computed}" for one in facts(tupleset)]
                shown = {"tupleset": f"{object}#{tupleset}", "computed": [{"userset": one} for one in steps]}
                return _leaf({"tupleToUserset": shown})
            case Union(operands):
                return {"name": name, "union": {"nodes": [node(one) for one in operands]}}
            case Intersection(operands):
                return {"name": name, "intersection": {"nodes": [node(one) for one in operands]}}
            case Exclusion(base, subtracted):
                return {"name": name, "difference": {"base": node(base), "subtract": node(subtracted)}}
            case Itself():
                return _leaf({"users": {"users": [str(object)]}})
            case Nil():
                return _leaf({"users": {"users": []}})

    def _leaf(leaf: dict[str, Any]) -> dict[str, Any]:
        return {"name": name, "leaf": leaf}

    return node(_of(schema, object.type, relation).rewrite)


def _of(schema: Schema, type: str, name: str) -> Relation:
    return schema.relation(type, name) or Relation(name, Nil())
