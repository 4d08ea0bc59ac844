"""A `.zed` text and what it imports, made into one schema: partials are put in where they are named.

Not here: syntax (`parser.py`), whether types and names hold together (`check.py`).
Invariant: names of a schema, and of the relations and permissions of a type, are unique. Imported definitions come
first; a file counts once, however often it is imported, so files may import each other.
"""

import dataclasses
import posixpath
from collections.abc import Callable

from cupola.access.errors import SchemaError
from cupola.access.schema.model import Caveat, Definition, Language, Schema
from cupola.access.schema.reflect import subject_types
from cupola.access.schema.zed.parser import MOST_NESTED, parse_zed
from cupola.access.schema.zed.syntax import Block, Declared, Import, Splat

_COMPOSED = frozenset({"import", "partial"})
"""Features that a schema no longer needs once it is composed."""


def read_zed(text: str, *, source: str = "", imports: Callable[[str], str] | None = None) -> Schema:
    """Returns the schema that a text says.

    Args:
        source: name of the file, for errors.
        imports: returns the text of a file by its path, which is relative to where `source` lies and stays below
            that; None: nothing can be imported.

    Raises:
        SchemaError: it is not in the language, imports or partials cannot be found, or a name is there twice.
    """
    composer = _Composer(imports)
    composer.read(text, source, "")
    return composer.schema()


@dataclasses.dataclass(frozen=True)
class _From:
    """A statement and the file it is from."""

    block: Block
    source: str

    def error(self, problem: str, at: Block | Declared | Splat | None = None, remedy: str = "") -> SchemaError:
        place = at or self.block
        line, column = (
            (place.relation.line, place.relation.column) if isinstance(place, Declared) else (place.line, place.column)
        )
        return SchemaError(problem, line=line, column=column, source=self.source, remedy=remedy)


class _Composer:
    def __init__(self, imports: Callable[[str], str] | None):
        self._imports = imports
        self._read: set[str] = set()
        self._uses: set[str] = set()
        self._names: set[str] = set()
        self._definitions: list[_From] = []
        self._caveats: list[Caveat] = []
        self._partials: dict[str, _From] = {}
        self._expanded: dict[str, tuple[Declared, ...]] = {}

    def read(self, text: str, source: str, folder: str, depth: int = 0) -> None:
        """Adds a file, after what it imports."""
        file = parse_zed(text, source)
        if file.refusals:
            raise file.refusals[0]
        self._uses.update(file.uses)
        for statement in file.statements:
            if isinstance(statement, Import):
                self._import(statement, source, folder, depth)
        for statement in file.statements:
            if isinstance(statement, Caveat):
                self._claim(statement.name, statement, source)
                self._caveats.append(statement)
            elif isinstance(statement, Block):
                self._add(_From(statement, source))

    def _import(self, statement: Import, source: str, folder: str, depth: int) -> None:
        def error(problem: str, remedy: str = "") -> SchemaError:
            return SchemaError(problem, line=statement.line, column=statement.column, source=source, remedy=remedy)

        path = posixpath.normpath(posixpath.join(folder, statement.path))
        if not statement.path or ".." in statement.path.split("/") or posixpath.isabs(path) or "\\" in path:
            raise error(
                f"{statement.path!r} does not stay in the folder of the file",
                remedy="Write a path below it, such as users/user.zed",
            )
        if path in self._read:
            return
        if depth >= MOST_NESTED:
            raise error(f"files import each other more than {MOST_NESTED} deep")
        if self._imports is None:
            raise error("nothing can be imported here", remedy="Give one text with all definitions, or `imports`.")
        self._read.add(path)
        try:
            text = self._imports(path)
        except (OSError, LookupError, UnicodeError) as problem:
            raise error(f"{path!r} cannot be read: {problem}") from problem
        self.read(text, path, posixpath.dirname(path), depth + 1)

    def _add(self, found: _From) -> None:
        block = found.block
        if not block.partial:
            self._claim(block.name, block, found.source)
            self._definitions.append(found)
        elif block.name in self._partials:
            raise found.error(f"partial `{block.name}` is there twice", remedy="Choose another name.")
        else:
            self._partials[block.name] = found

    def _claim(self, name: str, at: Block | Caveat, source: str) -> None:
        if name in self._names:
            raise SchemaError(
                f"found name reused between multiple definitions and/or caveats: {name}",
                line=at.line,
                column=at.column,
                source=source,
                remedy="Choose another name.",
            )
        self._names.add(name)

    def schema(self) -> Schema:
        """Returns what was read, as one."""
        definitions, declared = [], []
        for found in self._definitions:
            block, statements = found.block, self._statements(found, ())
            relations = tuple(statement.relation for statement in statements)
            definitions.append(Definition(block.name, relations, block.doc, block.line, block.column))
            declared.append((found, statements))
        uses = tuple(sorted(self._uses - _COMPOSED))
        schema = Schema(tuple(definitions), tuple(self._caveats), Language.ZED, "", uses)
        if "typechecking" in uses:
            for found, statements in declared:
                _check_types(schema, found, statements)
        return schema

    def _statements(self, found: _From, inside: tuple[str, ...]) -> tuple[Declared, ...]:
        """Returns what a block declares, with that of its partials."""
        declared: list[Declared] = []
        names: set[str] = set()
        for statement in found.block.statements:
            added = (statement,) if isinstance(statement, Declared) else self._partial(found, statement, inside)
            for one in added:
                if one.relation.name in names:
                    raise found.error(
                        f"found duplicate relation/permission name `{one.relation.name}` "
                        f"under definition `{found.block.name}`",
                        at=statement,
                        remedy="Choose another name.",
                    )
                names.add(one.relation.name)
            declared += added
        return tuple(declared)

    def _partial(self, found: _From, splat: Splat, inside: tuple[str, ...]) -> tuple[Declared, ...]:
        name = splat.name
        partial = self._partials.get(name)
        if partial is None:
            raise found.error(f"there is no partial `{name}`", at=splat, remedy=f"Declare it: partial {name} {{...}}")
        if name in inside:
            raise found.error(f"partial `{name}` contains itself, by {' and '.join(inside)}", at=splat)
        if len(inside) >= MOST_NESTED:
            raise found.error(f"partials contain each other more than {MOST_NESTED} deep", at=splat)
        if name not in self._expanded:
            self._expanded[name] = self._statements(partial, (*inside, name))
        return self._expanded[name]


def _check_types(schema: Schema, found: _From, statements: tuple[Declared, ...]) -> None:
    """Refuses permissions whose subjects are of other types than they say."""
    for statement in statements:
        if statement.types:
            name = statement.relation.name
            more = sorted(subject_types(schema, found.block.name, name) - set(statement.types))
            unknown = [type for type in statement.types if type not in schema.types]
            if unknown:
                raise found.error(f"object definition `{unknown[0]}` not found", at=statement)
            if more:
                raise found.error(
                    f"permission `{name}` says that its subjects are of {' | '.join(statement.types)}, "
                    f"and they are of {' | '.join(more)} too",
                    at=statement,
                    remedy=f"Write permission {name}: {' | '.join((*statement.types, *more))} = ...",
                )
