"""The flattened group index of a store: nested membership in one step, at exact revisions.

Not here: how memberships are flattened (`groups.py`), questions that it does not settle (`check.py`).
Invariant: an answer for a revision is given from the memberships of that revision or not at all.
Source: Pang et al. 2019, "Zanzibar", section 3.2.4 (Leopard): an offline snapshot and a layer fed by the changelog.
"""

import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from cupola.access.engine.groups import Groups, Nesting
from cupola.access.engine.reach import Pair, reach_of
from cupola.access.errors import AccessError, RevisionGone
from cupola.access.relation import WILDCARD, Filter, Object, Relationship, Subject
from cupola.access.schema.model import Computed, Expression, Nil, Relation, Schema, This, Union
from cupola.access.store.protocol import Change, Snapshot, Store

PAGE = 50_000
"""Relationships read at a time."""
BACKLOG = 20_000
"""Changes beyond which the index is built anew, rather than while somebody waits."""


class Index:
    """Memberships of the groups of one store, as one version of its schema has them.

    A group is a relation that others may have as a subject (`group#member`) and that is a union of subjects and of
    such relations alone. Only groups that are asked about again and again are kept, and those nested in them.

    Args:
        schema: which relations are groups.
        store: whose relationships.
        asks: questions about a group that go unanswered before it is built, in a thread of its own; 0: the first one
            builds it and is answered.
    """

    def __init__(self, schema: Schema, store: Store, *, asks: int = 64):
        self._store, self._asks = store, asks
        self._nesting, self._covered = _nesting(reach_of(schema).relations)
        self._asked: Counter[Pair] = Counter()
        self._lock, self._building = threading.Lock(), threading.Lock()
        self._builder: threading.Thread | None = None
        self._closed = threading.Event()
        # What is kept holds from the revision at which something in it last changed to the one it was brought to.
        self._groups = Groups(Nesting({}, {}))
        self._since = self._until = 0

    def covers(self, type: str, relation: str) -> bool:
        """Whether a relation is a group that the index can answer for."""
        return (type, relation) in self._covered

    def member(self, revision: int, object: Object, relation: str, subject: Subject) -> bool | None:
        """Returns whether a subject is in a group at a revision.

        None where the index cannot tell: it does not cover or keep the group, has not this revision, or a caveat, an
        expiration or a wildcard lies on the way.
        """
        return self.member_of_any(revision, (Subject(*object, relation),), subject)

    def member_of_any(self, revision: int, groups: Iterable[Subject], subject: Subject) -> bool | None:
        """Returns whether a subject is in one of several groups; None where that cannot be told."""
        if subject.id == WILDCARD:
            return None
        if not self._asks:
            groups = tuple(groups)
            for pair in {group[::2] for group in groups} - self._groups.nesting.kinds.keys():
                self.build(revision, *pair)
        answer: bool | None = False
        with self._lock:
            for type, id, relation in groups:
                if (type, relation) not in self._groups.nesting.kinds:
                    self._want((type, relation), revision)
                    answer = None
                elif not self._is_at(revision):
                    return None
                else:
                    found = self._groups.member(Object(type, id), relation, subject)
                    if found:
                        return True
                    answer = answer if found is False else None
        return answer

    def build(self, revision: int, type: str, relation: str) -> None:
        """Keeps a group and those nested in it from now on; returns when that is done.

        Raises:
            RevisionGone: the revision is no longer kept.
        """
        if self.covers(type, relation):
            self._build((type, relation), revision)

    def close(self) -> None:
        """Ends what runs in the background."""
        self._closed.set()
        builder = self._builder
        if builder is not None:
            builder.join()

    def _want(self, pair: Pair, revision: int) -> None:
        """Notes a question that could not be answered; the caller has the lock."""
        if pair not in self._covered:
            return
        self._asked[pair] += 1
        running = self._builder is not None and self._builder.is_alive()
        if self._asked[pair] >= self._asks and not running and not self._closed.is_set():
            self._asked[pair] = 0
            self._builder = threading.Thread(
                target=self._build_quietly, args=(pair, revision), name="group index", daemon=True
            )
            self._builder.start()

    def _build_quietly(self, pair: Pair, revision: int) -> None:
        try:
            self._build(pair, revision)
        except AccessError:
            # Questions go on without it, and the next ones try again.
            return

    def _build(self, pair: Pair, revision: int) -> None:
        with self._building:
            pairs = {*self._groups.nesting.kinds, *_span(pair, self._nesting)}
            kept = Nesting(
                {one: self._nesting.kinds[one] for one in pairs}, {one: self._nesting.computed[one] for one in pairs}
            )
            groups = Groups(kept, self._read(self._store.snapshot(revision), sorted(pairs)))
            with self._lock:
                if not self._closed.is_set():
                    self._groups, self._since, self._until = groups, revision, revision

    def _read(self, snapshot: Snapshot, pairs: Iterable[Pair]) -> Iterator[Relationship]:
        for type, relation in pairs:
            last: Relationship | None = None
            while not self._closed.is_set():
                page = snapshot.read(Filter(type=type, relation=relation), after=last, limit=PAGE)
                yield from page
                if len(page) < PAGE:
                    break
                last = page[-1]

    def _is_at(self, revision: int) -> bool:
        """Whether what is kept holds at a revision, to which it is brought if it is behind; the caller has the lock."""
        if revision <= self._until:
            return revision >= self._since
        applied = 0
        for change in self._changes(revision):
            applied += len(change.updates)
            if applied > BACKLOG:
                self._forget(revision)
                return False
            # Every update is made, so no short cut through any().
            if sum([self._groups.apply(update) for update in change.updates]):
                self._since = change.revision
            self._until = change.revision
        if self._until != revision:
            self._forget(revision)
        return self._until == revision

    def _changes(self, revision: int) -> Iterator[Change]:
        """Yields the writes that are lacking up to a revision."""
        while self._until < revision:
            try:
                changes = self._store.changes(self._until)
            except RevisionGone:
                return
            wanted = [change for change in changes if change.revision <= revision]
            yield from wanted
            if len(wanted) < len(changes) or not changes:
                self._until = revision

    def _forget(self, revision: int) -> None:
        """Lets go of what is too far behind, and begins to build it anew."""
        pairs = list(self._groups.nesting.kinds)
        self._groups = Groups(Nesting({}, {}))
        for pair in pairs:
            self._asked[pair] += self._asks
            self._want(pair, revision)


def _nesting(relations: Mapping[Pair, Relation]) -> tuple[Nesting, frozenset[Pair]]:
    """Returns all relations that are unions of subjects and of such relations, and those of them that are groups."""
    parts = {pair: found for pair, relation in relations.items() if (found := _union(relation.rewrite)) is not None}
    kinds = {
        pair: frozenset(
            (allowed.type, allowed.relation)
            for allowed in relations[pair].allowed
            if own and not (allowed.wildcard or allowed.caveat or allowed.expires)
        )
        for pair, (own, _) in parts.items()
    }
    while True:
        stray = [
            pair
            for pair in kinds
            if any(relation and (type, relation) not in kinds for type, relation in kinds[pair])
            or any((pair[0], name) not in kinds for name in parts[pair][1])
        ]
        if not stray:
            break
        for pair in stray:
            del kinds[pair]
    names = {pair: found for pair, (_, found) in parts.items()}
    computed = {pair: _parts(pair, names) for pair in kinds}
    named = {(a.type, a.relation) for relation in relations.values() for a in relation.allowed if not a.wildcard}
    return Nesting(kinds, computed), frozenset(named & kinds.keys())


def _union(rewrite: Expression) -> tuple[bool, list[str]] | None:
    """Returns whether its own relationships count, and its computed relations; None: it is more than a union."""
    own, computed, rest = False, [], [rewrite]
    while rest:
        match rest.pop():
            case This():
                own = True
            case Computed(name):
                computed.append(name)
            case Union(operands):
                rest += operands
            case Nil():
                pass
            case _:
                return None
    return own, computed


def _parts(pair: Pair, computed: Mapping[Pair, list[str]]) -> tuple[str, ...]:
    type, name = pair
    found: dict[str, None] = {}
    pending = list(computed[pair])
    while pending:
        part = pending.pop()
        if part not in found and part != name:
            found[part] = None
            pending += computed[type, part]
    return tuple(found)


def _span(pair: Pair, nesting: Nesting) -> set[Pair]:
    """Returns a group and all that are nested in it."""
    found, pending = {pair}, [pair]
    while pending:
        one = pending.pop()
        inner = {kind for kind in nesting.kinds[one] if kind[1]} | {(one[0], part) for part in nesting.computed[one]}
        pending += inner - found
        found |= inner
    return found
