"""Whether a schema allows a relationship to be written.

Not here: whether it is there already, and preconditions (`store/`).
Invariant: what is let through names only what the schema has. It is asked for every relationship of a bulk import,
so the rules of a schema are made once, and the common answer costs one look into a set.
"""

import functools
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from cupola.access.errors import AccessError, InvalidArgument, Named, NotAllowed, UnknownName, meant
from cupola.access.relation import LONGEST_ID, WILDCARD, Operation, Relationship, Update
from cupola.access.schema.fga.ids import is_object_id
from cupola.access.schema.model import Language, Relation, Schema

_ZED_ID = re.compile(rf"[a-zA-Z0-9/_|\-=+]{{1,{LONGEST_ID}}}")
_KEPT = 64
"""Schemas whose rules are kept: some tenants', and some versions of each."""


def check_relationship(schema: Schema, relationship: Relationship, *, operation: Operation = Operation.TOUCH) -> None:
    """Refuses a relationship that the schema does not allow.

    Args:
        operation: a deletion needs a type and a relation that are there, and no more: what an older schema allowed
            can go.

    Raises:
        UnknownName: the schema has no such type, relation or caveat.
        NotAllowed: it has them, and not in this combination; or the relation is a permission.
        InvalidArgument: an id has characters that the language does not have, or is too long.
    """
    rules = _rules(_Same(schema))
    (type, id), relation, subject, caveat, expires_seconds = relationship
    if not rules.is_id(id) or (subject.id != WILDCARD and not rules.is_id(subject.id)):
        raise _id_error(rules, relationship)
    allowed = rules.allowed.get((type, relation))
    if allowed is None or operation is Operation.DELETE:
        if allowed is None and (operation is not Operation.DELETE or relation not in rules.names.get(type, ())):
            raise _unwritable(schema, relationship)
        return
    name = "" if caveat is None else caveat.name
    kind = (subject.type, subject.relation, subject.id == WILDCARD, name, expires_seconds is not None)
    if kind not in allowed:
        raise _not_allowed(schema, relationship)
    if caveat is not None and caveat.context != "{}":
        _check_context(rules.parameters[name], relationship)


def check_updates(schema: Schema, updates: Sequence[Update]) -> None:
    """Refuses the changes of one write that a schema does not allow, and two changes of one relationship.

    Raises:
        UnknownName, NotAllowed, InvalidArgument: as `check_relationship`.
    """
    seen = set()
    for update in updates:
        key = update.relationship.key
        if key in seen:
            raise InvalidArgument(
                "is changed twice in one write", where=str(update.relationship), remedy="Send one change of it."
            )
        seen.add(key)
        check_relationship(schema, update.relationship, operation=update.operation)


class _Same:
    """A schema as a key that is compared by identity: hashing all of it would cost more than the check."""

    __slots__ = ("schema",)

    def __init__(self, schema: Schema):
        self.schema = schema

    def __hash__(self) -> int:
        return id(self.schema)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.schema is self.schema


class _Rules(NamedTuple):
    """What a schema allows, made for looking up.

    Args:
        allowed: kinds of subject by type and relation: type, relation, wildcard, caveat, whether it expires.
        parameters: names by caveat.
        names: of relations and permissions, by type.
    """

    is_id: Callable[[str], object]
    allowed: Mapping[tuple[str, str], frozenset[tuple[str, str, bool, str, bool]]]
    parameters: Mapping[str, frozenset[str]]
    names: Mapping[str, frozenset[str]]


@functools.lru_cache(maxsize=_KEPT)
def _rules(same: _Same) -> _Rules:
    schema = same.schema
    return _Rules(
        _ZED_ID.fullmatch if schema.language is Language.ZED else _is_fga_id,
        {
            (definition.name, relation.name): frozenset(
                (one.type, one.relation, one.wildcard, one.caveat, one.expires) for one in relation.allowed
            )
            for definition in schema.definitions
            for relation in definition
            if relation.allowed
        },
        {caveat.name: frozenset(name for name, _ in caveat.parameters) for caveat in schema.caveats},
        {definition.name: frozenset(one.name for one in definition) for definition in schema.definitions},
    )


def _check_context(parameters: frozenset[str], relationship: Relationship) -> None:
    caveat = relationship.caveat
    given = json.loads(caveat.context) if caveat else {}
    for name in given:
        if name not in parameters:
            raise NotAllowed(
                f"caveat `{caveat.name if caveat else ''}` has no parameter `{name}`",
                where=str(relationship),
                remedy=meant(name, parameters) or f"It has {', '.join(sorted(parameters))}.",
            )


def _is_fga_id(text: str) -> bool:
    return len(text) <= LONGEST_ID and is_object_id(text)


def _id_error(rules: _Rules, relationship: Relationship) -> AccessError:
    object, subject = relationship.object, relationship.subject
    where, id = ("subject", subject.id) if rules.is_id(object.id) else ("object", object.id)
    more = "@ . + / - *, no * first" if rules.is_id is _is_fga_id else "/ - = +"
    return InvalidArgument(
        f"{id[:80]!r} is no id" + ("; only a subject can be `*`" if id == WILDCARD else ""),
        where=f"{where} of {str(relationship)[:200]}",
        remedy=f"Write 1 to {LONGEST_ID} of a-z, A-Z, 0-9, _ | {more}",
    )


def _unwritable(schema: Schema, relationship: Relationship) -> AccessError:
    """Returns why no relationship of this type and relation can be written."""
    definition = schema.types.get(relationship.object.type)
    if definition is None:
        return _no_type(schema, relationship.object.type, relationship)
    found = definition.get(relationship.relation)
    if found is None:
        return _no_relation(definition.name, relationship.relation, definition, relationship)
    return NotAllowed(
        f"cannot write a relationship to permission `{found.name}` under definition `{definition.name}`",
        where=str(relationship),
        remedy=f"Write to a relation: {', '.join(one.name for one in definition if one.writable) or 'it has none'}.",
    )


def _not_allowed(schema: Schema, relationship: Relationship) -> AccessError:
    """Returns why a relation does not allow a kind of subject."""
    (type, _), name, subject, caveat, _ = relationship
    definition = schema.types.get(subject.type)
    if definition is None:
        return _no_type(schema, subject.type, relationship)
    if subject.relation and definition.get(subject.relation) is None:
        return _no_relation(subject.type, subject.relation, definition, relationship)
    if caveat is not None and caveat.name not in schema.conditions:
        return UnknownName(
            f"caveat `{caveat.name}` not found",
            kind=Named.CAVEAT,
            where=str(relationship),
            remedy=meant(caveat.name, schema.conditions) or "Declare it in the schema.",
        )
    relation = schema.relation(type, name)
    kind = f"{subject.type}:*" if subject.id == WILDCARD else subject.type
    kind += f"#{subject.relation}" if subject.relation else ""
    traits = [caveat.name] if caveat is not None else []
    traits += ["expiration"] if relationship.expires_seconds is not None else []
    kind += f" with {' and '.join(traits)}" if traits else ""
    return NotAllowed(
        f"subjects of type `{kind}` are not allowed on relation `{type}#{name}`",
        where=str(relationship),
        remedy=f"It allows {' | '.join(map(str, relation.allowed)) if relation else 'nothing'}.",
    )


def _no_type(schema: Schema, name: str, relationship: Relationship) -> AccessError:
    remedy = meant(name, schema.types)
    return UnknownName(f"object definition `{name}` not found", kind=Named.TYPE, where=str(relationship), remedy=remedy)


def _no_relation(type: str, name: str, relations: Iterable[Relation], relationship: Relationship) -> AccessError:
    return UnknownName(
        f"relation/permission `{name}` not found under definition `{type}`",
        kind=Named.RELATION,
        where=str(relationship),
        remedy=meant(name, [one.name for one in relations]),
    )
