"""What stands behind `define NAME:`: type restrictions and the operators over them.

Not here: the rest of the grammar (`parser.py`).
Invariant: type restrictions stand at most once, in the first place; `or`, `and` and `but not` mix only in brackets.
Source: openfga/language, OpenFGAParser.g4, relationDef.
"""

import enum
from collections.abc import Iterator

from cupola.access.schema.fga.cursor import Cursor, Lost
from cupola.access.schema.fga.errors import Places
from cupola.access.schema.fga.lexer import BUT_NOT, NAME, NAMES, NEWLINE, SPACE, Word
from cupola.access.schema.model import Allowed, Arrow, Computed, Exclusion, Expression, Intersection, This, Union

DEEPEST = 100
"""Brackets within brackets."""


class Direct(enum.Enum):
    """Whether type restrictions may stand in a place."""

    MAY = enum.auto()
    MAY_NOT = enum.auto()


class Rewrites(Cursor):
    """Reads rewrites, and notes where the names in them stand."""

    def __init__(self, words: tuple[Word, ...]):
        super().__init__(words)
        self.places: Places = {}
        self._relation_key: tuple[str, str] = ("", "")
        self._allowed: list[Allowed] = []
        self._depth = 0

    def note(self, key: tuple[str, ...], first: Word, last: Word | None = None) -> None:
        """Notes where a name stands, if it is for the first time."""
        self.places.setdefault(key, first.place._replace(end_column=(last or first).place.end_column))

    def rewrite(self, type: str, relation: str) -> tuple[Expression, tuple[Allowed, ...]]:
        """Reads what defines a relation.

        Returns:
            the rewrite, and the type restrictions in it.

        Raises:
            Lost: it is no rewrite.
        """
        self._relation_key, self._allowed, self._depth = (type, relation), [], 0
        expression = self._operands(Direct.MAY)
        return expression, tuple(self._allowed)

    def _operands(self, direct: Direct) -> Expression:
        first = self._operand(direct)
        if not (self.at(SPACE) and self.ahead() in ("or", "and", BUT_NOT)):
            return first
        operator = self.ahead()
        operands = [first]
        while self.at(SPACE) and self.ahead() == operator and not (operator == BUT_NOT and len(operands) > 1):
            self.advance()
            self.advance()
            self.take(SPACE, then={"(", *NAMES})
            operands.append(self._operand(Direct.MAY_NOT))
        if operator == BUT_NOT:
            return Exclusion(*operands)
        return Union(tuple(operands)) if operator == "or" else Intersection(tuple(operands))

    def _operand(self, direct: Direct) -> Expression:
        self.settle({"(", *NAMES, *(["["] if direct is Direct.MAY else [])})
        if self.at("["):
            self._restrictions()
            return This()
        if self.at("("):
            return self._brackets(direct)
        name = self.advance()
        if not (self.at(SPACE) and self.ahead() == "from"):
            self.note(("rewrite", *self._relation_key, name.text), name)
            return Computed(name.text)
        self.advance()
        self.advance()
        self.take(SPACE, then=NAMES)
        tupleset = self.take(NAMES)
        self.note(("rewrite", *self._relation_key, f"{name.text} from {tupleset.text}"), name, tupleset)
        self.note(("tupleset", *self._relation_key, tupleset.text), tupleset)
        return Arrow(tupleset.text, name.text)

    def _brackets(self, direct: Direct) -> Expression:
        self._depth += 1
        if self._depth > DEEPEST:
            self.tell(f"brackets stand more than {DEEPEST} deep; define a relation of the inner ones")
            raise Lost
        self.advance()
        while self.accept(SPACE):
            pass
        inner = self._operands(direct)
        self.settle({")", SPACE})
        while self.accept(SPACE):
            self.settle({")", SPACE})
        self.take(")")
        self._depth -= 1
        return inner

    def _restrictions(self) -> None:
        """Reads `[TYPE, TYPE#RELATION, TYPE:* with CONDITION]`."""
        try:
            self.advance()
            self.accept(SPACE)
            self._restriction()
            self.settle({",", "]", SPACE})
            self.accept(SPACE)
            self.settle({",", "]"})
            while self.accept(","):
                self.accept(SPACE)
                self._restriction()
                self.settle({",", "]", SPACE})
                self.accept(SPACE)
                self.settle({",", "]"})
            self.take("]")
        except Lost:
            self.skip_to(SPACE, NEWLINE, ")")

    def _restriction(self) -> None:
        self.settle({NEWLINE, *NAMES})
        self.accept(NEWLINE)
        try:
            self._subject()
        except Lost:
            self.skip_to(SPACE, NEWLINE, ",", "]")
        self.accept(NEWLINE)

    def _subject(self) -> None:
        first = last = self.take(NAMES, then={":", "#", ",", "]"})
        self.note(("type of", *self._relation_key, first.text), first)
        allowed = Allowed(first.text)
        if self.accept(":"):
            last = self.take("*")
            allowed = Allowed(first.text, wildcard=True)
        elif self.accept("#"):
            last = self.take(NAMES)
            allowed = Allowed(first.text, relation=last.text)
        self.note(("allowed", *self._relation_key, str(allowed)), first, last)
        if self.at(SPACE) and self.ahead() == "with":
            self.advance()
            self.advance()
            self.take(SPACE)
            condition = self.take(NAME)
            allowed = Allowed(allowed.type, allowed.relation, allowed.wildcard, condition.text)
            self.note(("caveat", *self._relation_key, condition.text), condition)
            self.note(("allowed", *self._relation_key, str(allowed)), first, condition)
        self._allowed.append(allowed)


def leaves(expression: Expression) -> Iterator[Expression]:
    """Yields the parts of a rewrite that operators stand between, in the order of the text."""
    match expression:
        case Union(operands) | Intersection(operands):
            for operand in operands:
                yield from leaves(operand)
        case Exclusion(base, subtracted):
            yield from leaves(base)
            yield from leaves(subtracted)
        case _:
            yield expression
