"""Random worlds in SpiceDB's language: a schema, relationships and questions, small and tangled.

Not here: who answers (`cupola_side.py`, `bench/peers/access_spicedb.py`).
Invariant: the same seed gives the same world. Few have a cycle; it costs SpiceDB much.
"""

import dataclasses
import random
from typing import Any

CAVEATS = {
    "one": "caveat one(x int) {\n  x == 1\n}",
    "two": "caveat two(y int) {\n  y == 1\n}",
    "both": "caveat both(x int, y int) {\n  x == 1 && y == 1\n}",
    "either": "caveat either(x int, y int) {\n  x == 1 || y > 1\n}",
    "tagged": "caveat tagged(x int, tags list<int>) {\n  x in tags\n}",
}
PAST_SECONDS, FUTURE_SECONDS = 1_600_000_000, 4_100_000_000
TYPES = ("group", "doc", "org")
PEOPLE = ("user", "robot")
IDS = "123"
NAMES = "abc"
OPERATORS = "+++&&-"

Expression = str | tuple["Expression | str", ...]
"""A name or an arrow; or operands with operators between them, which are written without parentheses: an operand
that is a tuple is written within some."""


@dataclasses.dataclass(frozen=True)
class World:
    """A schema with relationships and questions, as plain as JSON.

    Args:
        relations: (type, name, subjects) or (type, name, expression), by type.
        relationships: (object, relation, subject, (caveat, context) or None, expiration or None).
        questions: (kind, ...), see `peers/access_spicedb.py`.
        caveats: names of those of `CAVEATS` that the schema has.
        cyclic: whether there may be cycles.
    """

    types: tuple[str, ...]
    relations: tuple[tuple[str, str, Any], ...]
    relationships: tuple[tuple[Any, ...], ...]
    questions: tuple[tuple[Any, ...], ...]
    caveats: tuple[str, ...]
    cyclic: bool

    @property
    def schema(self) -> str:
        """The schema's text."""
        lines = ["use expiration", "use self", "", *(CAVEATS[name] for name in self.caveats)]
        for type in self.types:
            lines.append(f"definition {type} {{")
            for of, name, value in self.relations:
                if of == type and isinstance(value, list):
                    lines.append(f"  relation {name}: {' | '.join(value)}")
                elif of == type:
                    lines.append(f"  permission {name} = {_written(value)}")
            lines.append("}")
        return "\n".join(lines) + "\n"

    @property
    def doubtful(self) -> bool:
        """Whether a relation allows subjects of a type with a caveat or expiration, and also sets of it without."""
        for _, _, value in self.relations:
            allowed = [_kind(one) for one in value] if isinstance(value, list) else []
            for type, _, traits in allowed:
                if any(other == type and relation and traits - fewer for other, relation, fewer in allowed):
                    return True
        return False

    def message(self) -> dict[str, Any]:
        """What the engines are given."""
        return {"schema": self.schema, "relationships": self.relationships, "questions": self.questions}


def make(seed: int) -> World:
    """Returns a random world."""
    return Maker(random.Random(seed)).world()


def _kind(allowed: str) -> tuple[str, str, set[str]]:
    """Returns type, relation and traits of a kind of subject."""
    subject, _, traits = allowed.partition(" with ")
    type, _, relation = subject.partition("#")
    return type, relation, {"expiration" if one == "expiration" else "caveat" for one in traits.split(" and ") if one}


def _written(expression: Expression) -> str:
    if isinstance(expression, str):
        return expression
    parts = [f"({_written(part)})" if isinstance(part, tuple) else part for part in expression]
    return " ".join(parts)


class Maker:
    """Draws the parts of a world."""

    def __init__(self, draw: random.Random):
        self.draw = draw
        self.types = TYPES[: draw.randint(1, 3)]
        self.cyclic = draw.random() < 0.04
        self.careless = draw.random() < 0.08
        self.caveats = tuple(sorted(draw.sample(sorted(CAVEATS), draw.randint(1, 3)))) if draw.random() < 0.6 else ()
        self.expires = draw.random() < 0.3
        self.direct = {type: [f"rel{i}" for i in range(draw.randint(1, 3))] for type in self.types}
        self.public = {type: "open" for type in self.types if draw.random() < 0.4}
        self.computed = {type: [f"per{i}" for i in range(draw.randint(0, 3))] for type in self.types}

    def world(self) -> World:
        """Returns one."""
        relations: list[tuple[str, str, Any]] = []
        for type in self.types:
            relations += [(type, name, self.allowed(type, name)) for name in self.direct[type]]
            if type in self.public:
                relations.append(
                    (type, self.public[type], ["user:*" + self._traits(), *self.allowed(type, self.public[type])])
                )
            for order, name in enumerate(self.computed[type]):
                before = self.computed[type][: order + (self.cyclic and self.draw.random() < 0.2)]
                relations.append((type, name, self.expression(type, before, self.draw.choice([1, 1, 2]))))
        writable = [(type, name, one) for type, name, value in relations if isinstance(value, list) for one in value]
        relationships: dict[Any, tuple[Any, ...]] = {}
        for _ in range(self.draw.randint(3, 24)):
            one = self._relationship(*self.draw.choice(writable))
            relationships[one[:3]] = one
        questions = [self.question(kind) for kind in ["bulk"] * 8 + ["check", "resources", "subjects"] * 2 + ["expand"]]
        everything = (*PEOPLE, *self.types)
        return World(
            everything, tuple(relations), tuple(relationships.values()), tuple(questions), self.caveats, self.cyclic
        )

    def _traits(self) -> str:
        traits = []
        if self.caveats and self.draw.random() < 0.4:
            traits.append(self.draw.choice(self.caveats))
        if self.expires and self.draw.random() < 0.4:
            traits.append("expiration")
        return f" with {' and '.join(traits)}" if traits else ""

    def allowed(self, type: str, name: str) -> list[str]:
        """Returns the kinds of subjects of a relation."""
        found = []
        for _ in range(self.draw.randint(1, 4)):
            kind = self.draw.random()
            if kind < 0.45:
                subject = self.draw.choice(["user", "user", "robot"])
            elif kind < 0.65:
                subject = self.draw.choice(self.types)
            else:
                other = self.draw.choice(self.types)
                names = self.direct[other] + self.computed[other]
                if self.careless:
                    names = [*names, "open"]
                subject = f"{other}#{self.draw.choice(names)}"
            found.append(subject + self._traits())
        return list(found if self.careless else dict.fromkeys(found))

    def expression(self, type: str, before: list[str], depth: int) -> Expression:
        """Returns the expression of a permission."""
        if depth == 0 or self.draw.random() < 0.25:
            return self._leaf(type, before)
        parts: list[Any] = [self.expression(type, before, depth - 1)]
        for _ in range(self.draw.randint(1, 2)):
            parts += [self.draw.choice(OPERATORS), self.expression(type, before, depth - 1)]
        return tuple(parts)

    def _leaf(self, type: str, before: list[str]) -> str:
        kind = self.draw.random()
        if kind < 0.04:
            return self.draw.choice(["nil", "self"])
        if kind < 0.45:
            other = self.draw.choice(self.types)
            left = self.draw.choice([*self.direct[type], "open"] if self.careless else self.direct[type])
            right = self.draw.choice(self.direct[other] + self.computed[other] + ["open"] * (other in self.public))
            return self.draw.choice(["{}->{}", "{}->{}", "{}.any({})", "{}.all({})"]).format(left, right)
        names = [*self.direct[type], *before, *([self.public[type]] if type in self.public else [])]
        return self.draw.choice(names)

    def _relationship(self, type: str, name: str, allowed: str) -> tuple[Any, ...]:
        subject, _, traits = allowed.partition(" with ")
        kind, _, relation = subject.partition("#")
        id = self.draw.choice(IDS)
        if kind.endswith(":*"):
            who = (kind[:-2], "*", "")
        elif kind in PEOPLE:
            who = (kind, self.draw.choice(NAMES), "")
        else:
            # Without cycles, subjects have later ids than objects.
            later = IDS if self.cyclic else IDS[IDS.index(id) + 1 :] or "4"
            who = (kind, self.draw.choice(later), relation)
        names = traits.split(" and ") if traits else []
        expires = self.draw.choice([PAST_SECONDS, FUTURE_SECONDS, FUTURE_SECONDS]) if "expiration" in names else None
        caveat = next((one for one in names if one != "expiration"), None)
        if self.careless and self.draw.random() < 0.1:
            caveat, who = None, (who[0], who[1], "") if self.draw.random() < 0.5 else who
        return (type, id), name, who, None if caveat is None else (caveat, self._context(caveat, 0.3)), expires

    def _context(self, caveat: str, chance: float) -> dict[str, Any]:
        found: dict[str, Any] = {}
        text = CAVEATS[caveat] if caveat else "x int y int list"
        if "x int" in text and self.draw.random() < chance:
            found["x"] = self.draw.choice([1, 1, 2])
        if "y int" in text and self.draw.random() < chance:
            found["y"] = self.draw.choice([1, 1, 2])
        if "list" in text and self.draw.random() < chance:
            found["tags"] = self.draw.choice([[1], [2], [1, 2]])
        return found

    def question(self, kind: str) -> tuple[Any, ...]:
        """Returns one of a kind."""
        type = self.draw.choice(self.types)
        names = self.direct[type] + self.computed[type] * 2 + ["open"] * (type in self.public)
        name = self.draw.choice([*names, "nothing"]) if self.draw.random() < 0.02 else self.draw.choice(names)
        object = (type, self.draw.choice(IDS))
        context = self._context("", 0.3) if self.caveats else {}
        if kind == "expand":
            return kind, object, name
        other = self.draw.choice(self.types)
        relations = self.direct[other] + self.computed[other]
        who = self.draw.choice(
            [
                ("user", self.draw.choice(NAMES), ""),
                ("user", self.draw.choice(NAMES), ""),
                ("robot", self.draw.choice(NAMES), ""),
                (other, self.draw.choice(IDS), ""),
                (other, self.draw.choice(IDS), self.draw.choice(relations)),
            ]
        )
        if kind == "resources":
            return kind, type, name, who, context
        if kind == "subjects":
            return kind, object, name, who[0], who[2], context
        return kind, object, name, who, context
