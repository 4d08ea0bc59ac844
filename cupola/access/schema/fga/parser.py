"""OpenFGA's DSL as a schema: `read_fga`, and `parse`, which knows also where each name stands.

Not here: whether names mean something (`validate.py`), several modules (`modules.py`). Comments are not kept, but
for those by which OpenFGA's tools say of which module and file a part is.
Invariant: errors stand where OpenFGA's own parser reports them, and as many.
Source: openfga/language, OpenFGAParser.g4.
"""

import contextlib
import dataclasses

from cupola.access.schema.fga.cursor import Lost
from cupola.access.schema.fga.errors import FgaError, Kind, Place, Places, collect
from cupola.access.schema.fga.lexer import (
    CONTAINER,
    CONTAINERS,
    END,
    NAME,
    NAMES,
    NEWLINE,
    PARAMETER_TYPE,
    SPACE,
    VERSION,
    Word,
    cut,
)
from cupola.access.schema.fga.provenance import Provenance
from cupola.access.schema.fga.rewrite import Rewrites
from cupola.access.schema.model import Caveat, Definition, Language, Relation, Schema


@dataclasses.dataclass(frozen=True)
class Parsed:
    """A text that was read.

    Args:
        version: of the language; "" in a module.
        module: its name; "" in a whole model.
        definitions: types, in the order of the text.
        extensions: of `extend type`, which add to types of other modules.
        places: where names stand.
    """

    version: str
    module: str
    definitions: tuple[Definition, ...]
    extensions: tuple[Definition, ...]
    caveats: tuple[Caveat, ...]
    places: Places

    @property
    def schema(self) -> Schema:
        """The types and conditions as a schema."""
        return Schema(self.definitions, self.caveats, Language.FGA, self.version)


def read_fga(text: str, *, source: str = "") -> Schema:
    """Returns the schema of a model in the DSL; names in it may still mean nothing, see `validate`.

    Args:
        text: of the whole model.
        source: name of its file, for errors.

    Raises:
        FgaError: a mistake in the grammar, or a relation, condition or parameter that is there twice; the text is a
            module, which makes a schema only together with its others. `others` holds the further ones.
    """
    parsed = parse(text, source=source)
    if parsed.module:
        raise FgaError(
            f"schema version required: this is the module `{parsed.module}`, not a whole model",
            Kind.SCHEMA_VERSION_REQUIRED,
            place=Place(1, 1, 1, source),
            remedy="Begin with `model` and `schema 1.1`, or read all modules together with read_modules.",
        )
    return parsed.schema


def parse(text: str, *, source: str = "") -> Parsed:
    """Returns what a text says, be it a model or a module.

    Raises:
        FgaError: as `read_fga`.
    """
    parser = _Parser(text, source)
    with contextlib.suppress(Lost):  # which has told its error
        parser.main()
    if parser.errors:
        raise collect(parser.errors)
    return Parsed(
        parser.version,
        parser.module,
        tuple(parser.definitions),
        tuple(parser.extensions),
        tuple(parser.caveats),
        parser.places,
    )


class _Parser(Rewrites):
    """One method for each rule of the grammar."""

    def __init__(self, text: str, source: str):
        self._text, words, self._comments = cut(text, source)
        super().__init__(words)
        self.version = self.module = ""
        self.definitions: list[Definition] = []
        self.extensions: list[Definition] = []
        self.caveats: list[Caveat] = []

    def main(self) -> None:
        self.settle({SPACE, NEWLINE, "module", "model"})
        self.accept(SPACE)
        self.settle({NEWLINE, "module", "model"})
        self.accept(NEWLINE)
        self.settle({"module", "model"})
        try:
            self._header()
        except Lost:
            self.skip_to(NEWLINE)
        self.settle({NEWLINE, END})
        while self._next_is("type", "extend"):
            self._type()
            self.settle({NEWLINE, END})
        while self._next_is("condition"):
            try:
                self._condition()
            except Lost:
                self.skip_to(NEWLINE)
            self.settle({NEWLINE, END})
        self.accept(NEWLINE)
        if not self.at(END):
            raise self.lost({"type", "condition", END})

    def _next_is(self, *kinds: str) -> bool:
        """Returns whether one of these begins on the next line."""
        return self.at(NEWLINE) and self.ahead() in kinds

    def _header(self) -> None:
        if self.advance().kind == "module":
            self.take(SPACE)
            self.module = self.take(NAMES).text
            return
        self.take(NEWLINE)
        self.take("schema", then={SPACE})
        self.take(SPACE, then={VERSION})
        word = self.take(VERSION, then={NEWLINE, END})
        self.version = word.text
        self.note(("version",), word)

    def _type(self) -> None:
        self.advance()
        extends = self.accept("extend")
        if extends:
            self.take(SPACE)
        self.take("type", then={SPACE})
        self.take(SPACE, then=NAMES)
        name = self.take(NAMES)
        doc = self._provenance(name)
        if extends:
            self._extend(name)
        self.note(("extend" if extends else "type", name.text), name)
        relations: dict[str, Relation] = {}
        self.settle({NEWLINE, END})
        if self._next_is("relations"):
            self.advance()
            self.advance()
            self._relation(name.text, relations)
            while self._next_is("define"):
                self._relation(name.text, relations)
        definition = Definition(name.text, tuple(relations.values()), doc, name.place.line, name.place.column)
        (self.extensions if extends else self.definitions).append(definition)

    def _extend(self, name: Word) -> None:
        if not self.module:
            self.errors.append(
                FgaError("extend can only be used in a modular model", Kind.SYNTAX, name.text, place=name.place)
            )
        elif ("extend", name.text) in self.places:
            self._twice(f"'{name.text}' is already extended in this file", name)

    def _relation(self, type: str, relations: dict[str, Relation]) -> None:
        """Reads `define NAME: REWRITE`."""
        self.settle({NEWLINE})
        if not self._next_is("define"):
            self.advance()
            raise self.lost({"define"})
        self.advance()
        self.advance()
        self.take(SPACE, then=NAMES)
        name = self.take(NAMES)
        self.accept(SPACE)
        self.take(":", then={SPACE, "[", "(", *NAMES})
        self.accept(SPACE)
        if name.text in relations:
            self._twice(f"'{name.text}' is already defined in '{type}'", name)
        self.note(("relation", type, name.text), name)
        rewrite, allowed = self.rewrite(type, name.text)
        doc = self._provenance(name)
        relations[name.text] = Relation(name.text, rewrite, allowed, doc, name.place.line, name.place.column)
        self.settle({NEWLINE, END})

    def _condition(self) -> None:
        self.advance()
        self.advance()
        self.take(SPACE)
        name = self.take(NAME, then={SPACE, "("})
        self.accept(SPACE)
        self.take("(", then={SPACE, NEWLINE, NAME})
        parameters: dict[str, str] = {}
        while True:
            self.accept(SPACE)
            self.settle({NAME, NEWLINE})
            self._parameter(name, parameters)
            self.accept(SPACE)
            self.settle({",", ")", NEWLINE})
            if not self.accept(","):
                break
        self.accept(NEWLINE)
        self.take(")", then={SPACE, "{"})
        self.accept(SPACE)
        expression, end = self._braces()
        if ("condition", name.text) in self.places:
            self._twice(f"condition '{name.text}' is already defined in the model", name)
        self.note(("condition", name.text), name)
        doc, place = self._provenance(end), name.place
        self.caveats.append(Caveat(name.text, tuple(parameters.items()), expression, doc, place.line, place.column))

    def _parameter(self, condition: Word, parameters: dict[str, str]) -> None:
        self.accept(NEWLINE)
        name = self.take(NAME, then={SPACE, ":"})
        if name.text in parameters:
            self._twice(f"parameter '{name.text}' is already defined in the condition '{condition.text}'", name)
        self.accept(SPACE)
        self.take(":", then={SPACE, PARAMETER_TYPE, CONTAINER})
        self.accept(SPACE)
        parameters[name.text] = ""
        try:
            self.settle({PARAMETER_TYPE, CONTAINER})
            parameters[name.text] = type = self.advance().text
            if type in CONTAINERS:
                self.take("<", then={PARAMETER_TYPE})
                inner = self.take(PARAMETER_TYPE, then={">"}).text
                self.take(">", then={SPACE, NEWLINE, ",", ")"})
                parameters[name.text] = f"{type}<{inner}>"
        except Lost:
            self.skip_to(SPACE, NEWLINE, ",", ")")

    def _braces(self) -> tuple[str, Word]:
        """Reads the expression between braces, which may hold further ones, and the brace at its end."""
        start = self.take("{").start + 1
        depth = 1
        while depth and not self.at(END):
            depth += {"{": 1, "}": -1}.get(self.word.kind, 0)
            if depth:
                self.advance()
        end = self.take("}")
        return self._text[start : end.start].strip(), end

    def _provenance(self, word: Word) -> str:
        """Returns of which module and file a part is, where the comment on its line says so."""
        found = Provenance.parse(self._comments.get(word.place.line, ""))
        return str(found) if found else ""

    def _twice(self, problem: str, word: Word) -> None:
        self.errors.append(FgaError(problem, Kind.SYNTAX, word.text, place=word.place))
