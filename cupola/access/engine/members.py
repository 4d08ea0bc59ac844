"""Sets of subjects of one type, three-valued, with "all but" (`*` with exceptions).

Not here: which set a permission has (`lookup_subjects.py`).
Invariant: a set says of every id, named or not, how certain it is a member; operations hold for each id by itself.
Source: Kleene's strong logic of three values; "conditional" carries the parameters that it lacks.
"""

import dataclasses
from collections.abc import Iterable, Iterator

from cupola.access.decision import Verdict
from cupola.access.engine.at import Holder
from cupola.access.relation import WILDCARD

Certainty = tuple[Verdict, tuple[str, ...]]
"""A verdict, and the parameters that it lacks."""
YES: Certainty = (Verdict.YES, ())
NO: Certainty = (Verdict.NO, ())


def either(one: Certainty, other: Certainty) -> Certainty:
    """Returns how certain it is that one of two holds."""
    if one[0] is Verdict.NO or other[0] is Verdict.YES:
        return other
    return one if other[0] is Verdict.NO or one[0] is Verdict.YES else _perhaps(one, other)


def both(one: Certainty, other: Certainty) -> Certainty:
    """Returns how certain it is that two hold."""
    if one[0] is Verdict.YES or other[0] is Verdict.NO:
        return other
    return one if other[0] is Verdict.YES or one[0] is Verdict.NO else _perhaps(one, other)


def opposite(one: Certainty) -> Certainty:
    """Returns how certain it is that something does not hold."""
    return NO if one[0] is Verdict.YES else YES if one[0] is Verdict.NO else one


def _perhaps(one: Certainty, other: Certainty) -> Certainty:
    return Verdict.CONDITIONAL, tuple(sorted({*one[1], *other[1]}))


@dataclasses.dataclass(frozen=True)
class Members:
    """A set of subjects of one type.

    Args:
        known: certainty of single ids.
        everyone: of all other ids.
        spared: those of `known` that no relationship names: they stand there because an exception met them.
    """

    known: dict[str, Certainty] = dataclasses.field(default_factory=dict)
    everyone: Certainty = NO
    spared: frozenset[str] = frozenset()

    def of(self, id: str) -> Certainty:
        """Returns how certain it is that an id is a member."""
        return self.known.get(id, self.everyone)

    def given(self, condition: Certainty) -> "Members":
        """Returns those who are members if a condition holds as well."""
        if condition[0] is Verdict.YES:
            return self
        known = {id: both(condition, certainty) for id, certainty in self.known.items()}
        return _tidy(known, both(condition, self.everyone), self.spared)

    def union(self, other: "Members") -> "Members":
        """Returns the members of either."""
        few, many = sorted((self, other), key=lambda members: len(members.known))
        known = dict(many.known)
        if few.everyone[0] is not Verdict.NO:
            known = {id: either(certainty, few.of(id)) for id, certainty in known.items()}
        for id, certainty in few.known.items():
            known[id] = either(certainty, many.of(id))
        spared = {id for id in self.spared | other.spared if not self._names(id) and not other._names(id)}
        return _tidy(known, either(self.everyone, other.everyone), spared)

    def intersection(self, other: "Members") -> "Members":
        """Returns the members of both."""
        ids: Iterable[str] = {**self.known, **other.known}
        if self.everyone[0] is Verdict.NO and other.everyone[0] is Verdict.NO:
            few, many = sorted((self, other), key=lambda members: len(members.known))
            ids = [id for id in few.known if id in many.known]
        known = {id: both(self.of(id), other.of(id)) for id in ids}
        spared = {id for id in self.spared | other.spared if not self._names(id) and not other._names(id)}
        return _tidy(known, both(self.everyone, other.everyone), spared)

    def exclusion(self, other: "Members") -> "Members":
        """Returns the members that are none of the other's."""
        ids: Iterable[str] = self.known
        if self.everyone[0] is not Verdict.NO:
            ids = {**self.known, **other.known}
        known = {id: both(self.of(id), opposite(other.of(id))) for id in ids}
        spared = {id for id in known if not self._names(id)}
        return _tidy(known, both(self.everyone, opposite(other.everyone)), spared)

    def nameless(self) -> "Members":
        """Returns the same members without the names of what is missing."""
        known: dict[str, Certainty] = {id: (verdict, ()) for id, (verdict, _) in self.known.items()}
        return Members(known, (self.everyone[0], ()), self.spared)

    def verdicts(self) -> tuple[Verdict, dict[str, Verdict]]:
        """Returns the verdict on everyone, and on those for whom it is another."""
        everyone = self.everyone[0]
        return everyone, {id: verdict for id, (verdict, _) in self.known.items() if verdict is not everyone}

    def holders(self) -> Iterator[Holder]:
        """Yields them: `*` first with those it leaves out, then by id those that are named."""
        public = self.everyone[0] is not Verdict.NO
        if public:
            yield Holder(WILDCARD, self.everyone[1], tuple(self._excluded()))
        for id, certainty in sorted(self.known.items()):
            if certainty[0] is Verdict.NO or (public and id in self.spared and certainty[0] is not Verdict.YES):
                continue
            if id not in self.spared or certainty[0] is not self.everyone[0]:
                yield Holder(id, certainty[1])

    def _excluded(self) -> Iterator[Holder]:
        for id, certainty in sorted(self.known.items()):
            if certainty[0] is Verdict.NO:
                yield Holder(id)
            elif certainty[0] is Verdict.CONDITIONAL and (id in self.spared or self.everyone[0] is Verdict.YES):
                yield Holder(id, certainty[1])

    def _names(self, id: str) -> bool:
        return id in self.known and id not in self.spared


def _tidy(known: dict[str, Certainty], everyone: Certainty, spared: Iterable[str]) -> Members:
    """Returns a set without ids that say no more than `everyone` does."""
    if everyone[0] is Verdict.NO:
        return Members({id: one for id, one in known.items() if one[0] is not Verdict.NO})
    kept = frozenset(spared).intersection(known)
    if everyone[0] is Verdict.YES:
        idle = {id for id in kept if known[id][0] is Verdict.YES}
        known, kept = ({id: one for id, one in known.items() if id not in idle}, kept - idle) if idle else (known, kept)
    return Members(known, everyone, kept)
