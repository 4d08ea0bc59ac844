"""A schema as `.zed` text.

Not here: reading it (`compose.py`).
Invariant: what `read_zed` has read, written, reads back as an equal schema.
"""

from cupola.access.errors import SchemaError
from cupola.access.schema.model import (
    Arrow,
    Caveat,
    Computed,
    Definition,
    Exclusion,
    Expression,
    Intersection,
    Itself,
    Nil,
    Quantifier,
    Relation,
    Schema,
    This,
    Union,
)


def write_zed(schema: Schema) -> str:
    """Returns the text of a schema: what it uses, caveats, definitions.

    Raises:
        SchemaError: a relation is rewritten and written at once, which OpenFGA's language can say and this cannot.
    """
    parts = ["\n".join(f"use {feature}" for feature in schema.uses)] if schema.uses else []
    parts += [_caveat(caveat) for caveat in schema.caveats]
    parts += [_definition(definition) for definition in schema.definitions]
    return "\n\n".join(parts) + "\n" if parts else ""


def write_expression(expression: Expression) -> str:
    """Returns the text of a permission's expression.

    Raises:
        SchemaError: it has relationships of its own, which OpenFGA's language can say and this cannot.
    """
    match expression:
        case Computed(name):
            return name
        case Arrow(tupleset, computed, Quantifier.ANY):
            return f"{tupleset}->{computed}"
        case Arrow(tupleset, computed, quantifier):
            return f"{tupleset}.{quantifier.value}({computed})"
        case Nil():
            return "nil"
        case Itself():
            return "self"
        case Union(operands):
            return " + ".join(map(_operand, operands))
        case Intersection(operands):
            return " & ".join(map(_operand, operands))
        case Exclusion(base, subtracted):
            left = write_expression(base) if isinstance(base, Exclusion) else _operand(base)
            return f"{left} - {_operand(subtracted)}"
    raise SchemaError(
        "`.zed` has no relation that is both written and computed",
        remedy="Split it: a relation for what is written, and a permission that adds the rest.",
    )


def _operand(expression: Expression) -> str:
    text = write_expression(expression)
    # `+` binds tighter than `&` here, against habit: parentheses say what is meant.
    return f"({text})" if isinstance(expression, Union | Intersection | Exclusion) else text


def _definition(definition: Definition) -> str:
    head = f"{_doc(definition.doc)}definition {definition.name} {{"
    if not definition.relations:
        return head + "}"
    lines = [_relation(relation, first=at == 0) for at, relation in enumerate(definition)]
    return "\n".join([head, *lines, "}"])


def _relation(relation: Relation, first: bool) -> str:
    doc = _doc(relation.doc, "\t")
    space = "\n" if doc and not first else ""
    if isinstance(relation.rewrite, This):
        said = f"relation {relation.name}: {' | '.join(map(str, relation.allowed))}"
    else:
        said = f"permission {relation.name} = {write_expression(relation.rewrite)}"
    return f"{space}{doc}\t{said}"


def _caveat(caveat: Caveat) -> str:
    parameters = ", ".join(f"{name} {type}" for name, type in caveat.parameters)
    return f"{_doc(caveat.doc)}caveat {caveat.name}({parameters}) {{\n\t{caveat.expression}\n}}"


def _doc(doc: str, indent: str = "") -> str:
    return "".join(f"{indent}// {line}".rstrip() + "\n" for line in doc.split("\n")) if doc else ""
