"""Random schemas with relationships: small, tangled, with everything that the two languages can say."""

import dataclasses
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from cupola.access.relation import WILDCARD, Caveated, Object, Relationship, Subject
from cupola.access.schema.fga.printer import write_fga
from cupola.access.schema.model import (
    Allowed,
    Arrow,
    Caveat,
    Computed,
    Definition,
    Exclusion,
    Expression,
    Intersection,
    Itself,
    Language,
    Nil,
    Quantifier,
    Relation,
    Schema,
    This,
    Union,
)
from cupola.access.schema.zed.printer import write_zed

NOW = 2_000_000_000.0
PEOPLE, THINGS = ("user", "robot"), ("group", "folder", "org")
IDS = {**dict.fromkeys(PEOPLE, ("ada", "bob", "stranger")), **dict.fromkeys(THINGS, ("x1", "x2", "x3"))}
"""Relationships are of the first two, and have the last of people for no subject."""
PARAMETERS = ("hour", "zone")
CAVEATS = {
    "early": ("hour == 1", ("hour",)),
    "near": ("zone == 1", ("zone",)),
    "early_and_near": ("hour == 1 && zone == 1", PARAMETERS),
    "early_or_near": ("hour == 1 || zone == 1", PARAMETERS),
}


def holds(name: str, given: Mapping[str, Any]) -> tuple[int, frozenset[str]]:
    """Returns what a caveat says: 0, 1 (perhaps) or 2, and the parameters that are missing."""
    used = CAVEATS[name][1]
    told = [given[one] == 1 if one in given else None for one in used]
    decisive = name == "early_or_near"
    if decisive in told:
        return 2 * decisive, frozenset()
    missing = frozenset(one for one, says in zip(used, told, strict=True) if says is None)
    return (1, missing) if missing else (2 * (not decisive), missing)


class Case(NamedTuple):
    """A schema, and what is written under it.

    Args:
        writes: each is what is to be touched and what is to be deleted, at one revision.
    """

    schema: Schema
    text: str
    writes: list[tuple[list[Relationship], list[Relationship]]]

    @property
    def parameters(self) -> tuple[str, ...]:
        """What its caveats take."""
        return PARAMETERS if self.schema.caveats else ()

    @property
    def kinds(self) -> list[tuple[str, str]]:
        """Types and their relations."""
        return [(definition.name, relation.name) for definition in self.schema.definitions for relation in definition]

    def state(self, writes: int) -> list[Relationship]:
        """Returns the relationships after so many writes."""
        found = {}
        for touched, deleted in self.writes[:writes]:
            found |= {one.key: one for one in touched}
            for one in deleted:
                found.pop(one.key, None)
        return list(found.values())

    def smaller(self) -> Iterator["Case"]:
        """Yields the case without one write, one relationship or one relation at a time."""
        for at, (touched, deleted) in enumerate(self.writes):
            yield self._replace(writes=self.writes[:at] + self.writes[at + 1 :])
            for one in (*touched, *deleted):
                kept = [other for other in touched if other != one], [other for other in deleted if other != one]
                yield self._replace(writes=[*self.writes[:at], kept, *self.writes[at + 1 :]])
        definitions = self.schema.definitions
        for at, definition in enumerate(definitions):
            for relation in definition:
                left = Definition(definition.name, tuple(one for one in definition if one is not relation))
                schema = dataclasses.replace(self.schema, definitions=(*definitions[:at], left, *definitions[at + 1 :]))
                yield self._replace(schema=schema, text=written(schema))

    def dump(self, *questions: str) -> str:
        """Returns the case as the text of a validation file."""
        indent = "\n  "
        schema = indent.join(self.text.splitlines())
        told = [f"// write {at}:{indent}" + indent.join([*map(str, touched), *(f"// gone: {one}" for one in deleted)])
                for at, (touched, deleted) in enumerate(self.writes)]  # fmt: skip
        return f"schema: |-{indent}{schema}\nrelationships: |-{indent}{indent.join(told)}\n# " + "\n# ".join(questions)


def make(draw: random.Random) -> Case:
    """Returns a random case; the same for the same draws."""
    language = Language.FGA if draw.random() < 0.25 else Language.ZED
    maker = _Maker(draw, language, with_caveats=draw.random() < 0.7)
    schema = maker.schema()
    return Case(schema, written(schema), maker.writes(schema))


def written(schema: Schema) -> str:
    """Returns the text of a schema in its language."""
    return write_zed(schema) if schema.language is Language.ZED else write_fga(schema)


class _Maker:
    def __init__(self, draw: random.Random, language: Language, with_caveats: bool):
        self.draw, self.zed, self.with_caveats = draw, language is Language.ZED, with_caveats
        self.language = language
        # Groups of groups alone are what the index is for.
        self.nested = draw.random() < 0.4
        self.types = THINGS[: draw.randint(1, 3)]
        self.relations = {type: [f"rel{i}" for i in range(draw.randint(1, 3))] for type in self.types}
        # Wildcards may not stand where an arrow starts, nor come with a userset: they have relations of their own.
        self.public = {type: ["open"] if draw.random() < 0.4 else [] for type in self.types}
        self.mixed = {type: ["mixed"] if not self.zed and draw.random() < 0.4 else [] for type in self.types}
        # OpenFGA's arrows start at relations to objects of one type that has what they lead to.
        self.parent = {type: draw.choice(self.types) for type in self.types}
        self.permissions = {type: [f"can{i}" for i in range(draw.randint(0, 3))] for type in self.types}

    def names(self, type: str) -> list[str]:
        return [*self.relations[type], *self.public[type], *self.mixed[type], *self.permissions[type]]

    def schema(self) -> Schema:
        definitions = [Definition(type) for type in PEOPLE]
        for type in self.types:
            found = [Relation(name, This(), self.allowed(type, public=False)) for name in self.relations[type]]
            if not self.zed and not (self.nested and type == "group"):
                found[0] = Relation("rel0", This(), (Allowed(self.parent[type], "", False, self.caveat()),))
            found += [Relation(name, This(), self.allowed(type, public=True)) for name in self.public[type]]
            for name in self.mixed[type]:
                rewrite = Union((This(), self.expression(type, 2)))
                found.append(Relation(name, rewrite, self.allowed(type, public=self.draw.random() < 0.3)))
            found += [Relation(name, self.expression(type, 3)) for name in self.permissions[type]]
            definitions.append(Definition(type, tuple(found)))
        met = {one.caveat for definition in definitions for relation in definition for one in relation.allowed}
        caveats = tuple(
            Caveat(name, tuple((one, "int") for one in used), text)
            for name, (text, used) in CAVEATS.items()
            if name in met
        )
        uses = ("expiration", "self") if self.zed else ()
        return Schema(tuple(definitions), caveats, self.language, "" if self.zed else "1.1", uses)

    def allowed(self, type: str, *, public: bool) -> tuple[Allowed, ...]:
        draw, found = self.draw, []
        if self.nested and type == "group" and not public:
            named = [Allowed("group", draw.choice(self.relations[type])) for _ in range(draw.randint(1, 2))]
            return tuple(dict.fromkeys([*map(Allowed, PEOPLE), *named]))
        if public:
            found.append(
                Allowed(draw.choice(["user", "user", "robot", draw.choice(self.types)]), "", True, self.caveat())
            )
        for _ in range(draw.randint(1, 4)):
            caveat, expires = self.caveat(), self.zed and draw.random() < 0.15
            kind = draw.random()
            if kind < 0.4:
                found.append(Allowed(draw.choice(PEOPLE), "", False, caveat, expires))
            elif kind < 0.6:
                found.append(Allowed(draw.choice(self.types), "", False, caveat, expires))
            else:
                other = draw.choice(self.types)
                named = self.names(other)
                if self.zed and other != type:
                    named = [*self.relations[other], *self.permissions[other]]
                found.append(Allowed(other, draw.choice(named), False, caveat, expires))
        return tuple(dict.fromkeys(found))

    def caveat(self) -> str:
        return self.draw.choice(["", "", *CAVEATS]) if self.with_caveats and self.draw.random() < 0.9 else ""

    def expression(self, type: str, depth: int) -> Expression:
        draw, kind = self.draw, self.draw.random()
        if depth == 0 or kind < 0.25:
            return Computed(draw.choice(self.names(type)))
        if kind < 0.47 and not self.zed:
            if self.nested and type == "group":
                return Computed("rel0")
            return Arrow("rel0", draw.choice(self.names(self.parent[type])))
        if kind < 0.47:
            other = draw.choice(self.types)
            quantifier = Quantifier.ALL if draw.random() < 0.3 else Quantifier.ANY
            return Arrow(draw.choice(self.relations[type]), draw.choice(self.names(other)), quantifier)
        if kind < 0.51 and self.zed:
            return draw.choice([Nil(), Itself()])
        parts = tuple(self.expression(type, depth - 1) for _ in range(draw.randint(2, 3)))
        if len(set(parts)) < len(parts):
            return parts[0]
        if kind < 0.68:
            return Union(parts)
        return Intersection(parts) if kind < 0.82 else Exclusion(*parts[:2])

    def writes(self, schema: Schema) -> list[tuple[list[Relationship], list[Relationship]]]:
        draw, found, there = self.draw, [], {}
        writable = [(d.name, relation) for d in schema.definitions for relation in d if relation.allowed]
        for _ in range(draw.choice([1, 2, 4])):
            touched = {}
            for _ in range(draw.randint(2, 12)):
                one = self.relationship(*draw.choice(writable))
                touched[one.key] = one
            gone = [one for key, one in there.items() if key not in touched and draw.random() < 0.3]
            found.append((list(touched.values()), gone))
            there = {key: one for key, one in (there | touched).items() if one not in gone}
        return found

    def relationship(self, type: str, relation: Relation) -> Relationship:
        draw = self.draw
        allowed = draw.choice(relation.allowed)
        id = WILDCARD if allowed.wildcard else draw.choice(IDS[allowed.type][: 2 if allowed.type in PEOPLE else 3])
        given = {name: draw.choice([1, 2]) for name in PARAMETERS if draw.random() < 0.3}
        caveat = None
        if allowed.caveat:
            used = CAVEATS[allowed.caveat][1]
            caveat = Caveated.of(allowed.caveat, {name: one for name, one in given.items() if name in used})
        expires = draw.choice([NOW - 10, NOW, NOW + 10, NOW + 10]) if allowed.expires else None
        subject = Subject(allowed.type, id, allowed.relation)
        return Relationship(Object(type, draw.choice(IDS[type][:2])), relation.name, subject, caveat, expires)


def contexts(draw: random.Random) -> Sequence[dict[str, int]]:
    """Returns two contexts of questions: one that says nothing, one that says something."""
    return {}, {name: draw.choice([1, 1, 2]) for name in PARAMETERS if draw.random() < 0.6}
