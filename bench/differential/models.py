"""Random worlds in OpenFGA's language, as `worlds.py` makes them in SpiceDB's.

Not here: who answers (`cupola_side.py`, `openfga.py`).
"""

import random
from typing import Any

from differential.worlds import TYPES, Expression, Maker

CONDITIONS = {
    "one": "condition one(x: int) {\n  x == 1\n}",
    "two": "condition two(y: int) {\n  y == 1\n}",
    "both": "condition both(x: int, y: int) {\n  x == 1 && y == 1\n}",
}


class ModelMaker(Maker):
    """Makes worlds without what the language lacks: expiration, arrows to all, subtraction in a row."""

    def __init__(self, draw: random.Random):
        super().__init__(draw)
        self.expires = self.cyclic = self.careless = False
        self.caveats = tuple(name for name in self.caveats if name in CONDITIONS)
        self.direct = {type: [*names, "parent"] for type, names in self.direct.items()}

    def allowed(self, type: str, name: str) -> list[str]:
        """Returns who may have a relation; only objects are parents, as `from` wants it."""
        if name == "parent":
            return self.draw.sample(self.types, self.draw.randint(1, len(self.types)))
        found = super().allowed(type, name)
        return [one for one in found if "#parent" not in one] or ["user"]

    def expression(self, type: str, before: list[str], depth: int) -> Expression:
        """Returns operands with one operator between them; no more than two around `but not`."""
        if depth == 0 or self.draw.random() < 0.25:
            return self._leaf(type, before)
        operator = self.draw.choice(["or", "or", "and", "but not"])
        parts: list[Any] = [self.expression(type, before, depth - 1)]
        for _ in range(1 if operator == "but not" else self.draw.randint(1, 2)):
            parts += [operator, self.expression(type, before, depth - 1)]
        return tuple(parts)

    def _leaf(self, type: str, before: list[str]) -> str:
        names = [name for name in self.direct[type] if name != "parent"]
        if self.draw.random() < 0.35:
            other = self.draw.choice(self.types)
            return f"{self.draw.choice(self.direct[other] + self.computed[other])} from parent"
        return self.draw.choice([*names, *before, *([self.public[type]] if type in self.public else [])])


def make(seed: int) -> dict[str, Any]:
    """Returns a random model with relationships and questions; the same for the same seed."""
    maker = ModelMaker(random.Random(seed))
    world = maker.world()
    more = [maker.question(kind) for kind in ["check"] * 20 + ["resources", "subjects"] * 5]
    lines = ["model", "  schema 1.1"]
    for type in world.types:
        lines.append(f"type {type}")
        if type in TYPES:
            lines.append("  relations")
        for of, name, value in world.relations:
            if of == type:
                text = f"[{', '.join(value)}]" if isinstance(value, list) else _written(value)
                lines.append(f"    define {name}: {text}")
    lines += [CONDITIONS[name] for name in world.caveats]
    used = "\n".join(lines)
    return {"schema": used + "\n", "relationships": world.relationships, "questions": [*world.questions, *more]}


def _written(expression: Expression) -> str:
    if isinstance(expression, str):
        return expression
    return " ".join(f"({_written(part)})" if isinstance(part, tuple) else part for part in expression)
