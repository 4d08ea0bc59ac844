"""Small random worlds (a schema with relationships), and the plainest way to answer questions about them."""

import itertools
import random
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from cupola.access.decision import Verdict
from cupola.access.relation import WILDCARD, Caveated, Filter, Object, Relationship, Subject
from cupola.access.schema.model import (
    Allowed,
    Arrow,
    Computed,
    Definition,
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

IDS = ("a", "b", "c")
STRANGER = "stranger"
"""An id that no relationship names."""
VERDICTS = {"sure": Verdict.YES, "never": Verdict.NO, "depends": Verdict.CONDITIONAL}
RANK = {Verdict.NO: 0, Verdict.CONDITIONAL: 1, Verdict.YES: 2}


def condition(relationship: Relationship) -> tuple[Verdict, tuple[str, ...]]:
    """Answers the caveats of these worlds, whose names say what they are."""
    verdict = Verdict.YES if relationship.caveat is None else VERDICTS[relationship.caveat.name]
    return verdict, ("hour",) if verdict is Verdict.CONDITIONAL else ()


class Table:
    """A snapshot: a list of relationships and three dictionaries."""

    def __init__(self, relationships: Sequence[Relationship], revision: int = 1):
        self.revision = revision
        self.all = sorted(relationships, key=lambda one: one.key)
        self._keys = {one.key: one for one in self.all}
        self._forward, self._reverse = defaultdict(list), defaultdict(list)
        for one in self.all:
            self._forward[one.object, one.relation].append(one)
            self._reverse[one.subject, one.object.type, one.relation].append(one)

    def find(self, object: Object, relation: str, subject: Subject) -> Relationship | None:
        return self._keys.get((object, relation, subject))

    def subjects(self, object: Object, relation: str) -> Sequence[Relationship]:
        return self._forward.get((object, relation), [])

    def indirect(self, object: Object, relation: str) -> Sequence[Relationship]:
        return [one for one in self.subjects(object, relation) if one.subject.relation or one.subject.id == WILDCARD]

    def objects(self, subject: Subject, type: str, relation: str) -> Sequence[Relationship]:
        return self._reverse.get((subject, type, relation), [])

    def read(
        self, filter: Filter, *, after: Relationship | None = None, limit: int | None = None
    ) -> Sequence[Relationship]:
        found = [one for one in self.all if filter.matches(one) and (after is None or one.key > after.key)]
        return found[:limit]


def table(*lines: str) -> Table:
    return Table([Relationship.parse(line) for line in lines])


def schema_of(*definitions: tuple[str, dict[str, tuple[Expression, tuple[Allowed, ...]]]]) -> Schema:
    return Schema(
        tuple(
            Definition(name, tuple(Relation(one, rewrite, allowed) for one, (rewrite, allowed) in relations.items()))
            for name, relations in definitions
        )
    )


def naive(schema: Schema, facts: Table, subject: Subject, ids: Sequence[str]) -> dict[tuple[Object, str], Verdict]:
    """Returns the verdict on every relation of every object: the well-founded model, by repetition alone."""
    nodes = [
        (Object(definition.name, id), relation)
        for definition in schema.definitions
        for relation in definition
        for id in ids
    ]

    def least(against: dict[tuple[Object, str], int]) -> dict[tuple[Object, str], int]:
        values = {(object, relation.name): 0 for object, relation in nodes}
        while True:
            following = {
                (object, relation.name): _rank(schema, facts, subject, object, relation, values, against)
                for object, relation in nodes
            }
            if following == values:
                return values
            values = following

    lower = {(object, relation.name): 0 for object, relation in nodes}
    while True:
        upper = least(lower)
        following = least(upper)
        if following == lower:
            return {node: verdict for node, rank in lower.items() for verdict in Verdict if RANK[verdict] == rank}
        lower = following


def _rank(schema, facts, subject, object, relation, values, against) -> int:
    if subject == Subject(*object, relation.name):
        return 2

    def rank(expression: Expression, values, against) -> int:
        match expression:
            case This():
                found = [0]
                for one in facts.subjects(object, relation.name):
                    same = one.subject == subject
                    public = one.subject == Subject(subject.type, WILDCARD) and not subject.relation
                    inner = 2 if same or public else values.get((one.subject.object, one.subject.relation), 0)
                    found.append(min(inner, RANK[condition(one)[0]]))
                return max(found)
            case Computed(name):
                return values.get((object, name), 0)
            case Arrow(tupleset, computed, quantifier):
                found = [
                    min(values.get((one.subject.object, computed), 0), RANK[condition(one)[0]])
                    for one in facts.subjects(object, tupleset)
                ]
                return (max if quantifier is Quantifier.ANY else min)(found, default=0)
            case Itself():
                return 2 if subject == Subject(*object) else 0
            case Union(operands):
                return max(rank(operand, values, against) for operand in operands)
            case Intersection(operands):
                return min(rank(operand, values, against) for operand in operands)
            case Exclusion(base, subtracted):
                return min(rank(base, values, against), 2 - rank(subtracted, against, values))
        return 0

    return rank(relation.rewrite, values, against)


class World(NamedTuple):
    schema: Schema
    facts: Table


def world(seed: int, *, conditions: bool = True, exclusions: bool = True) -> World:
    """Returns a random world; without exclusions, its schema has unions of relations and arrows alone."""
    chance = random.Random(seed)
    names = {"user": ["friend", "near"], "group": ["member", "lead", "all"], "doc": ["up", "reader", "view", "edit"]}
    usersets = [(type, name) for type, several in names.items() for name in several]

    def allowed(types: Sequence[str]) -> tuple[Allowed, ...]:
        kinds = [Allowed(type) for type in types] + [Allowed("user", wildcard=True)] * chance.randint(0, 1)
        kinds += [Allowed(*pair) for pair in chance.sample(usersets, chance.randint(0, 3))]
        if conditions:
            kinds += [
                Allowed(one.type, one.relation, one.wildcard, caveat=name)
                for one in chance.sample(kinds, 1)
                for name in VERDICTS
            ]
        return tuple(dict.fromkeys(kinds))

    def expression(type: str, depth: int) -> Expression:
        kind = chance.randrange(12 if exclusions else 8)
        if depth == 0 or kind < 4:
            return Computed(chance.choice(names[type]))
        if kind < 7:
            tupleset = {"user": "friend", "group": "lead", "doc": "up"}[type]
            quantifier = Quantifier.ALL if exclusions and chance.random() < 0.3 else Quantifier.ANY
            return Arrow(tupleset, chance.choice([*names["group"], *names["doc"], "near"]), quantifier)
        if kind == 7:
            return chance.choice([Nil(), Itself()])
        operands = tuple(expression(type, depth - 1) for _ in range(2))
        return Exclusion(*operands) if kind == 8 else Intersection(operands) if kind == 9 else Union(operands)

    def union(type: str) -> Expression:
        return expression(type, 2) if exclusions else Union(tuple(expression(type, 0) for _ in range(2)))

    schema = schema_of(
        ("user", {"friend": (This(), allowed(["user"])), "near": (union("user"), ())}),
        (
            "group",
            {
                "member": (This(), allowed(["user"])),
                "lead": (This(), (Allowed("user"), Allowed("group"))),
                "all": (union("group"), ()),
            },
        ),
        (
            "doc",
            {
                "up": (This(), (Allowed("doc"), Allowed("group"))),
                "reader": (chance.choice([This(), Union((This(), union("doc")))]), allowed(["user", "group"])),
                "view": (expression("doc", 3) if exclusions else union("doc"), ()),
                "edit": (union("doc"), ()),
            },
        ),
    )
    return World(schema, Table(_relationships(schema, chance, chance.randint(4, 24))))


def _relationships(schema: Schema, chance: random.Random, count: int) -> list[Relationship]:
    writable = [(definition.name, one) for definition in schema.definitions for one in definition if one.allowed]
    found = {}
    for _ in range(count):
        type, relation = chance.choice(writable)
        kind = chance.choice(relation.allowed)
        subject = Subject(kind.type, WILDCARD if kind.wildcard else chance.choice(IDS), kind.relation)
        caveat = Caveated(kind.caveat) if kind.caveat else None
        one = Relationship(Object(type, chance.choice(IDS)), relation.name, subject, caveat)
        found[one.key] = one
    return list(found.values())


def everything(schema: Schema) -> list[tuple[str, str]]:
    """Returns all pairs of a type and a relation."""
    return [(definition.name, relation.name) for definition in schema.definitions for relation in definition]


def subjects(schema: Schema) -> list[Subject]:
    """Returns every subject that there could be, one that nobody names too."""
    kinds = [*((definition.name, "") for definition in schema.definitions), *everything(schema)]
    return [Subject(type, id, relation) for (type, relation), id in itertools.product(kinds, (*IDS, STRANGER))]


def in_time() -> None:
    """There is time without end."""
