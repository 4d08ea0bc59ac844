"""Whether relationships would be left that a new schema does not allow.

Not here: whether one relationship may be written (`relate.py`).
Invariant: after a schema is let through, the new one allows every relationship that has not expired.
"""

import time
from collections.abc import Iterator

from cupola.access.errors import Orphaned
from cupola.access.relation import WILDCARD, Filter, Relationship
from cupola.access.schema.model import Allowed, Relation, Schema
from cupola.access.store.protocol import Snapshot

_PAGE = 1000
"""Relationships that are read at a time."""


def refuse_orphans(before: Schema, after: Schema, snapshot: Snapshot) -> None:
    """Refuses a schema that does not allow relationships which are there.

    Args:
        before: the schema that allows them.
        after: its successor, in itself sound (`check_schema`).

    Raises:
        Orphaned: names the first relationship that would be orphaned, and what it needs.
    """
    for definition in before.definitions:
        for relation in definition:
            if relation.allowed:
                _check_relation(definition.name, relation, after, snapshot)
    _check_parameters(before, after, snapshot)


def _check_relation(type: str, relation: Relation, after: Schema, snapshot: Snapshot) -> None:
    remaining = after.relation(type, relation.name)
    kept = () if remaining is None else remaining.allowed
    for allowed in relation.allowed:
        if allowed not in kept:
            for found in _relationships(type, relation.name, allowed, snapshot):
                if type not in after.types:
                    problem = f"cannot delete object definition `{type}`, as a relationship exists under it"
                elif not kept:
                    problem = f"cannot delete relation `{relation.name}` in object definition `{type}`, as a relationship exists under it"
                else:
                    problem = (
                        f"cannot remove allowed type `{allowed}` from relation `{relation.name}` in object definition "
                        f"`{type}`, as a relationship exists with it"
                    )
                raise Orphaned(f"{problem}: {found}", where="schema", remedy="Delete such relationships first.")


def _check_parameters(before: Schema, after: Schema, snapshot: Snapshot) -> None:
    """Refuses to take parameters away, or to give them another type, that relationships bring."""
    for caveat in before.caveats:
        successor = after.conditions.get(caveat.name)
        if successor is None:
            # Then no relation allows it any more, which was looked at.
            continue
        types = dict(successor.parameters)
        changed = {name for name, type in caveat.parameters if types.get(name) != type}
        for found in _caveated(before, caveat.name, snapshot) if changed else ():
            for name in sorted(changed.intersection(found.caveat.parameters if found.caveat else ())):
                what = "change the type of" if name in types else "remove"
                raise Orphaned(
                    f"cannot {what} parameter `{name}` on caveat `{caveat.name}`, as a relationship brings it: {found}",
                    where="schema",
                    remedy="Delete such relationships first, or give the new condition another name.",
                )


def _caveated(schema: Schema, caveat: str, snapshot: Snapshot) -> Iterator[Relationship]:
    for definition in schema.definitions:
        for relation in definition:
            for allowed in relation.allowed:
                if allowed.caveat == caveat:
                    yield from _relationships(definition.name, relation.name, allowed, snapshot)


def _relationships(type: str, relation: str, allowed: Allowed, snapshot: Snapshot) -> Iterator[Relationship]:
    """Yields those of a kind that have not expired."""
    subject_id = WILDCARD if allowed.wildcard else ""
    filter = Filter(
        type=type,
        relation=relation,
        subject_type=allowed.type,
        subject_id=subject_id,
        subject_relation=allowed.relation,
    )
    now, after = time.time(), None
    while page := snapshot.read(filter, after=after, limit=_PAGE):
        for one in page:
            caveat = "" if one.caveat is None else one.caveat.name
            if (
                (one.subject.id == WILDCARD) == allowed.wildcard
                and caveat == allowed.caveat
                and (one.expires_seconds is not None) == allowed.expires
                and (one.expires_seconds is None or one.expires_seconds > now)
            ):
                yield one
        after = page[-1]
        if len(page) < _PAGE:
            return
