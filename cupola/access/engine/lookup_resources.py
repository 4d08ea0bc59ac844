"""The objects of a type on which a subject has a permission.

Not here: the leads between relations (`reach.py`), single answers (`check.py`), the order of pages (`graph.py`).
Invariant: all of them, each once, sorted by id, whatever limits and cycles there are. What only certain leads reach
is not asked about again; every other candidate is confirmed by a check.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from cupola.access.decision import Verdict
from cupola.access.engine.at import Resource
from cupola.access.engine.reach import Pair, Reach, reach_of
from cupola.access.relation import WILDCARD, Object, Relationship, Subject
from cupola.access.schema.model import Schema

Answer = tuple[Verdict, tuple[str, ...]]
"""A verdict, and the parameters that are missing for certainty."""


@runtime_checkable
class Reverse(Protocol):
    """Relationships that hold now, found by their subject."""

    def objects(self, subject: Subject, type: str, relation: str) -> Sequence[Relationship]:
        """Returns those in which exactly this subject has a relation to objects of a type."""


class _Place(NamedTuple):
    """Something that the subject may have: a relation or permission on an object."""

    pair: Pair
    id: str


def lookup_resources(
    schema: Schema,
    facts: Reverse,
    check: Callable[[Object], Answer],
    type: str,
    permission: str,
    subject: Subject,
    after: str = "",
    *,
    on_time: Callable[[], None],
) -> Iterator[Resource]:
    """Returns the objects on which a subject has a permission, sorted by id; checks run as it is read.

    Args:
        schema: in force.
        facts: relationships that hold and that the schema allows.
        check: answers whether the subject has the permission on one object.
        type: of the objects.
        permission: or relation.
        subject: who; with a relation: all who have it; `user:*`: all of the type.
        after: the last id that is not wanted any more; "": from the first.
        on_time: raises `Late` when the time is over.

    Raises:
        UnknownName: the schema has no such type or permission.
        Late: the time is over; perhaps while it is read.
    """
    reach = reach_of(schema)
    candidates = _candidates(reach, facts, reach.require(type, permission), subject, on_time)
    return _confirmed(candidates, check, type, after, on_time)


def _confirmed(
    candidates: dict[str, bool],
    check: Callable[[Object], Answer],
    type: str,
    after: str,
    on_time: Callable[[], None],
) -> Iterator[Resource]:
    for id in sorted(id for id in candidates if id > after):
        on_time()
        verdict, missing = (Verdict.YES, ()) if candidates[id] else check(Object(type, id))
        if verdict is not Verdict.NO:
            yield Resource(id, missing)


def _candidates(
    reach: Reach, facts: Reverse, target: Pair, subject: Subject, on_time: Callable[[], None]
) -> dict[str, bool]:
    """Returns the ids of all objects that could be meant, each with whether it is certain."""
    useful = reach.into(target)
    found: dict[_Place, bool] = {}
    # Certain places are walked to their end first, so that the first visit of a place is its best.
    certain = [_start(subject)]
    possible: list[_Place] = []
    if subject.id != WILDCARD:
        everyone = _Place((subject.type, WILDCARD), WILDCARD)
        (possible if subject.relation else certain).append(everyone)
    while certain or possible:
        on_time()
        sure = bool(certain)
        place = certain.pop() if sure else possible.pop()
        if place in found:
            continue
        found[place] = sure
        for lead in reach.leads.get(place.pair, ()):
            if lead.pair not in useful:
                continue
            if not lead.tupleset:
                (certain if sure and lead.certain else possible).append(_Place(lead.pair, place.id))
                continue
            relation = "" if lead.relation == WILDCARD else lead.relation
            holder = Subject(place.pair[0], place.id, relation)
            for relationship in facts.objects(holder, lead.pair[0], lead.tupleset):
                enough = sure and lead.certain and relationship.caveat is None
                (certain if enough else possible).append(_Place(lead.pair, relationship.object.id))
    return {place.id: sure for place, sure in found.items() if place.pair == target}


def _start(subject: Subject) -> _Place:
    return _Place((subject.type, WILDCARD if subject.id == WILDCARD else subject.relation), subject.id)
