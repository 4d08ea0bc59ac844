"""The statements of a `.zed` text, before imports and partials are put in.

Not here: reading them (`parser.py`), what they make together (`compose.py`).
"""

import dataclasses

from cupola.access.errors import SchemaError
from cupola.access.schema.model import Caveat, Relation


@dataclasses.dataclass(frozen=True)
class Import:
    """A statement `import "path"`."""

    path: str
    line: int
    column: int


@dataclasses.dataclass(frozen=True)
class Splat:
    """A statement `...partial`."""

    name: str
    line: int
    column: int


@dataclasses.dataclass(frozen=True)
class Declared:
    """A relation or permission.

    Args:
        types: that a permission says its subjects are of (`permission view: user = ...`); empty: it says nothing.
    """

    relation: Relation
    types: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Block:
    """A definition or a partial."""

    name: str
    statements: tuple[Declared | Splat, ...]
    partial: bool
    doc: str
    line: int
    column: int


@dataclasses.dataclass(frozen=True)
class File:
    """The statements of one text.

    Args:
        uses: features that it switches on, each once.
        refusals: what is well-formed and yet cannot be composed, in the order of the text.
    """

    uses: tuple[str, ...]
    statements: tuple[Block | Caveat | Import, ...]
    refusals: tuple[SchemaError, ...]
