"""Looks for a subject by a plan: the fast way to an answer, level by level over sets of objects.

Not here: plans (`compile.py`); what this way cannot settle, the slow one does (`solve.py`).
Invariant: an answer is yes or no for certain. Whatever would need more, an unknown condition that matters, a cycle
through an operator or very deep operators, raises `Unsettled`.
Source: Pang et al. 2019, "Zanzibar", sections 3.2.2 and 3.2.4: the sets of a subject and of an object are
intersected from both sides.
"""

from collections.abc import Mapping
from typing import Any

from cupola.access.engine.cache import TOO_WIDE, UNREAD, Fan
from cupola.access.engine.compile import Every, Meet, Minus, Operator, Plan
from cupola.access.engine.condition import Conditions, Value
from cupola.access.engine.deadline import Deadline
from cupola.access.engine.facts import Facts
from cupola.access.engine.index import Index
from cupola.access.relation import WILDCARD, Caveated, Relationship, Subject

DEEP = 40
"""Operators within operators, beyond which the way without recursion is taken."""
STRIDE = 16
"""Levels between two looks at the clock."""
FEW = 3
"""Objects that are asked one by one about a subject, before all of the subject's objects are read."""

FAR, NARROW = 8, 64
"""Levels from which on, and objects up to which, a way is kept."""
MOST_WAYS = 10_000

Way = tuple[tuple[Plan, set[str]], ...]
"""Plans, and the objects that they are followed at."""


class Unsettled(Exception):
    """This way does not lead to an answer."""


class Asking:
    """One question on its way, or several about the same subject at the same place.

    Args:
        context: parameters of the question.
        deadline: when it must be answered.
        index: of groups, to be asked first; None: there is none.

    Attributes:
        timeless: whether the answer so far depends on nothing but stored relationships.
    """

    def __init__(
        self,
        facts: Facts,
        conditions: Conditions,
        subject: Subject,
        context: Mapping[str, Any],
        deadline: Deadline,
        index: Index | None = None,
    ):
        self.facts, self.subject, self.context = facts, subject, context
        self.timeless, self.deadline = True, deadline
        self._conditions, self._index = conditions, index
        self._wildcard = Subject(subject.type, WILDCARD)
        self._unknown = False
        self._depth = 0
        self._asked: dict[Any, int] = {}
        self._values: dict[Caveated, Value] = {}
        self._operated: dict[tuple[Operator, str], bool | None] = {}

    def on_time(self) -> None:
        """Refuses to go on when the time is over.

        Raises:
            Late: it is.
        """
        self.deadline.check(self.subject)

    def value(self, relationship: Relationship) -> Value:
        """Returns whether a relationship holds now."""
        _, _, _, caveat, expires = relationship
        if expires is not None:
            self.timeless = False
            if expires <= self.facts.now_seconds:
                return False
        if caveat is None:
            return True
        self.timeless = False
        if (known := self._values.get(caveat)) is None:
            self.on_time()
            known = self._values[caveat] = self._conditions.value(caveat, self.context)
        return known

    def reaches(self, plan: Plan, id: str) -> bool:
        """Returns whether a plan finds the subject at an object.

        Raises:
            Unsettled: that is not known, or not in this way.
            Late: the time is over.
        """
        way: Way | None = self.facts.ways.get((plan, id))
        if way is None:
            way = self._walk(plan, id)
            if way is None:
                return True
        elif any(self._found(*place) for place in way):
            return True
        for plan, ids in way:
            for operator in plan.operators:
                if any(self._operate(operator, plan.type, one) for one in ids):
                    return True
        if self._unknown:
            raise Unsettled
        return False

    def _walk(self, plan: Plan, id: str) -> Way | None:
        """Returns where the subject was looked for in vain; None: it was found.

        A way that is long and narrow is kept for the next question about the object, whoever that asks for: to walk
        it level by level costs more than to ask at all of its objects at once.
        """
        start, level, found, whole = (plan, id), 0, False, True
        seen: dict[Plan, set[str]] = {}
        frontier: dict[Plan, set[str] | frozenset[str]] = {plan: {id}}
        while frontier:
            if level % STRIDE == 0:
                self.on_time()
            level += 1
            following: dict[Plan, set[str] | frozenset[str]] = {}
            for plan, ids in frontier.items():
                if (before := seen.get(plan)) is None:
                    seen[plan] = set(ids)
                else:
                    ids = ids - before
                    if not ids:
                        continue
                    before |= ids
                if not found:
                    if plan.nested and (known := self._member(plan, ids)) is not None:
                        if known:
                            return None
                        whole = False
                        continue
                    found = self._found(plan, ids)
                    if found and level < FAR:
                        return None
                self._follow(plan, ids, following)
            frontier = following
            if found and (not self.timeless or sum(map(len, seen.values())) > NARROW):
                return None
        way = tuple(seen.items())
        if whole and level >= FAR and self.timeless and sum(len(ids) for _, ids in way) <= NARROW:
            if len(self.facts.ways) >= MOST_WAYS:
                self.facts.ways.clear()
            self.facts.ways[start] = way
        return None if found else way

    def _found(self, plan: Plan, ids: set[str] | frozenset[str]) -> bool:
        """Returns whether the subject itself, or all of its type, is at one of the objects."""
        subject = self.subject
        if plan.itself and subject[1] in ids:
            return True
        for relation in plan.direct:
            if self._stands(plan.type, relation, ids, subject):
                return True
        return bool(plan.wild) and any(self._stands(plan.type, one, ids, self._wildcard) for one in plan.wild)

    def _member(self, plan: Plan, ids: set[str] | frozenset[str]) -> bool | None:
        """Returns what the index says of the groups of objects; None where it says nothing."""
        if self._index is None or self.facts.changed or not self._index.covers(plan.type, plan.relation):
            return None
        groups = [Subject(plan.type, id, plan.relation) for id in ids]
        return self._index.member_of_any(self.facts.revision, groups, self.subject)

    def _stands(self, type: str, relation: str, ids: set[str] | frozenset[str], subject: Subject) -> bool:
        """Returns whether a subject has a relation of its own to one of the objects."""
        facts, key = self.facts, (subject, type, relation)
        row, revision = facts.holding_rows.get(key), facts.revision
        if row is not None and row.since <= revision < row.until and row.value is not UNREAD:
            held = row.value
        else:
            asked = self._asked.get(key, 0) + len(ids)
            if asked <= FEW:
                self._asked[key] = asked
                held = TOO_WIDE
            else:
                held = facts.holdings(key)
        if held is not TOO_WIDE:
            if not ids.isdisjoint(held.ids):
                return True
            bound = held.bound
            return bool(bound) and any(self._holds(bound[id]) for id in bound.keys() & ids)
        for id in ids:
            forward = type, id, relation
            row = facts.single_rows.get((forward, subject))
            if row is not None and row.since <= revision < row.until and row.value is not UNREAD:
                found = row.value
            else:
                found = facts.single(forward, subject)
            if found is not None and self._holds(found):
                return True
        return False

    def _follow(self, plan: Plan, ids: set[str] | frozenset[str], following: dict[Plan, Any]) -> None:
        """Adds what the relationships of the objects lead to."""
        facts, type = self.facts, plan.type
        revision = facts.revision
        for arrow, relation, leads in plan.hops:
            rows = facts.subject_rows if arrow else facts.userset_rows
            for id in ids:
                key = type, id, relation
                row = rows.get(key)
                if row is not None and row.since <= revision < row.until and row.value is not UNREAD:
                    fan: Fan = row.value
                else:
                    fan = facts.objects_fan(key) if arrow else facts.usersets_fan(key)
                for kind, targets in fan.plain.items():
                    if (lead := leads.get(kind)) is not None:
                        _add(following, lead, targets)
                for bound in fan.bound:
                    subject = bound.subject
                    lead = leads.get(subject[:1] if arrow else subject[::2])
                    if lead is not None and self._holds(bound):
                        _add(following, lead, {subject.id})

    def _holds(self, relationship: Relationship) -> bool:
        value = self.value(relationship) if relationship[3] or relationship[4] is not None else True
        if value is True or value is False:
            return value
        self._unknown = True
        return False

    def _operate(self, operator: Operator, type: str, id: str) -> bool:
        key = operator, id
        if key not in self._operated:
            if self._depth >= DEEP:
                raise Unsettled
            self._operated[key] = None
            self._depth += 1
            self._operated[key] = self._satisfied(operator, type, id)
            self._depth -= 1
        if (known := self._operated[key]) is None:
            raise Unsettled
        return known

    def _satisfied(self, operator: Operator, type: str, id: str) -> bool:
        match operator:
            case Meet(operands=operands):
                return all(self.reaches(operand, id) for operand in operands)
            case Minus(base=base, subtracted=subtracted):
                return self.reaches(base, id) and not (subtracted.alive and self.reaches(subtracted, id))
            case Every(relation=relation, plans=plans):
                return self._every(relation, plans, type, id)

    def _every(self, relation: str, plans: Mapping[str, Plan], type: str, id: str) -> bool:
        fan = self.facts.objects_fan((type, id, relation))
        led = False
        for one in fan.relationships:
            subject = one.subject
            if subject.id == WILDCARD:
                continue
            if one.expires_seconds is not None:
                self.timeless = False
                if not self.facts.lives(one):
                    continue
            led = True
            plan = plans.get(subject.type)
            if plan is None or not plan.alive or self.value(one) is False:
                return False
            if not self._holds(one):
                raise Unsettled
            if not self.reaches(plan, subject.id):
                return False
        return led


def _add(following: dict[Plan, Any], lead: Plan, ids: set[str] | frozenset[str]) -> None:
    have = following.get(lead)
    if have is None:
        following[lead] = ids
    elif isinstance(have, set):
        have.update(ids)
    else:
        following[lead] = {*have, *ids}
