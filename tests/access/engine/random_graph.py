"""Random schemas with relationships and questions: small, tangled, with every operator."""

import random
from typing import NamedTuple

from cupola.access.relation import Caveated, Object, Relationship, Subject
from cupola.access.schema.model import (
    Allowed,
    Arrow,
    Caveat,
    Computed,
    Definition,
    Exclusion,
    Intersection,
    Itself,
    Nil,
    Quantifier,
    Relation,
    Schema,
    This,
    Union,
)

CAVEATS = (
    Caveat("one", (("x", "int"),), "x == 1"),
    Caveat("two", (("y", "int"),), "y == 1"),
    Caveat("both", (("x", "int"), ("y", "int")), "x == 1 && y == 1"),
)
NOW = 1_000_000.0


def holds(name, parameters):
    """What the caveats above say: (0, 1 or 2, missing names)."""
    needed = {"one": ("x",), "two": ("y",), "both": ("x", "y")}[name]
    if any(parameters.get(one, 1) != 1 for one in needed):
        return 0, frozenset()
    missing = frozenset(one for one in needed if one not in parameters)
    return (1, missing) if missing else (2, missing)


class Case(NamedTuple):
    schema: Schema
    relationships: list
    questions: list


def make(seed, *, caveats=True, questions=4):
    """Returns a random case; the same for the same seed."""
    draw = random.Random(seed)
    groups = ["group", "doc", "org"][: draw.randint(1, 3)]
    names = {type: [f"r{i}" for i in range(draw.randint(1, 3))] for type in groups}
    permissions = {type: [f"p{i}" for i in range(draw.randint(0, 3))] for type in groups}
    rich = draw.random() < 0.6 and caveats
    definitions = [Definition("user"), Definition("robot")]
    for type in groups:
        relations = [Relation(name, This(), _allowed(draw, groups, names, permissions, rich)) for name in names[type]]
        for name in permissions[type]:
            rewrite = _expression(draw, type, groups, names, permissions, 3)
            relations.append(Relation(name, rewrite))
        if draw.random() < 0.2:
            allowed = _allowed(draw, groups, names, permissions, rich)
            mixed = Union((This(), _expression(draw, type, groups, names, permissions, 2)))
            relations.append(Relation("mixed", mixed, allowed))
            names[type].append("mixed")
        definitions.append(Definition(type, tuple(relations)))
    schema = Schema(tuple(definitions), CAVEATS if rich else ())
    relationships = {}
    for _ in range(draw.randint(4, 24)):
        type = draw.choice(groups)
        relation = schema.relation(type, draw.choice(names[type]))
        one = _relationship(draw, type, relation)
        relationships[one.key] = one
    asked = []
    for _ in range(questions):
        type = draw.choice(groups)
        name = draw.choice(names[type] + permissions[type])
        other = draw.choice(groups)
        subject = draw.choice(
            [
                Subject("user", draw.choice("ab")),
                Subject("user", draw.choice("ab")),
                Subject("robot", "a"),
                Subject(other, draw.choice("12")),
                Subject(other, draw.choice("12"), draw.choice(names[other] + permissions[other])),
            ]
        )
        context = {key: draw.choice([1, 1, 2]) for key in "xy" if draw.random() < 0.4}
        asked.append((Object(type, draw.choice("12")), name, subject, context))
    return Case(schema, list(relationships.values()), asked)


def _allowed(draw, groups, names, permissions, rich):
    found = []
    for _ in range(draw.randint(1, 4)):
        caveat = draw.choice(["", "", "one", "two", "both"]) if rich else ""
        expires = rich and draw.random() < 0.15
        kind = draw.random()
        if kind < 0.45:
            found.append(Allowed(draw.choice(["user", "robot"]), "", False, caveat, expires))
        elif kind < 0.5:
            found.append(Allowed("user", "", True, caveat, expires))
        elif kind < 0.6:
            found.append(Allowed(draw.choice(groups), "", False, caveat, expires))
        else:
            type = draw.choice(groups)
            found.append(Allowed(type, draw.choice(names[type] + permissions[type]), False, caveat, expires))
    return tuple(dict.fromkeys(found))


def _expression(draw, type, groups, names, permissions, depth):
    kind = draw.random()
    if depth == 0 or kind < 0.3:
        return Computed(draw.choice(names[type] + permissions[type]))
    if kind < 0.5:
        other = draw.choice(groups)
        quantifier = Quantifier.ALL if draw.random() < 0.25 else Quantifier.ANY
        return Arrow(draw.choice(names[type]), draw.choice(names[other] + permissions[other]), quantifier)
    if kind < 0.53:
        return draw.choice([Nil(), Itself()])
    parts = [_expression(draw, type, groups, names, permissions, depth - 1) for _ in range(draw.randint(2, 3))]
    if kind < 0.7:
        return Union(tuple(parts))
    return Intersection(tuple(parts)) if kind < 0.82 else Exclusion(parts[0], parts[1])


def _relationship(draw, type, relation):
    allowed = draw.choice(relation.allowed)
    id = "*" if allowed.wildcard else draw.choice("ab" if allowed.type in ("user", "robot") else "123")
    context = {key: draw.choice([1, 2]) for key in "xy" if draw.random() < 0.25}
    caveat = Caveated.of(allowed.caveat, context) if allowed.caveat else None
    expires = draw.choice([NOW - 10, NOW, NOW + 10]) if allowed.expires else None
    if draw.random() < 0.04:
        caveat = None  # what the schema does not allow (any more) does not count
    return Relationship(
        Object(type, draw.choice("12")), relation.name, Subject(allowed.type, id, allowed.relation), caveat, expires
    )
