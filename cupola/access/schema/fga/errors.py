"""Errors of OpenFGA models: which rule is broken, by which symbol, and all others that were found in the same text.

Invariant: lines and columns count from 1; `end_column` is the first column past the symbol.
Source: the names of the kinds are OpenFGA's own, so that its tools and ours report the same.
"""

import enum
from collections.abc import Sequence
from typing import NamedTuple

from cupola.access.errors import SchemaError


class Kind(enum.Enum):
    """The rule that a model breaks."""

    SYNTAX = "syntax"
    INVALID_SCHEMA = "invalid-schema"
    SCHEMA_VERSION_REQUIRED = "schema-version-required"
    RESERVED_TYPE = "reserved-type-keywords"
    RESERVED_RELATION = "reserved-relation-keywords"
    INVALID_NAME = "invalid-name"
    DUPLICATED = "duplicated-error"
    MISSING_DEFINITION = "missing-definition"
    INVALID_TYPE = "invalid-type"
    INVALID_RELATION = "invalid-relation-type"
    INVALID_RELATION_ON_TUPLESET = "invalid-relation-on-tupleset"
    TUPLESET_NOT_DIRECT = "tupleuserset-not-direct"
    NO_ENTRY_POINT = "relation-no-entry-point"
    MUST_HAVE_TYPE = "assignable-relation-must-have-type"
    MUST_NOT_HAVE_TYPE = "non-assignable-relation-has-type"
    CONDITION_NOT_DEFINED = "condition-not-defined"
    CONDITION_NOT_USED = "condition-not-used"
    DIFFERENT_CONDITION_NAME = "different-nested-condition-name"
    MULTIPLE_MODULES = "multiple-modules-in-file"
    MODULE = "module"
    """A module, or the file that lists them, is not what it must be."""
    UNSUPPORTED = "unsupported"
    """What one form of a model can say and another cannot."""


class Place(NamedTuple):
    """Where a symbol stands in a text."""

    line: int = 0
    column: int = 0
    end_column: int = 0
    source: str = ""


Places = dict[tuple[str, ...], Place]
"""Where names stand for the first time: ("version",), ("type", type), ("extend", type), ("relation", type, relation),
("condition", name), and inside a relation (ROLE, type, relation, text), where the role is "rewrite", "tupleset",
"type of", "allowed" or "caveat"."""


class FgaError(SchemaError):
    """An OpenFGA model that cannot be read or does not hold together.

    Args:
        problem: what is so, and why it cannot be.
        kind: the rule that is broken.
        symbol: the name or text that breaks it.
        place: of the symbol.
        where: the part at fault, where there is no text with lines.
        remedy: what to type instead.

    Attributes:
        others: the further errors of the same text, in its order.
    """

    def __init__(
        self, problem: str, kind: Kind, symbol: str = "", *, place: Place = Place(), where: str = "", remedy: str = ""
    ):
        line, column, end_column, source = place
        super().__init__(problem, line=line, column=column, source=source, where=where, remedy=remedy)
        self.kind, self.symbol, self.end_column = kind, symbol, end_column
        self.others: tuple[FgaError, ...] = ()

    def __str__(self) -> str:
        return "\n".join([super().__str__(), *(str(other) for other in self.others)])


def collect(errors: Sequence[FgaError]) -> FgaError:
    """Returns the first error, which holds the others.

    Args:
        errors: at least one.
    """
    first, *others = errors
    first.others = tuple(others)
    return first
