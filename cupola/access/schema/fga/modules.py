"""A model in several modules as one schema: `read_modules`.

Not here: the file that lists them (`mod.py`).
Invariant: each type, relation and condition of the schema says in its `doc` of which module and file it is; one
that `extend type` adds says so for itself.
"""

import dataclasses
from collections.abc import Mapping

from cupola.access.schema.fga.errors import FgaError, Kind, Place, Places, collect
from cupola.access.schema.fga.mod import MOD, VERSION, read_mod
from cupola.access.schema.fga.parser import Parsed, parse
from cupola.access.schema.fga.provenance import Provenance
from cupola.access.schema.fga.validate import find_errors
from cupola.access.schema.model import Caveat, Definition, Language, Relation, Schema


def read_modules(files: Mapping[str, str]) -> Schema:
    """Returns the schema that modules make together.

    Args:
        files: text by path. `fga.mod` says which of the others are read, in which order; without it, all are.

    Raises:
        FgaError: a file is missing, is no module or cannot be read; two define the same; a type is extended that is
            not there; or a name means nothing. `others` holds the further errors.
    """
    merge = _Merge()
    for path in _paths(files):
        try:
            merge.add(path, parse(files[path], source=path))
        except FgaError as error:
            merge.errors += [error, *error.others]
    schema = merge.finish()
    errors = [*merge.errors, *find_errors(schema, merge.places)]
    if errors:
        raise collect(errors)
    return schema


def modules_of(schema: Schema) -> tuple[str, ...]:
    """Returns the names of the modules that parts of a schema are of, sorted."""
    docs = [part.doc for definition in schema.definitions for part in (definition, *definition)]
    docs += [caveat.doc for caveat in schema.caveats]
    return tuple(sorted({found.module for found in map(Provenance.parse, docs) if found}))


def _paths(files: Mapping[str, str]) -> list[str]:
    if MOD not in files:
        return list(files)
    listed = read_mod(files[MOD]).contents
    errors = [
        FgaError(f"there is no file {item.text}", Kind.MODULE, item.text or "", place=item.place)
        for item in listed
        if item.text not in files
    ]
    if errors:
        raise collect(errors)
    return [item.text for item in listed if item.text is not None]


class _Merge:
    """Puts modules together, one after the other."""

    def __init__(self) -> None:
        self.errors: list[FgaError] = []
        self.places: Places = {}
        self._definitions: dict[str, Definition] = {}
        self._caveats: dict[str, Caveat] = {}
        self._extensions: list[tuple[Definition, str, str]] = []

    def add(self, path: str, parsed: Parsed) -> None:
        if not parsed.module:
            place = Place(1, 1, 1, path)
            remedy = "Let the file begin with `module` and a name."
            raise FgaError("file is not a module", Kind.MODULE, place=place, remedy=remedy)
        doc = str(Provenance(parsed.module, path))
        for definition in parsed.definitions:
            name = definition.name
            if name in self._definitions:
                self._twice(f"duplicate type definition {name}", definition, path)
            else:
                self._definitions[name] = dataclasses.replace(definition, doc=doc)
        self._extensions += [(extension, path, doc) for extension in parsed.extensions]
        for caveat in parsed.caveats:
            if caveat.name in self._caveats:
                self._twice(f"duplicate condition {caveat.name}", caveat, path)
            else:
                self._caveats[caveat.name] = dataclasses.replace(caveat, doc=doc)
        self.places = {**parsed.places, **self.places}

    def finish(self) -> Schema:
        """Returns the schema, with what the modules add to each other's types."""
        for extension, path, doc in self._extensions:
            name = extension.name
            base = self._definitions.get(name)
            if base is None:
                remedy = "Define it in one of the modules, without `extend`."
                problem, place = f"extended type {name} does not exist", _place(extension, path)
                self.errors.append(FgaError(problem, Kind.INVALID_TYPE, name, place=place, remedy=remedy))
                continue
            added = []
            for relation in extension:
                if base.get(relation.name):
                    self._twice(f"relation {relation.name} already exists on type {name}", relation, path)
                else:
                    added.append(dataclasses.replace(relation, doc=doc))
            self._definitions[name] = dataclasses.replace(base, relations=(*base.relations, *added))
        definitions, caveats = tuple(self._definitions.values()), tuple(self._caveats.values())
        return Schema(definitions, caveats, Language.FGA, VERSION)

    def _twice(self, problem: str, part: Definition | Relation | Caveat, path: str) -> None:
        self.errors.append(FgaError(problem, Kind.DUPLICATED, part.name, place=_place(part, path)))


def _place(part: Definition | Relation | Caveat, path: str) -> Place:
    return Place(part.line, part.column, part.column + len(part.name), path)
