"""The relationships at one revision, read by SQL.

Not here: writing (`draft.py`), rows (`rows.py`).
Invariant: a look-up is one statement that walks one index, and learns in the same statement whether the revision is
still kept; so what was forgotten while it was asked for is an error and no wrong answer.
"""

import functools
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from cupola.access.relation import WILDCARD, Filter, Object, Relationship, Subject
from cupola.access.store.database import Run
from cupola.access.store.kinds import Kind, Kinds, kind_between
from cupola.access.store.refuse import check_kept, check_limit
from cupola.access.store.rows import caveat_of, relationship_of

_VISIBLE = "r.created <= ? AND +r.deleted NOT BETWEEN 1 AND ?"
"""The plus keeps SQLite from using an index for it, and so from planning anew whenever the revision is another."""
_FROM = "FROM access_tenant t LEFT JOIN access_relationship r ON r.tenant = t.number AND"
_FIND = (
    f"SELECT t.oldest, r.subject, r.caveat, r.expires {_FROM} r.kind = ? AND r.object = ? AND r.subject = ?"
    f" AND {_VISIBLE} WHERE t.number = ?"
)
_OBJECTS = (
    f"SELECT t.oldest, r.object, r.caveat, r.expires {_FROM} r.kind = ? AND r.subject = ? AND {_VISIBLE}"
    " WHERE t.number = ?"
)
_OLDEST = "SELECT oldest FROM access_tenant WHERE number = ?"


@functools.cache
def _subjects(kinds: int) -> str:
    marks = ", ".join("?" * kinds)
    return (
        f"SELECT t.oldest, r.kind, r.subject, r.caveat, r.expires {_FROM} r.kind IN ({marks}) AND r.object = ?"
        f" AND {_VISIBLE} WHERE t.number = ?"
    )


def after_prefix(prefix: str) -> str | None:
    """Returns the first text after all that begin with a prefix; None: there is none."""
    kept = prefix.rstrip(chr(0x10FFFF))
    if not kept:
        return None
    # The surrogates are no characters, so the one after U+D7FF is U+E000.
    code = ord(kept[-1]) + 1
    return kept[:-1] + chr(0xE000 if code == 0xD800 else code)


def conditions(filter: Filter) -> tuple[str, list[Any]]:
    """Returns what a filter asks of a row's ids, as SQL that begins with AND, and its values."""
    asked: list[tuple[str, Any]] = []
    if filter.id:
        asked.append(("r.object = ?", filter.id))
    if filter.id_prefix:
        asked.append(("r.object >= ?", filter.id_prefix))
        end = after_prefix(filter.id_prefix)
        asked += [] if end is None else [("r.object < ?", end)]
    if filter.subject_id:
        asked.append(("r.subject = ?", filter.subject_id))
    return "".join(f" AND {text}" for text, _ in asked), [value for _, value in asked]


def _later(kind: Kind, after: Relationship) -> tuple[str, list[Any]] | None:
    """Returns what a row of a kind must be to sort after a relationship, as `conditions` does; None: none does."""
    (type, id), relation, subject = after.key
    if kind.type != type:
        return ("", []) if kind.type > type else None
    mine, other = (kind.relation, kind.subject_type), (relation, subject.type)
    if mine != other:
        return f" AND r.object {'>=' if mine > other else '>'} ?", [id]
    same = ">=" if kind.subject_relation not in ("", WILDCARD) and kind.subject_relation > subject.relation else ">"
    return f" AND (r.object, r.subject) {same} (?, ?)", [id, subject.id]


class SQLSnapshot:
    """All relationships of a tenant at one revision.

    Args:
        run: runs a statement, by itself or in a transaction.
        tenant: number of the tenant.
        revision: that was made.
        kinds: of the tenant, as of this revision or later.
        look_up: runs a statement that says by itself whether the revision is kept; None: as all others.
    """

    def __init__(self, run: Run, tenant: int, revision: int, kinds: Kinds, *, look_up: Run | None = None):
        self._read, self._tenant, self._kinds = run, tenant, kinds
        self._run = look_up or run
        self.revision = revision

    def find(self, object: Object, relation: str, subject: Subject) -> Relationship | None:
        """Returns the relationship of exactly this key."""
        kind = self._kinds.numbers.get(kind_between(object.type, relation, subject))
        if kind is None:
            return None
        at = self.revision
        oldest, found, caveat, expires = self._run(_FIND, (kind, object.id, subject.id, at, at, self._tenant))[0]
        check_kept(at, oldest)
        return None if found is None else Relationship(object, relation, subject, caveat_of(caveat), expires)

    def subjects(self, object: Object, relation: str) -> Sequence[Relationship]:
        """Returns those of an object's relation."""
        return self._of(object, relation, self._kinds.of(object, relation))

    def indirect(self, object: Object, relation: str) -> Sequence[Relationship]:
        """Returns those of them whose subject has a relation or is a wildcard."""
        return self._of(object, relation, self._kinds.indirect(object, relation))

    def _of(self, object: Object, relation: str, kinds: tuple[int, ...]) -> Sequence[Relationship]:
        if not kinds:
            return ()
        at, names = self.revision, self._kinds
        rows = self._run(_subjects(len(kinds)), (*kinds, object.id, at, at, self._tenant))
        check_kept(at, rows[0][0])
        if rows[0][1] is None:
            return ()
        return [
            Relationship(object, relation, names[kind].subject(id), caveat_of(caveat), expires)
            for _, kind, id, caveat, expires in rows
        ]

    def objects(self, subject: Subject, type: str, relation: str) -> Sequence[Relationship]:
        """Returns those in which a subject has a relation to objects of a type."""
        kind = self._kinds.numbers.get(kind_between(type, relation, subject))
        if kind is None:
            return ()
        at = self.revision
        rows = self._run(_OBJECTS, (kind, subject.id, at, at, self._tenant))
        check_kept(at, rows[0][0])
        if rows[0][1] is None:
            return ()
        return [
            Relationship(Object(type, id), relation, subject, caveat_of(caveat), expires)
            for _, id, caveat, expires in rows
        ]

    def read(
        self, filter: Filter, *, after: Relationship | None = None, limit: int | None = None
    ) -> Sequence[Relationship]:
        """Returns those that match, at most `limit`, that sort after `after`."""
        check_limit(limit)
        kinds = sorted(self._kinds.matching(filter), key=lambda number: self._kinds[number])
        found: list[Relationship] = []
        for _, same_type in groupby(kinds, key=lambda number: self._kinds[number].type):
            lacking = None if limit is None else limit - len(found)
            page = [one for kind in same_type for one in self._of_kind(kind, filter, after, lacking)]
            found += sorted(page, key=lambda one: one.key)[:lacking]
            if len(found) == limit:
                break
        check_kept(self.revision, self._read(_OLDEST, (self._tenant,))[0][0])
        return found

    def _of_kind(
        self, kind: int, filter: Filter, after: Relationship | None, limit: int | None
    ) -> Iterator[Relationship]:
        later = ("", []) if after is None else _later(self._kinds[kind], after)
        if later is None:
            return
        where, values = conditions(filter)
        sql = (
            "SELECT r.object, r.subject, r.caveat, r.expires FROM access_relationship r"
            f" WHERE r.tenant = ? AND r.kind = ?{where}{later[0]} AND {_VISIBLE} ORDER BY r.object, r.subject"
        )
        asked = [self._tenant, kind, *values, *later[1], self.revision, self.revision]
        if limit is not None:
            sql, asked = f"{sql} LIMIT ?", [*asked, limit]
        for object, subject, caveat, expires in self._read(sql, asked):
            yield relationship_of(self._kinds, (kind, object, subject), caveat, expires)
