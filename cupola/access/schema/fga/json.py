"""OpenFGA's JSON form of a model: `read_fga_json` and `to_json`.

Not here: whether names mean something (`validate.py`).
Invariant: `read_fga_json(to_json(schema)) == schema`; a key that is not known is refused, not passed over.
Source: openfga/api, authzmodel.proto: its userset is our rewrite, `this` our `This`, tupleToUserset our `Arrow`.
"""

import json
from collections.abc import Mapping
from typing import Any

from cupola.access.schema.fga.errors import FgaError, Kind
from cupola.access.schema.fga.lexer import CONTAINERS, PARAMETER_TYPES
from cupola.access.schema.fga.provenance import Provenance
from cupola.access.schema.model import (
    Allowed,
    Arrow,
    Caveat,
    Computed,
    Definition,
    Exclusion,
    Expression,
    Intersection,
    Language,
    Quantifier,
    Relation,
    Schema,
    This,
    Union,
)

DEEPEST = 100
"""Rewrites within rewrites."""
_TYPE_NAME = "TYPE_NAME_"
_SCALARS = (*PARAMETER_TYPES, "any")


def read_fga_json(model: str | Mapping[str, Any]) -> Schema:
    """Returns the schema of an authorization model; names in it may still mean nothing, see `validate`.

    Args:
        model: the JSON text, or what it parses to.

    Raises:
        FgaError: it is no JSON, a part has another shape, or a condition is kept under another name than its own.
    """
    if isinstance(model, str):
        try:
            model = json.loads(model)
        except (ValueError, RecursionError) as error:
            raise FgaError(f"this is no JSON: {error}", Kind.SYNTAX) from None
    top = _record(model, "model", "id", "schema_version", "type_definitions", "conditions")
    types = _list(top.get("type_definitions"), "type_definitions")
    conditions = _record(top.get("conditions"), "conditions")
    return Schema(
        tuple(_read_type(type, f"type_definitions[{index}]") for index, type in enumerate(types)),
        tuple(_read_condition(key, condition, f"conditions.{key}") for key, condition in conditions.items()),
        Language.FGA,
        _text(top, "schema_version", ""),
    )


def to_json(schema: Schema) -> dict[str, Any]:
    """Returns the authorization model of a schema.

    Raises:
        FgaError: the schema says what only `.zed` can (`nil`, `self`, `.all()`, expiration).
    """
    model: dict[str, Any] = {"schema_version": schema.version}
    if schema.definitions:
        model["type_definitions"] = [_write_type(definition) for definition in schema.definitions]
    if schema.caveats:
        model["conditions"] = {caveat.name: _write_condition(caveat) for caveat in schema.caveats}
    return model


def _read_type(found: Any, where: str) -> Definition:
    record = _record(found, where, "type", "relations", "metadata")
    metadata = _record(record.get("metadata"), f"{where}.metadata", "relations", "module", "source_info")
    described = _record(metadata.get("relations"), f"{where}.metadata.relations")
    rewrites = _record(record.get("relations"), f"{where}.relations")
    for name in described:
        if name not in rewrites:
            raise _misshapen(f"`{name}` is described and not defined", f"{where}.metadata.relations.{name}")
    relations = (_read_relation(name, rewrites[name], described.get(name), where) for name in rewrites)
    return Definition(_text(record, "type", where), tuple(relations), _read_provenance(metadata, where))


def _read_relation(name: str, rewrite: Any, described: Any, where: str) -> Relation:
    described_at = f"{where}.metadata.relations.{name}"
    metadata = _record(described, described_at, "directly_related_user_types", "module", "source_info")
    types = _list(metadata.get("directly_related_user_types"), f"{described_at}.directly_related_user_types")
    return Relation(
        name,
        _read_rewrite(rewrite, f"{where}.relations.{name}", 1),
        tuple(
            _read_allowed(type, f"{described_at}.directly_related_user_types[{index}]")
            for index, type in enumerate(types)
        ),
        _read_provenance(metadata, described_at),
    )


def _read_allowed(found: Any, where: str) -> Allowed:
    record = _record(found, where, "type", "relation", "wildcard", "condition")
    relation, wildcard = _text(record, "relation", where), record.get("wildcard") is not None
    if relation and wildcard:
        raise _misshapen("a type restriction is a relation or a wildcard, not both", where)
    return Allowed(_text(record, "type", where), relation, wildcard, _text(record, "condition", where))


def _read_rewrite(found: Any, where: str, depth: int) -> Expression:
    if depth > DEEPEST:
        raise _misshapen(f"it stands more than {DEEPEST} deep", where)
    record = {key: value for key, value in _record(found, where).items() if value is not None}
    if len(record) != 1:
        raise _misshapen("a rewrite has one key: this, computedUserset, tupleToUserset, union, ...", where)
    ((operator, operand),) = record.items()
    where = f"{where}.{operator}"
    match operator:
        case "this":
            _record(operand, where)
            return This()
        case "computedUserset":
            return Computed(_read_name(operand, where))
        case "tupleToUserset":
            parts = _record(operand, where, "tupleset", "computedUserset")
            tupleset = _read_name(parts.get("tupleset"), f"{where}.tupleset")
            return Arrow(tupleset, _read_name(parts.get("computedUserset"), f"{where}.computedUserset"))
        case "union" | "intersection":
            children = _list(_record(operand, where, "child").get("child"), f"{where}.child")
            if not children:
                raise _misshapen("it has no child", where)
            operands = (_read_rewrite(x, f"{where}.child[{index}]", depth + 1) for index, x in enumerate(children))
            return Union(tuple(operands)) if operator == "union" else Intersection(tuple(operands))
        case "difference":
            parts = _record(operand, where, "base", "subtract")
            base = _read_rewrite(parts.get("base"), f"{where}.base", depth + 1)
            return Exclusion(base, _read_rewrite(parts.get("subtract"), f"{where}.subtract", depth + 1))
    raise _misshapen(f"`{operator}` is no rewrite", where)


def _read_name(found: Any, where: str) -> str:
    record = _record(found, where, "object", "relation")
    name = _text(record, "relation", where)
    if not name or _text(record, "object", where):
        raise _misshapen("it is no relation of the same object", where)
    return name


def _read_condition(key: str, found: Any, where: str) -> Caveat:
    record = _record(found, where, "name", "expression", "parameters", "metadata")
    name = _text(record, "name", where) or key
    if name != key:
        raise FgaError(
            f"condition key is `{key}` but nested name property is {name}",
            Kind.DIFFERENT_CONDITION_NAME,
            name,
            where=where,
        )
    parameters = _record(record.get("parameters"), f"{where}.parameters")
    types = ((each, _read_parameter(type, f"{where}.parameters.{each}")) for each, type in parameters.items())
    metadata = _record(record.get("metadata"), f"{where}.metadata", "module", "source_info")
    expression = _text(record, "expression", where).strip()
    return Caveat(name, tuple(types), expression, _read_provenance(metadata, where))


def _read_parameter(found: Any, where: str) -> str:
    record = _record(found, where, "type_name", "generic_types")
    name = _text(record, "type_name", where).removeprefix(_TYPE_NAME).lower()
    inner = [_read_parameter(x, where) for x in _list(record.get("generic_types"), f"{where}.generic_types")]
    if name in CONTAINERS and len(inner) == 1 and inner[0] in _SCALARS:
        return f"{name}<{inner[0]}>"
    if name in _SCALARS and not inner:
        return name
    raise _misshapen(f"`{name}` of {inner} is no type of a parameter", where)


def _read_provenance(metadata: Mapping[str, Any], where: str) -> str:
    source = _record(metadata.get("source_info"), f"{where}.source_info", "file")
    found = Provenance(_text(metadata, "module", where), _text(source, "file", where))
    if found != ("", "") and Provenance.parse(str(found)) != found:
        raise _misshapen(f"module {found.module!r} and file {found.file!r} are no names", where)
    return str(found) if found.module else ""


def _write_type(definition: Definition) -> dict[str, Any]:
    metadata = _write_provenance(definition.doc)
    if definition.relations:
        metadata["relations"] = {
            relation.name: {
                "directly_related_user_types": [_write_allowed(allowed, relation) for allowed in relation.allowed],
                **_write_provenance(relation.doc),
            }
            for relation in definition
        }
    relations = {relation.name: _write_rewrite(relation.rewrite, relation) for relation in definition}
    return {"type": definition.name, "relations": relations, "metadata": metadata or None}


def _write_allowed(allowed: Allowed, relation: Relation) -> dict[str, Any]:
    if allowed.expires:
        raise _unsaid(relation, "an expiration")
    reference: dict[str, Any] = {"type": allowed.type}
    if allowed.wildcard:
        reference["wildcard"] = {}
    if allowed.relation:
        reference["relation"] = allowed.relation
    if allowed.caveat:
        reference["condition"] = allowed.caveat
    return reference


def _write_rewrite(expression: Expression, relation: Relation) -> dict[str, Any]:
    match expression:
        case This():
            return {"this": {}}
        case Computed(name):
            return {"computedUserset": {"relation": name}}
        case Arrow(tupleset, computed, Quantifier.ANY):
            return {"tupleToUserset": {"tupleset": {"relation": tupleset}, "computedUserset": {"relation": computed}}}
        case Union(operands):
            return {"union": {"child": [_write_rewrite(operand, relation) for operand in operands]}}
        case Intersection(operands):
            return {"intersection": {"child": [_write_rewrite(operand, relation) for operand in operands]}}
        case Exclusion(base, subtracted):
            parts = {"base": _write_rewrite(base, relation), "subtract": _write_rewrite(subtracted, relation)}
            return {"difference": parts}
    raise _unsaid(relation, type(expression).__name__)


def _write_condition(caveat: Caveat) -> dict[str, Any]:
    parameters: dict[str, Any] = {}
    for name, type in caveat.parameters:
        outer, _, inner = type.partition("<")
        parameters[name] = {"type_name": f"{_TYPE_NAME}{outer.upper()}"}
        if inner:
            parameters[name]["generic_types"] = [{"type_name": f"{_TYPE_NAME}{inner.removesuffix('>').upper()}"}]
    condition = {"name": caveat.name, "expression": caveat.expression, "parameters": parameters}
    metadata = _write_provenance(caveat.doc)
    return {**condition, "metadata": metadata} if metadata else condition


def _write_provenance(doc: str) -> dict[str, Any]:
    found = Provenance.parse(doc)
    if found is None:
        return {}
    return {"module": found.module, **({"source_info": {"file": found.file}} if found.file else {})}


def _record(found: Any, where: str, *keys: str) -> Mapping[str, Any]:
    """Returns an object of the model, an empty one for null; with keys, it has no other."""
    if found is None:
        return {}
    if not isinstance(found, Mapping):
        raise _misshapen("it is no JSON object", where)
    for key in found:
        if keys and key not in keys:
            raise _misshapen(f"`{key}` is none of {', '.join(keys)}", where, symbol=str(key))
    return found


def _list(found: Any, where: str) -> list[Any]:
    if found is not None and not isinstance(found, list):
        raise _misshapen("it is no JSON array", where)
    return found or []


def _text(record: Mapping[str, Any], key: str, where: str) -> str:
    found = record.get(key)
    if found is not None and not isinstance(found, str):
        raise _misshapen("it is no text", f"{where}.{key}" if where else key)
    return found or ""


def _misshapen(problem: str, where: str, *, symbol: str = "") -> FgaError:
    return FgaError(problem, Kind.SYNTAX, symbol, where=where, remedy="See type_definitions in OpenFGA's API.")


def _unsaid(relation: Relation, what: str) -> FgaError:
    return FgaError(f"`{relation.name}` has {what}, which OpenFGA does not know", Kind.UNSUPPORTED, relation.name)
