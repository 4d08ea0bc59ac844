"""Kinds of relationships, which tables hold as small numbers instead of four names.

A kind is what relationships have in common beside their two ids. There are as many as a schema allows kinds of
subjects, a few hundred at most, so every process knows them all, and a row is a number and two ids.

Not here: the rows (`rows.py`).
Invariant: a number never comes to mean another kind, and numbers go up from 1 without a gap. `Kinds` never changes:
one that was taken together with a revision knows every kind that relationships of this revision have.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from cupola.access.relation import WILDCARD, Filter, Object, Relationship, Subject


class Kind(NamedTuple):
    """What relationships have in common beside their ids.

    Args:
        subject_relation: `*` where the subject is a wildcard, "" where it is a single object.
    """

    type: str
    relation: str
    subject_type: str
    subject_relation: str

    @property
    def indirect(self) -> bool:
        """Whether its subjects stand for many."""
        return bool(self.subject_relation)

    def subject(self, id: str) -> Subject:
        """Returns the subject of this id."""
        return Subject(self.subject_type, id, "" if self.subject_relation == WILDCARD else self.subject_relation)

    def matches(self, filter: Filter) -> bool:
        """Whether relationships of this kind may match a filter."""
        wildcard = self.subject_relation == WILDCARD
        return (
            filter.type in ("", self.type)
            and filter.relation in ("", self.relation)
            and filter.subject_type in ("", self.subject_type)
            and (not filter.subject_id or (filter.subject_id == WILDCARD) == wildcard)
            and filter.subject_relation in (None, "" if wildcard else self.subject_relation)
        )


def kind_of(relationship: Relationship) -> Kind:
    """Returns the kind of a relationship."""
    (type, _), relation, subject = relationship[:3]
    return kind_between(type, relation, subject)


def kind_between(type: str, relation: str, subject: Subject) -> Kind:
    """Returns the kind of the relationships that a subject has to objects of a type."""
    return Kind(type, relation, subject.type, WILDCARD if subject.id == WILDCARD else subject.relation)


class Kinds:
    """All kinds of a tenant and their numbers.

    Args:
        kinds: in the order of their numbers.
    """

    def __init__(self, kinds: Iterable[Kind] = ()):
        self.all: tuple[Kind, ...] = tuple(kinds)
        self.numbers: dict[tuple[str, ...], int] = {kind: number for number, kind in enumerate(self.all, 1)}
        self._named: dict[tuple[str, str], tuple[int, ...]] = {}
        self._indirect: dict[tuple[str, str], tuple[int, ...]] = {}
        for number, kind in enumerate(self.all, 1):
            name = kind[:2]
            self._named[name] = (*self._named.get(name, ()), number)
            if kind.indirect:
                self._indirect[name] = (*self._indirect.get(name, ()), number)

    def __len__(self) -> int:
        return len(self.all)

    def __getitem__(self, number: int) -> Kind:
        return self.all[number - 1]

    def number(self, relationship: Relationship) -> int | None:
        """Returns the number of a relationship's kind; None where there is none of it yet."""
        return self.numbers.get(kind_of(relationship))

    def of(self, object: Object, relation: str) -> tuple[int, ...]:
        """Returns the kinds of an object's relation."""
        return self._named.get((object.type, relation), ())

    def indirect(self, object: Object, relation: str) -> tuple[int, ...]:
        """Returns those of them whose subjects stand for many."""
        return self._indirect.get((object.type, relation), ())

    def matching(self, filter: Filter) -> list[int]:
        """Returns the kinds whose relationships may match a filter."""
        return [number for number, kind in enumerate(self.all, 1) if kind.matches(filter)]

    def lacking(self, relationships: Iterable[Relationship]) -> list[Kind]:
        """Returns the kinds of relationships that have no number yet."""
        # Plain tuples are looked up as kinds are, and made in a third of the time.
        found = {
            (type, relation, who, WILDCARD if id == WILDCARD else subject_relation)
            for (type, _), relation, (who, id, subject_relation), _, _ in relationships
        }
        return [Kind(*names) for names in sorted(found) if names not in self.numbers]

    def plus(self, more: Sequence[Kind]) -> "Kinds":
        """Returns these kinds and more, which get the next numbers."""
        return Kinds((*self.all, *more)) if more else self
