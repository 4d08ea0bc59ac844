"""Nested memberships, flattened: the groups a member is in directly, and the groups each group contains.

Not here: revisions, stores and threads (`index.py`).
Invariant: an answer is yes or no only where relationships without caveat and expiration settle it, and no wildcard
lies on the way.
Source: Pang et al. 2019, "Zanzibar", section 3.2.4 (Leopard): a member is in a group where MEMBER2GROUP(member) and
GROUP2GROUP(group) meet.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from pyroaring import BitMap

from cupola.access.engine.closure import Closure
from cupola.access.engine.reach import Pair
from cupola.access.relation import WILDCARD, Object, Operation, Relationship, Subject, Update


class Nesting(NamedTuple):
    """What a schema says of some relations that are unions alone.

    Args:
        kinds: for each pair, the kinds of subject whose plain relationships count.
        computed: for each pair, all relations of the same object that are part of it, of parts too.
    """

    kinds: Mapping[Pair, frozenset[Pair]]
    computed: Mapping[Pair, tuple[str, ...]]


class Groups:
    """The memberships of some relations at one moment.

    Args:
        nesting: which relations.
        relationships: all of them, to begin with.
    """

    def __init__(self, nesting: Nesting, relationships: Iterable[Relationship] = ()):
        self.nesting = nesting
        self._nodes: dict[tuple[Object, str], int] = {}
        # One group of a member is a number, several are a bitmap: most members of a huge graph are in one.
        self._members: dict[str, dict[str, int | BitMap]] = {}
        self._doubtful: dict[int, set[Subject]] = {}
        self._doubts = BitMap()
        self._edges: list[tuple[int, int]] | None = []
        self._closure = Closure()
        for relationship in relationships:
            self._add(relationship)
        self._closure, self._edges = Closure(self._edges), None

    def apply(self, update: Update) -> bool:
        """Makes a change that was written; returns whether it is about these relations."""
        operation, relationship = update
        if (relationship.object.type, relationship.relation) not in self.nesting.kinds:
            return False
        self._remove(relationship)
        if operation is not Operation.DELETE:
            self._add(relationship)
        return True

    def member(self, object: Object, relation: str, subject: Subject) -> bool | None:
        """Returns whether a subject has a relation; None: what is kept here does not settle it."""
        node = self._nodes.get((object, relation))
        if node is not None:
            return self._holds(node, subject)
        # Nothing names this relation of the object, but parts of it may have members.
        parts = (relation, *self.nesting.computed.get((object.type, relation), ()))
        if subject.object == object and subject.relation in parts:
            return True
        nodes = [self._nodes[object, part] for part in parts if (object, part) in self._nodes]
        found = [self._holds(node, subject) for node in nodes]
        return True if True in found else None if None in found else False

    def _holds(self, node: int, subject: Subject) -> bool | None:
        reach = self._closure.reach.get(node)
        of: int | BitMap
        if subject.relation:
            of = self._nodes.get((subject.object, subject.relation), -1)
        else:
            of = self._members.get(subject.type, {}).get(subject.id, -1)
        if isinstance(of, int):
            hit = of == node or (reach is not None and of >= 0 and of in reach)
        else:
            hit = node in of if reach is None else reach.intersect(of)
        if hit:
            return True
        doubt = node in self._doubts if reach is None else reach.intersect(self._doubts)
        return None if doubt else False

    def _node(self, object: Object, relation: str) -> int:
        """Returns the number of a group, which has one from now on."""
        number = self._nodes.get((object, relation))
        if number is None:
            number = self._nodes[(object, relation)] = len(self._nodes)
            for part in self.nesting.computed.get((object.type, relation), ()):
                self._link(number, self._node(object, part))
        return number

    def _link(self, outer: int, inner: int) -> None:
        if self._edges is not None:
            self._edges.append((outer, inner))
        else:
            self._closure.add(outer, inner)

    def _add(self, relationship: Relationship) -> None:
        object, relation, subject, caveat, expires = relationship
        if caveat is not None or expires is not None or subject.id == WILDCARD:
            node = self._node(object, relation)
            self._doubtful.setdefault(node, set()).add(subject)
            self._doubts.add(node)
        elif (subject.type, subject.relation) in self.nesting.kinds[object.type, relation]:
            node = self._node(object, relation)
            if subject.relation:
                self._link(node, self._node(subject.object, subject.relation))
            else:
                _join(self._members.setdefault(subject.type, {}), subject.id, node)

    def _remove(self, relationship: Relationship) -> None:
        object, relation, subject = relationship.key
        node = self._nodes.get((object, relation))
        if node is None:
            return
        doubtful = self._doubtful.get(node)
        if doubtful is not None:
            doubtful.discard(subject)
            if not doubtful:
                del self._doubtful[node]
                self._doubts.discard(node)
        if not subject.relation:
            _leave(self._members.get(subject.type, {}), subject.id, node)
        elif (inner := self._nodes.get((subject.object, subject.relation))) is not None and not (
            subject.object == object and subject.relation in self.nesting.computed.get((object.type, relation), ())
        ):
            self._closure.discard(node, inner)


def _join(members: dict[str, int | BitMap], id: str, node: int) -> None:
    of = members.setdefault(id, node)
    if not isinstance(of, int):
        of.add(node)
    elif of != node:
        members[id] = BitMap([of, node])


def _leave(members: dict[str, int | BitMap], id: str, node: int) -> None:
    of = members.get(id)
    if isinstance(of, BitMap):
        of.discard(node)
        if not of:
            del members[id]
    elif of == node:
        del members[id]
