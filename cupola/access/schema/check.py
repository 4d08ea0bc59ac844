"""Whether the types and names of a schema hold together.

Not here: syntax and each name being there once (`zed/`, `fga/`), OpenFGA's own rules (`fga/validate.py`), the CEL
of caveats (`caveat/`).
Invariant: a schema that passes names only types, relations and caveats that it has.
Source: SpiceDB's documentation of its schema language, for the rules of `.zed` beyond that.
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from cupola.access.errors import SchemaError, meant
from cupola.access.schema.model import (
    Allowed,
    Arrow,
    Caveat,
    Computed,
    Definition,
    Language,
    Relation,
    Schema,
    This,
)
from cupola.access.schema.reflect import leaves

_ZED_PART = "[a-z][a-z0-9_]{1,62}[a-z0-9]"
_ZED_TYPE = re.compile(rf"(?=.{{1,128}}$)(?:{_ZED_PART}/)*{_ZED_PART}")
_ZED_RELATION = re.compile(_ZED_PART)
_ZED_CAVEAT = re.compile("[a-zA-Z0-9_][a-zA-Z0-9/_|-]{0,127}")
_FGA_TYPE = re.compile(r"[^:#@*\s]{1,254}")
_FGA_NAME = re.compile(r"[^:#@*\s]{1,50}")
_FGA_CONDITION = re.compile(r"[^*\s]{1,50}")

_ZED_RULE = "Write 3 to 64 of a-z, 0-9 and _, a letter first and no _ last; types may have such prefixes before a /"
_FGA_RULE = "Write at most 50 characters (254 for a type) without : # @ * and blanks"


class _Names(NamedTuple):
    """What a schema has, by name."""

    types: Mapping[str, Mapping[str, Relation]]
    caveats: Mapping[str, Caveat]
    language: Language


def check_schema(schema: Schema) -> None:
    """Refuses a schema whose types and names do not hold together.

    Raises:
        SchemaError: the first breach, with the line and column of the relation, type or caveat that has it.
    """
    _check_unique(schema)
    types = {definition.name: {one.name: one for one in definition} for definition in schema.definitions}
    names = _Names(types, schema.conditions, schema.language)
    for caveat in schema.caveats:
        _check_caveat(caveat, schema.language)
    for definition in schema.definitions:
        _check_definition(definition, names)


def _check_definition(definition: Definition, names: _Names) -> None:
    zed = names.language is Language.ZED
    rule = _ZED_RULE if zed else _FGA_RULE
    _check_name(definition, _ZED_TYPE if zed else _FGA_TYPE, rule)
    for relation in definition:
        _check_name(relation, _ZED_RELATION if zed else _FGA_NAME, rule)
        _check_rewrite(definition.name, relation, names)
        _check_allowed(definition.name, relation, names)
    if zed:
        _check_cycles(definition, names.types[definition.name])


def _check_unique(schema: Schema) -> None:
    if schema.language is Language.ZED:
        _unique([*schema.definitions, *schema.caveats], "definition or caveat")
    else:
        _unique(schema.definitions, "type")
        _unique(schema.caveats, "condition")
    for definition in schema.definitions:
        _unique(definition, f"relation/permission under definition `{definition.name}`:")


def _unique(named: Iterable[Definition | Caveat | Relation], what: str) -> None:
    seen = set()
    for one in named:
        if one.name in seen:
            raise _error(one, f"found duplicate {what} `{one.name}`", "Choose another name.")
        seen.add(one.name)


def _check_name(at: Definition | Relation | Caveat, pattern: re.Pattern[str], rule: str) -> None:
    if not pattern.fullmatch(at.name):
        raise _error(at, f"`{at.name}` is no name", rule)


def _check_caveat(caveat: Caveat, language: Language) -> None:
    if language is Language.ZED:
        _check_name(caveat, _ZED_CAVEAT, "Write at most 128 of a-z, A-Z, 0-9, _, / and -")
    else:
        _check_name(caveat, _FGA_CONDITION, "Write at most 50 characters without * and blanks")
    if not caveat.parameters and language is Language.ZED:
        raise _error(caveat, f"caveat `{caveat.name}` must have at least one parameter defined")
    seen = set()
    for name, _ in caveat.parameters:
        if name in seen:
            raise _error(caveat, f"duplicate parameter `{name}` defined on caveat `{caveat.name}`")
        seen.add(name)


def _check_rewrite(type: str, relation: Relation, names: _Names) -> None:
    relations = names.types[type]
    for leaf in leaves(relation.rewrite):
        if isinstance(leaf, Computed | Arrow):
            name = leaf.name if isinstance(leaf, Computed) else leaf.tupleset
            found = relations.get(name)
            if found is None:
                raise _error(relation, _absent(type, name), meant(name, relations))
            if isinstance(leaf, Arrow) and names.language is Language.ZED:
                _check_arrow(type, relation, found, names)


def _check_arrow(type: str, permission: Relation, tupleset: Relation, names: _Names) -> None:
    if not isinstance(tupleset.rewrite, This):
        raise _error(
            permission,
            f"under permission `{permission.name}` under definition `{type}`: permissions cannot be used on the left "
            f"hand side of an arrow (found `{tupleset.name}`)",
            f"Name a relation there: RELATION->{_rights(permission, tupleset.name)}",
        )
    found = _wildcard(type, tupleset.name, names)
    if found is not None:
        where, wildcard = found
        raise _error(
            permission,
            f"for arrow under permission `{permission.name}`: relation `{type}#{tupleset.name}` includes wildcard type "
            f"`{wildcard}` via relation `{where}`: wildcard relations cannot be used on the left side of arrows",
            f"Take {wildcard}:* away, or put it in a relation of its own.",
        )


def _check_allowed(type: str, relation: Relation, names: _Names) -> None:
    zed = names.language is Language.ZED
    if zed and relation.writable and not relation.allowed:
        raise _error(
            relation,
            f"at least one allowed relation/permission is required to be defined for relation `{relation.name}`",
            f"Write relation {relation.name}: TYPE",
        )
    seen: set[Allowed] = set()
    for allowed in relation.allowed:
        if zed and allowed in seen:
            raise _error(
                relation,
                f"found duplicate allowed subject type `{allowed}` on relation `{relation.name}` "
                f"under definition `{type}`",
            )
        seen.add(allowed)
        _check_subject(relation, allowed, names)
        # Through relations of the same type a wildcard may come, as in SpiceDB.
        if zed and allowed.relation and allowed.type != type:
            _check_transitive(relation, allowed, names)
        if allowed.caveat and allowed.caveat not in names.caveats:
            raise _error(
                relation,
                f"could not lookup caveat `{allowed.caveat}` for relation `{relation.name}`: "
                f"caveat `{allowed.caveat}` not found",
                meant(allowed.caveat, names.caveats),
            )


def _check_subject(relation: Relation, allowed: Allowed, names: _Names) -> None:
    subject = names.types.get(allowed.type)
    if subject is None:
        raise _error(
            relation,
            f"could not lookup definition `{allowed.type}` for relation `{relation.name}`: "
            f"object definition `{allowed.type}` not found",
            meant(allowed.type, names.types),
        )
    if allowed.relation and allowed.relation not in subject:
        raise _error(relation, _absent(allowed.type, allowed.relation), meant(allowed.relation, subject))


def _check_transitive(relation: Relation, allowed: Allowed, names: _Names) -> None:
    found = _wildcard(allowed.type, allowed.relation, names)
    if found is not None:
        where, wildcard = found
        raise _error(
            relation,
            f"for relation `{relation.name}`: relation/permission `{allowed.type}#{allowed.relation}` includes wildcard "
            f"type `{wildcard}` via relation `{where}`: wildcard relations cannot be transitively included",
            f"Take {wildcard}:* away from `{where}`, or allow {wildcard}:* here.",
        )


def _wildcard(type: str, name: str, names: _Names) -> tuple[str, str] | None:
    """Returns the relation by which a relation allows a wildcard, itself or by the relations of its subjects, and
    the wildcard's type."""
    waiting, seen = [(type, name)], set()
    while waiting:
        place = waiting.pop(0)
        relation = names.types.get(place[0], {}).get(place[1])
        if relation is None or place in seen:
            continue
        seen.add(place)
        for allowed in relation.allowed:
            if allowed.wildcard:
                return f"{place[0]}#{place[1]}", allowed.type
            if allowed.relation:
                waiting.append((allowed.type, allowed.relation))
    return None


def _check_cycles(definition: Definition, relations: Mapping[str, Relation]) -> None:
    """Refuses permissions that are but other names of each other; other cycles have a meaning."""
    done: set[str] = set()
    for start in definition:
        name, path = start.name, {start.name: 0}
        while name not in done and isinstance(rewrite := relations[name].rewrite, Computed):
            name = rewrite.name
            if name in path:
                names = list(path)[path[name] :]
                raise _error(
                    relations[name],
                    f"under definition `{definition.name}`, there exists a cycle in permissions: {', '.join(names)}",
                    "Compute one of them from relations.",
                )
            path[name] = len(path)
        done.update(path)


def _rights(permission: Relation, tupleset: str) -> str:
    return next(
        leaf.computed for leaf in leaves(permission.rewrite) if isinstance(leaf, Arrow) and leaf.tupleset == tupleset
    )


def _absent(type: str, relation: str) -> str:
    return f"relation/permission `{relation}` not found under definition `{type}`"


def _error(at: Definition | Relation | Caveat, problem: str, remedy: str = "") -> SchemaError:
    return SchemaError(problem, line=at.line, column=at.column, remedy=remedy)
