"""A schema as OpenFGA's DSL: `write_fga`.

Not here: the JSON form (`json.py`).
Invariant: the text reads back as an equal schema, but that direct types move to the first place, where the DSL
wants them, and the parts of a modular model are sorted by module, file and name, as OpenFGA's tools do.
"""

import enum
from collections.abc import Iterable, Sequence
from typing import TypeVar

from cupola.access.schema.fga.errors import FgaError, Kind
from cupola.access.schema.fga.parser import parse
from cupola.access.schema.fga.provenance import Provenance
from cupola.access.schema.fga.rewrite import leaves
from cupola.access.schema.model import (
    Arrow,
    Caveat,
    Computed,
    Definition,
    Exclusion,
    Expression,
    Intersection,
    Quantifier,
    Relation,
    Schema,
    This,
    Union,
)


class Comments(enum.Enum):
    """Whether a modular model is written with the module and file of each part behind it."""

    PROVENANCE = "provenance"
    NONE = "none"


def write_fga(schema: Schema, *, comments: Comments = Comments.PROVENANCE) -> str:
    """Returns the text of a schema.

    Args:
        comments: whether the module and file of each part, where they are known, stand behind it.

    Raises:
        FgaError: the DSL cannot say it: direct types in more than one place or where they cannot come first, a name
            or an expression that would read otherwise, or what only `.zed` has.
    """
    docs = [part.doc for definition in schema.definitions for part in (definition, *definition)]
    modular = any(Provenance.parse(doc) for doc in (*docs, *(caveat.doc for caveat in schema.caveats)))
    definitions = _ordered(schema.definitions) if modular else schema.definitions
    caveats = _ordered(schema.caveats) if modular else schema.caveats
    parts = [f"model\n  schema {schema.version}\n"]
    parts += [_type(definition, modular, comments) for definition in definitions]
    parts += [_condition(caveat, comments) for caveat in caveats]
    text = "\n".join(parts)
    _read_back(text, definitions, caveats)
    return text


Part = TypeVar("Part", Definition, Relation, Caveat)


def _ordered(parts: Iterable[Part]) -> tuple[Part, ...]:
    def key(part: Part) -> tuple[str, str, str]:
        module, file = Provenance.parse(part.doc) or ("", "")
        return module, file, part.name

    return tuple(sorted(parts, key=key))


def _type(definition: Definition, modular: bool, comments: Comments) -> str:
    lines = [f"type {definition.name}{_comment(definition, comments)}"]
    relations = _ordered(definition.relations) if modular else definition.relations
    if relations:
        lines.append("  relations")
    for relation in relations:
        comment = _comment(relation, comments, "extended by: ")
        lines.append(f"    define {relation.name}: {_rewrite(relation, definition.name)}{comment}")
    return "\n".join(lines) + "\n"


def _condition(caveat: Caveat, comments: Comments) -> str:
    parameters = ", ".join(f"{name}: {type}" for name, type in caveat.parameters)
    end = f"}}{_comment(caveat, comments)}\n"
    return f"condition {caveat.name}({parameters}) {{\n  {caveat.expression}\n{end}"


def _comment(part: Definition | Relation | Caveat, comments: Comments, before: str = "") -> str:
    found = Provenance.parse(part.doc)
    return f" # {before}{found}" if found and comments is Comments.PROVENANCE else ""


def _rewrite(relation: Relation, type: str) -> str:
    direct = _count_direct(relation.rewrite)
    text = _expression(relation.rewrite, relation, type)
    if direct > 1 or (direct and not text.lstrip("(").startswith("[")) or (relation.allowed and not direct):
        raise _unsupported(relation, type)
    return text


def _count_direct(expression: Expression) -> int:
    match expression:
        case This():
            return 1
        case Union(operands) | Intersection(operands):
            return sum(_count_direct(operand) for operand in operands)
        case Exclusion(base, subtracted):
            return _count_direct(base) + _count_direct(subtracted)
    return 0


def _expression(expression: Expression, relation: Relation, type: str) -> str:
    """Returns the text of a rewrite without brackets around it."""

    def nested(operand: Expression) -> str:
        text = _expression(operand, relation, type)
        return f"({text})" if isinstance(operand, Union | Intersection | Exclusion) else text

    match expression:
        case This():
            return f"[{', '.join(str(allowed) for allowed in relation.allowed)}]"
        case Computed(name):
            return name
        case Arrow(tupleset, computed, Quantifier.ANY):
            return f"{computed} from {tupleset}"
        case Union(operands) | Intersection(operands):
            word = " or " if isinstance(expression, Union) else " and "
            return word.join(nested(operand) for operand in sorted(operands, key=lambda x: not _count_direct(x)))
        case Exclusion(base, subtracted):
            return f"{nested(base)} but not {nested(subtracted)}"
    raise _unsupported(relation, type)


def _unsupported(relation: Relation, type: str) -> FgaError:
    return FgaError(
        f"the '{relation.name}' relation definition under the '{type}' type is not supported by the OpenFGA DSL syntax",
        Kind.UNSUPPORTED,
        relation.name,
        where=f"{type}#{relation.name}",
        remedy="Give the direct types a relation of their own and name it here, or write the model as JSON.",
    )


def _read_back(text: str, definitions: Sequence[Definition], caveats: Sequence[Caveat]) -> None:
    """Refuses a schema with names or conditions whose text means something else."""
    try:
        parsed = parse(text)
    except FgaError as error:
        raise FgaError(
            f"the DSL has no text for this schema: {error.problem}", Kind.UNSUPPORTED, error.symbol
        ) from None
    meant = [*map(_facts, definitions), *map(_facts, caveats)]
    if meant != [*map(_facts, parsed.definitions), *map(_facts, parsed.caveats)]:
        raise FgaError("a name or an expression of this schema reads otherwise in the DSL", Kind.UNSUPPORTED)


def _facts(part: Definition | Caveat) -> tuple[object, ...]:
    if isinstance(part, Definition):
        return part.name, {(relation.name, relation.allowed, frozenset(leaves(relation.rewrite))) for relation in part}
    lines = (line.rstrip() for line in part.expression.split("\n"))
    return part.name, part.parameters, "\n".join(lines)
