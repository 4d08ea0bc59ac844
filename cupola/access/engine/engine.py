"""Answers questions about a store: the door to all of the engine.

Not here: which revision (`consistency.py`), how each kind of answer is found (the other files of this folder).
Invariant: an answer is given at the revision that was asked for, whatever is written meanwhile; the fast way and the
slow way agree. Of many who ask the same at once, one looks for the answer and the others wait for it.
"""

import dataclasses
import threading
import time
from collections.abc import Hashable, Iterator, Sequence

from cupola.access.decision import Question, Step, Verdict
from cupola.access.engine.at import At, Holder, Node, Resource
from cupola.access.engine.cache import MOST_ANSWERS, Cache
from cupola.access.engine.check import Asking, Unsettled
from cupola.access.engine.compile import Compiled, Plan
from cupola.access.engine.condition import Value
from cupola.access.engine.expand import expand
from cupola.access.engine.explain import explain
from cupola.access.engine.facts import Facts
from cupola.access.engine.index import Index
from cupola.access.engine.lookup_resources import lookup_resources
from cupola.access.engine.lookup_subjects import lookup_subjects
from cupola.access.engine.solve import Solution
from cupola.access.errors import AccessError
from cupola.access.limits import Limits
from cupola.access.relation import Object, Relationship, Subject
from cupola.access.store.protocol import SchemaVersion, Store

MOST_VERSIONS = 16
"""Versions of the schema that are kept compiled, with what was read under them."""

LONGEST_WAIT_SECONDS = 60.0
"""For somebody who is answering the same question."""

Answer = tuple[Verdict, tuple[str, ...]]
"""A verdict, and the parameters without which it is not certain."""


@dataclasses.dataclass(frozen=True)
class _Version:
    """A schema made ready for questions: its plans, and what was read of the store under it."""

    compiled: Compiled
    cache: Cache
    index: Index


class Engine:
    """Finds answers. All methods may be called by many threads at once.

    Args:
        store: whose relationships.
        limits: of each answer.
    """

    def __init__(self, store: Store, limits: Limits):
        self._store, self._limits = store, limits
        self._lock = threading.Lock()
        self._versions: dict[str, _Version] = {}

    def check(self, at: At, object: Object, permission: str, subject: Subject) -> Answer:
        """Returns whether a subject has a permission or relation, and what is missing to be certain.

        Raises:
            UnknownName: the schema has no such type, relation or permission.
            RevisionGone: the revision is no longer kept.
            Late: it took longer than the limit.
        """
        version = self._version(at)
        return _answer(self._ask(version, Facts(version.cache, at), at, object, permission, subject))

    def check_many(self, at: At, questions: Sequence[Question]) -> list[Answer | AccessError]:
        """Returns the answers in the order of the questions; one that cannot be asked has its error instead.

        Raises:
            RevisionGone: the revision is no longer kept.
        """
        version = self._version(at)
        facts = Facts(version.cache, at)
        found: list[Answer | AccessError] = []
        for question in questions:
            own = at
            if question.context:
                own = dataclasses.replace(at, context={**at.context, **question.context})
            try:
                value = self._ask(version, facts, own, question.object, question.permission, question.subject)
                found.append(_answer(value))
            except AccessError as error:
                found.append(error)
        return found

    def explain(self, at: At, object: Object, permission: str, subject: Subject) -> Step:
        """Returns the way to the answer: the path that allowed, or every path that was tried.

        Raises:
            UnknownName, RevisionGone, Late: as `check` does.
        """
        version = self._version(at)
        version.compiled.require(object.type, permission, subject)
        asking = self._asking(version, Facts(version.cache, at), at, subject)
        return explain(version.compiled, asking, object, permission)

    def expand(self, at: At, object: Object, permission: str) -> Node:
        """Returns the tree of who has a permission, one level of groups deep.

        Raises:
            UnknownName, RevisionGone, Late: as `check` does.
        """
        version = self._version(at)
        asking = self._asking(version, Facts(version.cache, at), at, Subject(*object))
        return expand(version.compiled, asking, object, permission)

    def lookup_resources(
        self, at: At, type: str, permission: str, subject: Subject, *, after: str
    ) -> Iterator[Resource]:
        """Returns the objects of a type on which a subject has a permission, sorted by id, from after an id on.

        Raises:
            UnknownName, RevisionGone, Late: as `check` does; some of them while it is read.
        """
        version = self._version(at)
        version.compiled.require(type, permission, subject)
        facts = Facts(version.cache, at)

        plan = version.compiled.plan(type, permission, subject)
        # One for all objects: what they lead to in common is found out once.
        asking = self._asking(version, facts, at, subject)

        def check(object: Object) -> Answer:
            nonlocal asking
            try:
                return _answer(asking.reaches(plan, object.id))
            except Unsettled:
                asking = self._asking(version, facts, at, subject)
                return _answer(self._ask(version, facts, at, object, permission, subject))

        on_time = asking.on_time
        found = lookup_resources(
            version.compiled.schema, facts, check, type, permission, subject, after, on_time=on_time
        )
        return at.deadline.resting(found)

    def lookup_subjects(
        self, at: At, object: Object, permission: str, subject_type: str, subject_relation: str, *, after: str
    ) -> Iterator[Holder]:
        """Returns the subjects of a type that have a permission, sorted by id, from after an id on.

        Raises:
            UnknownName, RevisionGone, Late: as `check` does; some of them while it is read.
        """
        version = self._version(at)
        version.compiled.require(object.type, permission, Subject(subject_type, "", subject_relation))
        facts = Facts(version.cache, at)
        asking = self._asking(version, facts, at, Subject(subject_type, "", subject_relation))

        def condition(relationship: Relationship) -> Answer:
            return _answer(asking.value(relationship))

        found = lookup_subjects(
            version.compiled.schema,
            facts,
            object,
            permission,
            subject_type,
            subject_relation,
            after,
            conditions=condition,
            on_time=asking.on_time,
        )
        return at.deadline.resting(found)

    def close(self) -> None:
        """Forgets everything; the store stays open."""
        with self._lock:
            for version in self._versions.values():
                version.index.close()
            self._versions.clear()

    def _version(self, at: At) -> _Version:
        found = self._versions.get(at.version.id)
        if found is None:
            with self._lock:
                found = self._versions.get(at.version.id)
                if found is None:
                    while len(self._versions) >= MOST_VERSIONS:
                        self._versions.pop(next(iter(self._versions))).index.close()
                    found = self._versions[at.version.id] = self._prepare(at.version)
        if not self._limits.cached_facts:
            return dataclasses.replace(found, cache=Cache(self._store, found.compiled.allows))
        return found

    def _prepare(self, version: SchemaVersion) -> _Version:
        compiled = Compiled(version.schema, self._limits.caveat_cost)
        cache = Cache(self._store, compiled.allows, leads=compiled.leads, most_facts=self._limits.cached_facts)
        return _Version(compiled, cache, Index(version.schema, self._store, asks=self._limits.index_after))

    def _asking(self, version: _Version, facts: Facts, at: At, subject: Subject) -> Asking:
        index = version.index if self._limits.cached_facts else None
        return Asking(facts, version.compiled.conditions, subject, at.context, at.deadline, index)

    def _ask(self, version: _Version, facts: Facts, at: At, object: Object, permission: str, subject: Subject) -> Value:
        plan = version.compiled.plan(object[0], permission, subject)
        if not plan.alive:
            return False
        answers = version.cache.answers(at.revision)
        key = plan, object[1], subject[1]
        if not facts.changed and (known := answers.get(key)) is not None:
            return known
        if facts.changed or at.context:
            return self._find(version, facts, at, plan, object, permission, subject, answers)
        mine = threading.Lock()
        mine.acquire()
        asked = at.revision, key
        other = version.cache.asked.setdefault(asked, mine)
        if other is not mine:
            left_seconds = min(max(at.deadline.until_seconds - time.monotonic(), 0.0), LONGEST_WAIT_SECONDS)
            # Who waits too long says so when it looks for the answer itself.
            if other.acquire(timeout=left_seconds):
                other.release()
            if (known := answers.get(key)) is not None:
                return known
            # An answer that holds for its moment alone, everybody finds out alone.
            return self._find(version, facts, at, plan, object, permission, subject, answers)
        try:
            return self._find(version, facts, at, plan, object, permission, subject, answers)
        finally:
            del version.cache.asked[asked]
            mine.release()

    def _find(
        self,
        version: _Version,
        facts: Facts,
        at: At,
        plan: Plan,
        object: Object,
        permission: str,
        subject: Subject,
        answers: dict[Hashable, bool],
    ) -> Value:
        asking = self._asking(version, facts, at, subject)
        value: Value
        try:
            value = asking.reaches(plan, object[1])
        except Unsettled:
            root = object[0], object[1], permission
            value = Solution(version.compiled, asking, root).lower[root]
        if asking.timeless and facts.timeless and not facts.changed and isinstance(value, bool):
            if len(answers) >= MOST_ANSWERS:
                answers.clear()
            answers[plan, object[1], subject[1]] = value
        return value


def _answer(value: Value) -> Answer:
    if value is True:
        return _YES
    return _NO if value is False else (Verdict.CONDITIONAL, tuple(sorted(value)))


_YES: Answer = (Verdict.YES, ())
_NO: Answer = (Verdict.NO, ())
