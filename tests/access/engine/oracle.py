"""A naive evaluator of whole graphs: simple, slow, and written without a look at the engine.

Every value is a pair: how sure it is (0 no, 1 perhaps, 2 yes), and what is missing. All pairs of object and relation
are evaluated again and again until nothing changes, for the certain and the possible side of each.
"""

from cupola.access.schema.model import (
    Arrow,
    Computed,
    Exclusion,
    Intersection,
    Itself,
    Quantifier,
    This,
    Union,
)

NO, PERHAPS, YES = 0, 1, 2


class Oracle:
    """All answers about one subject.

    Args:
        relationships: stored ones and those that the question brings.
        holds: (caveat name, parameters) -> (0, 1 or 2, missing names).
    """

    def __init__(self, schema, relationships, subject, now, context, holds):
        self.schema, self.subject, self.context, self.holds = schema, subject, context, holds
        self.facts = [one for one in relationships if self.counts(one, now)]
        ids = {(one.object.type, one.object.id) for one in self.facts}
        ids |= {(one.subject.type, one.subject.id) for one in self.facts} | {(subject.type, subject.id)}
        self.ids = ids
        self.nodes = [(type, id, name) for type, id in sorted(ids) for name in self.names(type)]
        self.possible = {}
        self.certain = dict.fromkeys(self.nodes, (NO, frozenset()))
        while True:
            self.possible = self.least(self.certain)
            before = self.certain
            self.certain = self.least(self.possible)
            if all(before[node][0] == self.certain[node][0] for node in self.nodes):
                break
        self.name()

    def answer(self, object, relation):
        if (object.type, object.id) not in self.ids:
            return NO, frozenset()
        return self.certain[object.type, object.id, relation]

    def names(self, type):
        definition = self.schema.types.get(type)
        return [] if definition is None else [relation.name for relation in definition]

    def counts(self, one, now):
        relation = self.schema.relation(one.object.type, one.relation)
        if relation is None or (one.expires_seconds is not None and one.expires_seconds <= now):
            return False
        return any(
            (allowed.type, allowed.relation, allowed.wildcard) == (*one.subject[::2], one.subject.id == "*")
            and allowed.caveat == (one.caveat.name if one.caveat else "")
            and allowed.expires == (one.expires_seconds is not None)
            for allowed in relation.allowed
        )

    def least(self, other):
        values = dict.fromkeys(self.nodes, (NO, frozenset()))
        while True:
            new = {node: (self.of(node, values, other)[0], frozenset()) for node in self.nodes}
            if new == values:
                return values
            values = new

    def name(self):
        """Finds the missing names last: the least sets that satisfy both sides."""
        sides = [
            {node: (value[0], frozenset()) for node, value in side.items()} for side in (self.certain, self.possible)
        ]
        while True:
            new = [
                {
                    node: (
                        side[node][0],
                        self.of(node, side, sides[1 - i])[1] if side[node][0] == PERHAPS else frozenset(),
                    )
                    for node in self.nodes
                }
                for i, side in enumerate(sides)
            ]
            if new == sides:
                self.certain, self.possible = sides
                return
            sides = new

    def of(self, node, values, other):
        type, _, name = node
        if node == tuple(self.subject):
            return YES, frozenset()
        return self.expression(self.schema.relation(type, name).rewrite, node, values, other)

    def condition(self, one):
        if one.caveat is None:
            return YES, frozenset()
        return self.holds(one.caveat.name, {**self.context, **one.caveat.parameters})

    def of_object(self, object, relation):
        return [one for one in self.facts if tuple(one.object) == object and one.relation == relation]

    def expression(self, expression, node, values, other):
        type, id, name = node
        match expression:
            case This():
                found = []
                for one in self.of_object((type, id), name):
                    if one.subject == self.subject or (
                        one.subject.id == "*" and one.subject.type == self.subject.type and not self.subject.relation
                    ):
                        found.append(self.condition(one))
                    elif one.subject.relation:
                        found.append(both([self.condition(one), values.get(tuple(one.subject), (NO, frozenset()))]))
                return either(found)
            case Computed(other_name):
                return values.get((type, id, other_name), (NO, frozenset()))
            case Itself():
                return (YES if tuple(self.subject) == (type, id, "") else NO), frozenset()
            case Arrow(tupleset, computed, quantifier):
                found = [
                    both(
                        [
                            self.condition(one),
                            values.get((one.subject.type, one.subject.id, computed), (NO, frozenset())),
                        ]
                    )
                    for one in self.of_object((type, id), tupleset)
                    if one.subject.id != "*"
                ]
                if quantifier is Quantifier.ALL:
                    return both(found) if found else (NO, frozenset())
                return either(found)
            case Union(operands):
                return either([self.expression(one, node, values, other) for one in operands])
            case Intersection(operands):
                return both([self.expression(one, node, values, other) for one in operands])
            case Exclusion(base, subtracted):
                sure, missing = self.expression(subtracted, node, other, values)
                return both([self.expression(base, node, values, other), (YES - sure, missing)])
        return NO, frozenset()


def either(values):
    sure = max((value[0] for value in values), default=NO)
    return sure, _missing(values, sure)


def both(values):
    sure = min((value[0] for value in values), default=YES)
    return sure, _missing(values, sure)


def _missing(values, sure):
    return frozenset().union(*(value[1] for value in values if value[0] == PERHAPS)) if sure == PERHAPS else frozenset()
