"""Whether the names in an OpenFGA model mean something: `validate`.

Not here: grammar (`parser.py`, `json.py`), CEL in conditions (`caveat/`).
Invariant: an error stands where the name at fault stands for the first time in its relation, if the text is known,
else where the relation does. Names come first; where one is bad, what they refer to is not looked at.
Source: openfga/language, the rules of its validators; the kinds of errors are theirs.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from cupola.access.schema.fga.entries import Entries
from cupola.access.schema.fga.errors import FgaError, Kind, Place, Places
from cupola.access.schema.fga.parser import parse
from cupola.access.schema.fga.provenance import Provenance
from cupola.access.schema.fga.rewrite import leaves
from cupola.access.schema.model import (
    Allowed,
    Arrow,
    Caveat,
    Computed,
    Definition,
    Exclusion,
    Expression,
    Intersection,
    Relation,
    Schema,
    This,
    Union,
)

VERSIONS = ("1.1", "1.2")
TYPE_RULE = r"^[^:#@\*\s]{1,254}$"
RELATION_RULE = r"^[^:#@\*\s]{1,50}$"
_RESERVED = ("self", "this")


def validate(schema: Schema, text: str = "") -> list[FgaError]:
    """Returns what is wrong with a model that could be read, in the order of its parts; nothing where all holds.

    Args:
        text: that the schema was read from; with it, errors have the column of the name at fault.

    Raises:
        FgaError: the text cannot be read.
    """
    return find_errors(schema, parse(text).places if text else {})


def find_errors(schema: Schema, places: Places) -> list[FgaError]:
    """Returns what `validate` does, for a schema whose names stand in these places."""
    check = _Check(schema, places)
    errors = list(check.names())
    if schema.version not in VERSIONS:
        return [*errors, check.version()]
    if errors:
        return errors
    errors = list(check.references())
    if not errors:
        errors = list(check.entry_points())
    return [*errors, *check.unused_conditions(), *check.modules()]


class _Check:
    """The rules; each yields the errors against it."""

    def __init__(self, schema: Schema, places: Places):
        self._schema, self._places = schema, places

    def names(self) -> Iterator[FgaError]:
        for definition in self._schema.definitions:
            name, place = definition.name, self._place(definition, "type", definition.name)
            if name in _RESERVED:
                yield FgaError("a type cannot be named 'self' or 'this'", Kind.RESERVED_TYPE, name, place=place)
            if not re.fullmatch(TYPE_RULE, name):
                problem = f"type '{name}' does not match naming rule: '{TYPE_RULE}'"
                yield FgaError(problem, Kind.INVALID_NAME, name, place=place)
            for relation in definition:
                name, place = relation.name, self._place(relation, "relation", definition.name, relation.name)
                if name in _RESERVED:
                    problem = "a relation cannot be named 'self' or 'this'"
                    yield FgaError(problem, Kind.RESERVED_RELATION, name, place=place)
                elif not re.fullmatch(RELATION_RULE, name):
                    problem = (
                        f"relation '{name}' of type '{definition.name}' does not match naming rule: '{RELATION_RULE}'"
                    )
                    yield FgaError(problem, Kind.INVALID_NAME, name, place=place)

    def version(self) -> FgaError:
        version, remedy = self._schema.version, f"Write schema {' or '.join(VERSIONS)}."
        if not version:
            place = Place(1, 1, 1)
            return FgaError("schema version required", Kind.SCHEMA_VERSION_REQUIRED, place=place, remedy=remedy)
        place = self._places.get(("version",), Place())
        return FgaError(f"invalid schema {version}", Kind.INVALID_SCHEMA, version, place=place, remedy=remedy)

    def references(self) -> Iterator[FgaError]:
        """Yields what is there twice and what is not there at all."""
        known = _Known(
            frozenset(definition.name for definition in self._schema.definitions),
            {
                (definition.name, relation.name): relation
                for definition in self._schema.definitions
                for relation in definition
            },
            frozenset(caveat.name for caveat in self._schema.caveats),
            self._places,
        )
        seen = set()
        for definition in self._schema.definitions:
            if definition.name in seen:
                place = self._place(definition, "type", definition.name)
                yield FgaError(
                    f"the type `{definition.name}` is a duplicate", Kind.DUPLICATED, definition.name, place=place
                )
                continue
            seen.add(definition.name)
            for relation in definition:
                yield from _Reference(known, definition.name, relation).errors()

    def entry_points(self) -> Iterator[FgaError]:
        entries = Entries(self._schema.types)
        for definition in self._schema.definitions:
            for relation in definition:
                type, name = definition.name, relation.name
                if not entries.has(type, name):
                    why = "potential loop" if entries.loops(type, name) else "no entrypoint"
                    yield FgaError(
                        f"`{name}` is an impossible relation for `{type}` ({why})",
                        Kind.NO_ENTRY_POINT,
                        name,
                        place=self._place(relation, "relation", type, name),
                        remedy="Nobody could ever have it; let it begin with direct types, such as [user].",
                    )

    def unused_conditions(self) -> Iterator[FgaError]:
        relations = (relation for definition in self._schema.definitions for relation in definition)
        used = {allowed.caveat for relation in relations for allowed in relation.allowed}
        for caveat in self._schema.caveats:
            if caveat.name not in used:
                place = self._place(caveat, "condition", caveat.name)
                problem = f"`{caveat.name}` condition is not used in the model"
                yield FgaError(problem, Kind.CONDITION_NOT_USED, caveat.name, place=place)

    def modules(self) -> Iterator[FgaError]:
        definitions = self._schema.definitions
        parts = [part for definition in definitions for part in (definition, *definition)]
        files: dict[str, dict[str, None]] = {}
        for doc in (*(part.doc for part in parts), *(caveat.doc for caveat in self._schema.caveats)):
            found = Provenance.parse(doc)
            if found and found.file:
                files.setdefault(found.file, {})[found.module] = None
        for file, modules in files.items():
            if len(modules) > 1:
                problem = f"file {file} would contain multiple module definitions ({', '.join(modules)})"
                remedy = "Only one module can be in a file."
                yield FgaError(problem, Kind.MULTIPLE_MODULES, file, where=file, remedy=remedy)

    def _place(self, part: Definition | Relation | Caveat, *key: str) -> Place:
        return self._places.get(key) or Place(part.line, part.column, part.column + len(part.name))


class _Known(NamedTuple):
    """What there is to refer to."""

    types: frozenset[str]
    relations: Mapping[tuple[str, str], Relation]
    conditions: frozenset[str]
    places: Places


class _Reference:
    """The names in one relation of a type."""

    def __init__(self, known: _Known, type: str, relation: Relation):
        self._known, self._type, self._relation = known, type, relation

    def errors(self) -> Iterator[FgaError]:
        relation = self._relation
        yield from self._duplicates()
        direct = any(isinstance(leaf, This) for leaf in leaves(relation.rewrite))
        if direct and not relation.allowed:
            problem = f"the assignable relation `{relation.name}` has no types"
            yield FgaError(problem, Kind.MUST_HAVE_TYPE, relation.name, place=self._place())
        if relation.allowed and not direct:
            problem = f"the relation `{relation.name}` has types and is not assignable"
            yield FgaError(problem, Kind.MUST_NOT_HAVE_TYPE, relation.name, place=self._place())
        for allowed in dict.fromkeys(relation.allowed):
            yield from self._allowed(allowed)
        for leaf in dict.fromkeys(leaves(relation.rewrite)):
            if isinstance(leaf, Arrow):
                yield from self._arrow(leaf)
            elif isinstance(leaf, Computed) and (self._type, leaf.name) not in self._known.relations:
                problem = f"the relation `{leaf.name}` does not exist"
                yield self._error(problem, Kind.MISSING_DEFINITION, leaf.name, "rewrite")

    def _duplicates(self) -> Iterator[FgaError]:
        name = self._relation.name
        for allowed, count in Counter(str(allowed) for allowed in self._relation.allowed).items():
            if count > 1:
                problem = f"the type restriction `{allowed}` is a duplicate in the relation `{name}`"
                yield self._error(problem, Kind.DUPLICATED, allowed, "allowed")
        for operation in _operations(self._relation.rewrite):
            for text, count in Counter(_text(x) for x in operation if isinstance(x, Computed | Arrow)).items():
                if count > 1:
                    problem = f"the partial relation definition `{text}` is a duplicate in the relation `{name}`"
                    yield self._error(problem, Kind.DUPLICATED, text, "rewrite")

    def _allowed(self, allowed: Allowed) -> Iterator[FgaError]:
        if allowed.type not in self._known.types:
            yield self._error(f"`{allowed.type}` is not a valid type", Kind.INVALID_TYPE, allowed.type, "type of")
        elif allowed.relation and (allowed.type, allowed.relation) not in self._known.relations:
            text = f"{allowed.type}#{allowed.relation}"
            problem = f"`{allowed.relation}` is not a valid relation for `{allowed.type}`"
            yield self._error(problem, Kind.INVALID_RELATION, text, "allowed")
        if allowed.caveat and allowed.caveat not in self._known.conditions:
            problem = f"`{allowed.caveat}` is not a defined condition in the model"
            yield self._error(problem, Kind.CONDITION_NOT_DEFINED, allowed.caveat, "caveat")

    def _arrow(self, arrow: Arrow) -> Iterator[FgaError]:
        tupleset = self._known.relations.get((self._type, arrow.tupleset))
        if tupleset is None:
            problem = f"`{arrow.tupleset}` is not a valid relation for `{self._type}`"
            yield self._error(problem, Kind.INVALID_RELATION, _text(arrow), "rewrite")
        elif not isinstance(tupleset.rewrite, This) or any(x.relation or x.wildcard for x in tupleset.allowed):
            problem = f"`{arrow.tupleset}` relation used inside from allows only direct relation"
            yield self._error(problem, Kind.TUPLESET_NOT_DIRECT, arrow.tupleset, "tupleset")
        elif not any((allowed.type, arrow.computed) in self._known.relations for allowed in tupleset.allowed):
            for type in dict.fromkeys(allowed.type for allowed in tupleset.allowed):
                yield self._error(
                    f"the `{arrow.computed}` relation definition on type `{self._type}` is not valid: "
                    f"`{arrow.computed}` does not exist on `{arrow.tupleset}`, which is of type `{type}`",
                    Kind.INVALID_RELATION_ON_TUPLESET,
                    _text(arrow),
                    "rewrite",
                )

    def _error(self, problem: str, kind: Kind, symbol: str, role: str) -> FgaError:
        return FgaError(problem, kind, symbol, place=self._place(role, symbol))

    def _place(self, role: str = "relation", symbol: str = "") -> Place:
        """Returns where a name of the relation stands; with no text, where the relation does."""
        key = (role, self._type, self._relation.name, *([symbol] if symbol else []))
        relation = self._relation
        return self._known.places.get(key) or Place(
            relation.line, relation.column, relation.column + len(relation.name)
        )


def _operations(expression: Expression) -> Iterator[tuple[Expression, ...]]:
    """Yields the operands of each operator."""
    match expression:
        case Union(operands) | Intersection(operands):
            yield operands
        case Exclusion(base, subtracted):
            yield (operands := (base, subtracted))
        case _:
            return
    for operand in operands:
        yield from _operations(operand)


def _text(leaf: Expression) -> str:
    return f"{leaf.computed} from {leaf.tupleset}" if isinstance(leaf, Arrow) else getattr(leaf, "name", "")
