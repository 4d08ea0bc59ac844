"""Relationships and their changes as columns of tables, and back.

Not here: statements (`snapshot.py`, `draft.py`), tables (`migrate.py`).
Invariant: what is written reads back as equal.
"""

import json
from collections.abc import Sequence

from cupola.access.relation import Caveated, Object, Operation, Relationship, Update
from cupola.access.store.kinds import Kinds, kind_of

LIVE = 0
"""The deletion revision of what was not deleted: the shortest number that a row can hold."""
Key = tuple[int, str, str]
"""Number of the kind, the object's id, the subject's id."""
Row = tuple[int, int, str, str, int, int, str | None, float | None]
"""A version of a relationship, in the order of COLUMNS: numbers of tenant and kind, ids, the revision from which on it
is not so (LIVE: it is), the one from which on it is so, the condition, seconds since 1970 when it ends."""
COLUMNS = ("tenant", "kind", "object", "subject", "deleted", "created", "caveat", "expires")
INSERT = f"INSERT INTO access_relationship ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"


def caveat_text(caveat: Caveated | None) -> str | None:
    """Returns a condition as one text; names have no spaces."""
    return None if caveat is None else f"{caveat.name} {caveat.context}"


def caveat_of(text: str | None) -> Caveated | None:
    """Returns the condition of a text."""
    if text is None:
        return None
    name, _, context = text.partition(" ")
    return Caveated(name, context)


def key_of(kinds: Kinds, relationship: Relationship) -> Key:
    """Returns the columns that there is only one live row of.

    Raises:
        KeyError: its kind has no number yet.
    """
    return kinds.numbers[kind_of(relationship)], relationship.object.id, relationship.subject.id


def relationship_of(kinds: Kinds, key: Key, caveat: str | None, expires: float | None) -> Relationship:
    """Returns the relationship of a row's columns."""
    kind = kinds[key[0]]
    return Relationship(Object(kind.type, key[1]), kind.relation, kind.subject(key[2]), caveat_of(caveat), expires)


def updates_text(kinds: Kinds, updates: Sequence[Update]) -> str:
    """Returns updates as the changelog has them: JSON, kinds by their numbers."""
    fields = [
        (operation.value, *key_of(kinds, one), caveat_text(one.caveat), one.expires_seconds)
        for operation, one in updates
    ]
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False)


def updates_of(kinds: Kinds, text: str) -> tuple[Update, ...]:
    """Returns the updates of a text."""
    return tuple(
        Update(Operation(word), relationship_of(kinds, (kind, object, subject), caveat, expires))
        for word, kind, object, subject, caveat, expires in json.loads(text)
    )
