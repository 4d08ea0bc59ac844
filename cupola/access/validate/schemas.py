"""The schema of a file of ours: in the file itself, or in one that it names.

Invariant: a schema that comes out is sound, and what is wrong with one is told with the place in the file where it
was written, whichever that is.
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from cupola.access.caveat.compile import compile_caveat
from cupola.access.errors import SchemaError
from cupola.access.schema.check import check_schema
from cupola.access.schema.fga.json import to_json
from cupola.access.schema.fga.mod import MOD, read_mod
from cupola.access.schema.fga.modules import read_modules
from cupola.access.schema.model import Language, Schema
from cupola.access.schema.read import read_schema
from cupola.access.schema.zed.compose import read_zed
from cupola.access.schema.zed.printer import write_zed
from cupola.access.validate.document import Field
from cupola.access.validate.place import FileError, Place, beside, read_text
from cupola.access.validate.suite import SchemaText


def written_schema(field: Field, language: Language) -> SchemaText:
    """Returns the schema that stands in a file itself.

    Raises:
        FileError: it cannot be read or does not hold together.
    """
    found = SchemaText(field.text(), language, field.place.source, tuple(place for _, place in field.lines()))
    _check(found)
    return found


def named_schema(path: Path, name: Field, language: Language) -> SchemaText:
    """Returns the schema of a file that another one names.

    Args:
        path: of the file that names it.
        name: of the file: `.zed`, `.fga`, `.json`, or `fga.mod`, which names several.

    Raises:
        FileError: it is not there, lies elsewhere, cannot be read or does not hold together.
    """
    return schema_of(beside(path, name.text(), name.place), language, name.place)


def schema_of(path: Path, language: Language, named_at: Place | None = None) -> SchemaText:
    """Returns the schema of a file; arguments as above."""
    text = read_text(path, named_at)
    if path.name == MOD:
        return _modules(path, text, named_at)
    found = SchemaText(text, language, str(path))
    if language is Language.FGA:
        _check(found)
        return found

    def imported(name: str) -> str:
        return read_text(beside(path, name, Place(str(path))))

    with placed(found):
        schema = read_zed(text, source=str(path), imports=imported)
        check(schema)
        whole = write_zed(schema)
    # Without imports the text stays as it is: its places are then those of the file.
    return found if not _imports(text) else SchemaText(whole, language, str(path))


def _imports(text: str) -> bool:
    return any(line.lstrip().startswith("import") for line in text.splitlines())


def _modules(path: Path, text: str, named_at: Place | None) -> SchemaText:
    found = SchemaText(text, Language.FGA, str(path))
    with placed(found):
        listed = [item.text or "" for item in read_mod(text).contents]
        files = {name: read_text(beside(path, name, Place(str(path)))) for name in listed}
        schema = read_modules({MOD: text, **files})
        check(schema)
    return SchemaText(json.dumps(to_json(schema)), Language.FGA, str(path))


def _check(found: SchemaText) -> None:
    with placed(found):
        check(read_schema(found.text, found.language))


def check(schema: Schema) -> None:
    """Refuses a schema that does not hold together.

    Raises:
        SchemaError: it does not, or a condition of it.
    """
    check_schema(schema)
    for caveat in schema.caveats:
        compile_caveat(caveat, schema.language)


@contextlib.contextmanager
def placed(found: SchemaText) -> Iterator[None]:
    """Raises what is wrong with a schema with its place in the file."""
    try:
        yield
    except SchemaError as error:
        place = found.place(error.line, error.column)
        if error.source and error.source != found.source:
            place = Place(str(Path(found.source).parent / error.source), error.line, error.column)
        where = error.where if not error.line and error.where != error.source else ""
        problem = f"{where}: {error.problem}" if where else error.problem
        raise FileError(problem, place, remedy=error.remedy) from None
