"""A schema's text in whatever language, read and checked.

Not here: the languages (`zed/`, `fga/`), OpenFGA's modules, which are several files (`fga/modules.py`), the CEL of
caveats (`caveat/`).
Invariant: a schema that comes out is sound: its types and names hold together.
"""

import re

from cupola.access.errors import SchemaError
from cupola.access.schema.check import check_schema
from cupola.access.schema.fga.errors import Kind, collect
from cupola.access.schema.fga.json import read_fga_json
from cupola.access.schema.fga.parser import read_fga
from cupola.access.schema.fga.validate import validate
from cupola.access.schema.model import Language, Schema
from cupola.access.schema.zed.compose import read_zed

_FGA_START = re.compile(r"(?:[ \t]*(?:#[^\n]*)?\n)*[ \t]*(?:model|module)\b")
"""How OpenFGA's DSL begins, after comments; no statement of `.zed` does."""


_TOLERATED = (Kind.CONDITION_NOT_USED, Kind.DUPLICATED)
"""What OpenFGA's editors refuse and its server takes: a condition that nothing uses, and an operand or a type of
subjects that is there twice. Names that are there twice `check_schema` finds."""


def read_schema(text: str, language: Language | None = None) -> Schema:
    """Returns the schema that a text says.

    Args:
        language: None: as the text looks. OpenFGA's may be its DSL or JSON.

    Raises:
        SchemaError: it cannot be read, or does not hold together.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise SchemaError(f"character {error.start + 1} is half a one", remedy="Read the file as UTF-8.") from None
    json = text.lstrip().startswith("{")
    if language is Language.ZED or (language is None and not json and not _FGA_START.match(text.replace("\r", ""))):
        schema = read_zed(text)
    else:
        schema = read_fga_json(text) if json else read_fga(text)
        errors = [error for error in validate(schema, "" if json else text) if error.kind not in _TOLERATED]
        if errors:
            raise collect(errors)
    check_schema(schema)
    return schema
