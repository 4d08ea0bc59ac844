"""One `.zed` text, read into its statements.

Not here: imports, partials and what names mean (`compose.py`), tokens (`lexer.py`), the CEL of a caveat: it is
kept as text.
Invariant: what comes out holds every statement of the text in its order, and says where it stood.
Source: SpiceDB's documentation of its schema language, and its parser for precedence: `+` binds tightest, then
`&`, then `-`; all three from the left.
"""

import re
from collections.abc import Callable
from typing import TypeVar

from cupola.access.errors import SchemaError
from cupola.access.schema.model import (
    Allowed,
    Arrow,
    Caveat,
    Computed,
    Exclusion,
    Expression,
    Intersection,
    Itself,
    Nil,
    Quantifier,
    Relation,
    This,
    Union,
)
from cupola.access.schema.zed.lexer import Kind, Token, tokens
from cupola.access.schema.zed.syntax import Block, Declared, File, Import, Splat

FEATURES = {
    "expiration": ("expiration", "and"),
    "import": ("import",),
    "partial": ("partial",),
    "self": ("self",),
    "typechecking": ("typechecking",),
}
"""What `use` can switch on, and the words that are keywords from then on."""
KEYWORDS = ("definition", "caveat", "relation", "permission", "nil", "with")
MOST_NESTED = 50
"""Levels of an expression; more would overrun the stack of whoever walks it."""

_One = TypeVar("_One")


def parse_zed(text: str, source: str = "") -> File:
    """Returns the statements of a text.

    Args:
        source: name of the file, for errors.

    Raises:
        SchemaError: it is not in the language.
    """
    return _Parser(text, source).file()


class _Parser:
    def __init__(self, text: str, source: str):
        self._text, self._source = text, source
        self._tokens = tokens(text, source)
        self._token = next(self._tokens)
        self._before = self._token
        self._keywords = set(KEYWORDS)
        self._uses: list[str] = []
        self._refusals: list[SchemaError] = []
        self._depth = 0

    # From here on: moving over tokens.

    def _next(self) -> Token:
        self._before = self._token
        if self._token.kind is not Kind.END:
            self._token = next(self._tokens)
        return self._before

    def _at(self, mark: str) -> bool:
        return self._token.kind is Kind.MARK and self._token.text == mark

    def _at_word(self, word: str) -> bool:
        return self._token.kind is Kind.WORD and self._token.text == word

    def _at_keyword(self, word: str) -> bool:
        return word in self._keywords and self._at_word(word)

    def _skip(self, mark: str) -> bool:
        found = self._at(mark)
        if found:
            self._next()
        return found

    def _expect(self, mark: str, remedy: str = "") -> None:
        if not self._skip(mark):
            raise self._error(f"expected `{mark}`, found {self._token}", remedy=remedy)

    def _name(self, what: str) -> str:
        if self._token.kind is not Kind.WORD:
            raise self._error(f"expected {what}, found {self._token}")
        if self._token.text in self._keywords:
            raise self._error(f"expected {what}, found the keyword `{self._token.text}`", remedy="Choose another name.")
        return self._next().text

    def _path(self, what: str) -> str:
        parts = [self._name(what)]
        while self._skip("/"):
            parts.append(self._name(what))
        return "/".join(parts)

    def _error(self, problem: str, *, at: Token | None = None, remedy: str = "") -> SchemaError:
        place = at or self._token
        return SchemaError(problem, line=place.line, column=place.column, source=self._source, remedy=remedy)

    # From here on: statements.

    def file(self) -> File:
        found: list[Block | Caveat | Import] = []
        while self._token.kind is not Kind.END:
            if self._token.kind is Kind.STOP:
                self._next()
            elif self._at_word("use"):
                self._use(late=any(not isinstance(statement, Import) for statement in found))
            else:
                found.append(self._statement())
        return File(tuple(self._uses), tuple(found), tuple(self._refusals))

    def _statement(self) -> Block | Caveat | Import:
        start = self._token
        for word in ("definition", "partial"):
            if self._at_keyword(word):
                return self._block(word)
        if self._at_keyword("caveat"):
            return self._caveat()
        if self._at_keyword("import"):
            self._next()
            if self._token.kind is not Kind.STRING:
                raise self._error(f"expected a path in quotes, found {self._token}")
            path = self._next().text
            quotes = 3 if path[:3] in ('"""', "'''") else 1
            return Import(path[quotes:-quotes], start.line, start.column)
        remedy = "Write definition NAME {...} or caveat NAME(...) {...}"
        if start.text in ("partial", "import"):
            remedy = f"Begin the file with: use {start.text}"
        raise self._error(f"expected a definition or a caveat, found {start}", remedy=remedy)

    def _use(self, late: bool) -> None:
        start = self._next()
        feature = self._next()
        if feature.kind is not Kind.WORD or feature.text not in FEATURES:
            raise self._error(f"there is no feature {feature}", at=feature, remedy=f"Use one of: {', '.join(FEATURES)}")
        if late:
            raise self._error("`use` comes after a definition", at=start, remedy="Move it to the top.")
        self._keywords.update(FEATURES[feature.text])
        if feature.text not in self._uses:
            self._uses.append(feature.text)

    def _block(self, word: str) -> Block:
        start = self._next()
        name = self._path(f"the name of a {word}")
        self._expect("{")
        found: list[Declared | Splat] = []
        while not self._skip("}"):
            if self._token.kind is Kind.STOP:
                self._next()
                continue
            found.append(self._member())
            # A newline or `;` ends a statement, and so does the end of the block.
            if self._token.kind is not Kind.STOP and not self._at("}"):
                raise self._error(
                    f"expected the end of the statement, found {self._token}",
                    remedy="Begin a new line; a line that goes on ends with its operator.",
                )
        return Block(name, tuple(found), word == "partial", _doc(start), start.line, start.column)

    def _member(self) -> Declared | Splat:
        start = self._token
        if self._at_keyword("relation"):
            return self._relation()
        if self._at_keyword("permission"):
            return self._permission()
        if self._at("...") and "partial" in self._uses:
            self._next()
            return Splat(self._name("the name of a partial"), start.line, start.column)
        remedy = "Write relation NAME: TYPE or permission NAME = EXPRESSION"
        if self._at("..."):
            remedy = "Begin the file with: use partial"
        raise self._error(f"expected a relation, a permission or }}, found {start}", remedy=remedy)

    def _relation(self) -> Declared:
        start = self._next()
        name = self._name("the name of a relation")
        self._expect(":", remedy=f"Write relation {name}: TYPE")
        allowed = self._several(self._allowed)
        return Declared(Relation(name, This(), allowed, _doc(start), start.line, start.column))

    def _permission(self) -> Declared:
        start = self._next()
        name = self._name("the name of a permission")
        types: tuple[str, ...] = ()
        if self._skip(":"):
            types = self._several(lambda: self._path("the name of a type"))
        self._expect("=", remedy=f"Write permission {name} = EXPRESSION")
        rewrite = self._expression()
        return Declared(Relation(name, rewrite, (), _doc(start), start.line, start.column), types)

    def _several(self, one: Callable[[], _One]) -> tuple[_One, ...]:
        found = [one()]
        while self._skip("|"):
            found.append(one())
        return tuple(found)

    def _allowed(self) -> Allowed:
        type, relation, wildcard = self._path("the name of a type"), "", False
        if self._skip(":"):
            self._expect("*", remedy=f"Write {type}:* for all of the type, {type}#RELATION for who has a relation.")
            wildcard = True
        elif self._skip("#") and not self._skip("..."):
            relation = self._name("the name of a relation")
        caveat, expires = "", False
        if self._at_keyword("with"):
            self._next()
            if not self._at_keyword("expiration"):
                caveat = self._path("the name of a caveat")
            if not caveat or self._at_keyword("and"):
                expires = True
                if caveat:
                    self._next()
                if not self._at_keyword("expiration"):
                    raise self._error(f"expected `expiration`, found {self._token}")
                self._next()
            if expires and self._at_keyword("and"):
                raise self._error("a caveat comes before the expiration", remedy="Write with CAVEAT and expiration")
        return Allowed(type, relation, wildcard, caveat, expires)

    # From here on: expressions, from the loosest operator to the tightest.

    def _expression(self) -> Expression:
        self._depth += 1
        found, levels = self._intersection(), 0
        while self._skip("-"):
            levels += 1
            if self._depth + levels > MOST_NESTED:
                raise self._deep()
            found = Exclusion(found, self._intersection())
        self._depth -= 1
        return found

    def _intersection(self) -> Expression:
        operands = [self._union()]
        while self._skip("&"):
            operands.append(self._union())
        return operands[0] if len(operands) == 1 else Intersection(_flat(operands, Intersection))

    def _union(self) -> Expression:
        operands = [self._operand()]
        while self._skip("+"):
            operands.append(self._operand())
        return operands[0] if len(operands) == 1 else Union(_flat(operands, Union))

    def _operand(self) -> Expression:
        if self._at("("):
            if self._depth >= MOST_NESTED:
                raise self._deep()
            self._next()
            found = self._expression()
            self._expect(")")
            return found
        if self._at_keyword("nil"):
            self._next()
            return Nil()
        if self._at_keyword("self"):
            self._next()
            return Itself()
        name = self._name("a relation or permission")
        return self._arrows(name) if self._at("->") or self._at(".") else Computed(name)

    def _arrows(self, name: str) -> Expression:
        start = self._before
        found = self._arrow(name)
        if self._at("->") or self._at("."):
            self._refusals.append(
                self._error(
                    "an arrow cannot lead on to another arrow",
                    at=start,
                    remedy=f"Name the second step as a permission there: {found.tupleset}->THAT",
                )
            )
        while self._at("->") or self._at("."):
            found = self._arrow(name)
        return found

    def _arrow(self, tupleset: str) -> Arrow:
        if self._skip("->"):
            return Arrow(tupleset, self._name("a relation or permission"))
        self._next()
        function = self._token
        if function.text not in ("any", "all"):
            raise self._error(f"expected `any` or `all`, found {function}", remedy=f"Write {tupleset}.all(NAME)")
        self._next()
        self._expect("(")
        computed = self._name("a relation or permission")
        self._expect(")")
        return Arrow(tupleset, computed, Quantifier(function.text))

    def _deep(self) -> SchemaError:
        return self._error(
            f"an expression of more than {MOST_NESTED} levels", remedy="Give a part of it a name: permission PART = ..."
        )

    # From here on: caveats.

    def _caveat(self) -> Caveat:
        start = self._next()
        name = self._path("the name of a caveat")
        self._expect("(")
        parameters: list[tuple[str, str]] = []
        while not parameters or self._skip(","):
            parameter = self._name("the name of a parameter")
            parameters.append((parameter, self._type()))
        self._expect(")")
        self._expect("{")
        expression = self._cel()
        return Caveat(name, tuple(parameters), expression, _doc(start), start.line, start.column)

    def _type(self) -> str:
        name = self._name("the type of a parameter")
        if not self._skip("<"):
            return name
        inner = [self._type()]
        while self._skip(","):
            inner.append(self._type())
        self._expect(">")
        return f"{name}<{', '.join(inner)}>"

    def _cel(self) -> str:
        """CEL is a language of its own: all until the brace that closes, as it stands."""
        start, depth = self._before.start + 1, 1
        empty = True
        while depth:
            if self._token.kind is Kind.END:
                raise self._error("the caveat has no closing }")
            depth += self._at("{") - self._at("}")
            empty = empty and (self._token.kind is Kind.STOP or not depth)
            self._next()
        if empty:
            raise self._error("the caveat has no condition", at=self._before, remedy="Write a CEL expression in {}.")
        return self._text[start : self._before.start].strip()


def _flat(operands: list[Expression], kind: type[Union] | type[Intersection]) -> tuple[Expression, ...]:
    """Returns the operands with those of the same kind, from parentheses, in their places."""
    flat: list[Expression] = []
    for operand in operands:
        flat += operand.operands if isinstance(operand, kind) else (operand,)
    return tuple(flat)


def _doc(token: Token) -> str:
    """Returns the text of the comments before a token, without their marks."""
    lines: list[str] = []
    for comment in token.comments:
        if comment.startswith("//"):
            lines.append(comment[2:].strip())
        else:
            inner = re.sub(r"^/\*+|\*+/$", "", comment)
            found = [re.sub(r"^\*(?=\s|$)", "", line.strip()).strip() for line in re.split(r"\r\n|\r|\n", inner)]
            lines += "\n".join(found).strip("\n").split("\n")
    return "\n".join(lines).strip("\n")
