"""The permission graph as one object: schemas, relationships, questions.

Not here: how answers are found (`engine/`), where facts are kept (`store/`), servers (`server/`).
Invariant: every answer is given at one revision and says which. All methods may be called by many threads at once,
and raise `AccessError`s alone; one that raises has changed nothing.
"""

import contextlib
import copy
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from cupola.access.caveat.compile import compile_caveat
from cupola.access.consistency import FAST, LATEST, Clock, Consistency, at_exactly
from cupola.access.consistency import at_least as fresh_as
from cupola.access.decision import Decision, Question, Step, Verdict
from cupola.access.engine.at import NOTHING, At, Holder, Node, Resource
from cupola.access.engine.deadline import Deadline
from cupola.access.engine.engine import Engine
from cupola.access.errors import (
    AccessError,
    Conflict,
    Named,
    NotFound,
    TooMuch,
    UnknownName,
    meant,
)
from cupola.access.limits import Limits
from cupola.access.relation import (
    Filter,
    Object,
    Operation,
    Precondition,
    Relationship,
    Subject,
    Surplus,
    Update,
    permission_of,
)
from cupola.access.schema.model import Language
from cupola.access.schema.orphans import refuse_orphans
from cupola.access.schema.read import read_schema
from cupola.access.schema.relate import check_relationship, check_updates
from cupola.access.store.open import open_store
from cupola.access.store.protocol import Change, SchemaVersion, Store
from cupola.access.token import revision_of, token_of

ATTEMPTS = 8
"""How often a write is tried while others come between."""


class Graph:
    """A tenant's schema and relationships, and what follows from them.

    Args:
        store: where they are kept.
        limits: of each call.
        quantum_seconds: how long questions that do not say how fresh go on with one revision.
    """

    def __init__(self, store: Store, *, limits: Limits | None = None, quantum_seconds: float = 0.0):
        self.store, self.limits = store, limits or Limits()
        self._clock = Clock(store, quantum_seconds=quantum_seconds)
        self._engine = Engine(store, self.limits)
        self._within = math.inf

    @classmethod
    def open(
        cls,
        address: str = ":memory:",
        *,
        tenant: str = "default",
        limits: Limits | None = None,
        quantum_seconds: float = 0.0,
    ) -> "Graph":
        """Opens a database, and makes it and the tenant where they are not there yet.

        Args:
            address: a file (SQLite), ":memory:", or "postgresql://...".
            tenant: whose graph; tenants of a database know nothing of each other.

        Raises:
            StoreUnavailable: the database cannot be opened, or was made by a newer version.
        """
        return cls(open_store(address, tenant=tenant), limits=limits, quantum_seconds=quantum_seconds)

    def close(self) -> None:
        """Lets go of the database."""
        self._engine.close()
        self.store.close()

    def within(self, seconds: float | int) -> "Graph":
        """Returns this graph for questions whose caller waits so long: all that are asked of it end by then.

        It is the same graph, which is closed with it; `Limits.seconds` bounds each answer nonetheless. What the
        reader of a list does between its entries takes none of the time.
        """
        bounded = copy.copy(self)
        bounded._within = time.monotonic() + seconds
        return bounded

    def __enter__(self) -> "Graph":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # From here on: schemas.

    def write_schema(self, text: str, *, language: Language | None = None) -> str:
        """Makes a text the schema from now on, and returns the token of that.

        Args:
            text: `.zed`, or OpenFGA's DSL or JSON.
            language: None: as the text looks.

        Raises:
            SchemaError: it cannot be read or does not hold together.
            Orphaned: relationships are there that it would orphan (`.zed` only: OpenFGA's models are
                versions side by side, and relationships that one does not allow do not count in it).
        """
        self.limits.check("schema_bytes", len(text.encode(errors="surrogatepass")))
        schema = read_schema(text, language)
        for caveat in schema.caveats:
            compile_caveat(caveat, schema.language)

        def attempt() -> int:
            head = self.store.head()
            before = self.store.schema(head)
            if before is not None and schema.language is Language.ZED:
                refuse_orphans(before.schema, schema, self.store.snapshot(head))
            return self.store.write((), schema=(text, schema), expect_head=head)

        return self._wrote(_again(attempt))

    def schema(self, consistency: Consistency = LATEST, *, schema_id: str = "") -> SchemaVersion:
        """Returns the schema in force.

        Args:
            consistency: `at_exactly(token)`: the one that was in force then.
            schema_id: a version, in force or not.

        Raises:
            NotFound: none was written yet, or there is no such version.
        """
        return self._version(self._clock.revision(consistency), schema_id or None)

    def schemas(self) -> Sequence[SchemaVersion]:
        """Returns all versions, the newest last."""
        return self.store.schemas()

    # From here on: relationships.

    def write(
        self,
        *updates: Update,
        require: Sequence[Precondition] = (),
        metadata: Mapping[str, Any] | None = None,
        transaction: Any = None,
        schema_id: str = "",
    ) -> str:
        """Makes all changes or none, and returns the token of the new revision.

        Args:
            updates: made by `create`, `touch` and `delete`.
            require: what must be so at that moment.
            metadata: what `watch` shall tell of this write.
            transaction: the application's own connection to the same database, with its transaction open.
            schema_id: version that the relationships must fit; "": the one in force.

        Raises:
            NotAllowed: the schema does not allow a relationship.
            UnknownName: it has no such type, relation or caveat.
            InvalidArgument: two changes of one relationship.
            AlreadyExists: one to be created is there.
            PreconditionFailed: one does not hold.
            TooMuch: more than the limits allow.
        """
        self.limits.check("updates", len(updates))
        self.limits.check("preconditions", len(require))
        for update in updates:
            caveat = update.relationship.caveat
            self.limits.check("context_bytes", 0 if caveat is None else len(caveat.context))
        noted = "" if metadata is None else self.limits.json(metadata, "metadata")

        def attempt() -> int:
            version = self._version(self.store.head(), schema_id or None)
            check_updates(version.schema, updates)
            expected = None if schema_id else version.id
            return self.store.write(updates, require, metadata=noted, expect_schema=expected, transaction=transaction)

        if transaction is not None:
            # No question may be asked at this revision before the application commits, if it ever does.
            return token_of(self.store.id, attempt())
        return self._wrote(_again(attempt))

    def delete(
        self,
        filter: Filter,
        *,
        require: Sequence[Precondition] = (),
        limit: int | None = None,
        surplus: Surplus = Surplus.STAYS,
        metadata: Mapping[str, Any] | None = None,
    ) -> tuple[str, int]:
        """Deletes what matches, at most `limit`; returns the token and how many they were.

        Raises:
            TooMuch: more than the limit match, and the surplus is refused.
            PreconditionFailed: one does not hold.
        """
        self.limits.check("preconditions", len(require))
        noted = "" if metadata is None else self.limits.json(metadata, "metadata")
        if limit is None or surplus is Surplus.STAYS:
            revision, count = self.store.delete(filter, require, limit=limit, metadata=noted)
            return self._wrote(revision), count
        count = 0

        def attempt() -> int:
            nonlocal count
            head = self.store.head()
            found = self.store.snapshot(head).read(filter, limit=limit + 1)
            if len(found) > limit:
                raise TooMuch(
                    f"more than {limit} relationships match, and only a part was not asked for",
                    where="delete",
                    remedy="Raise the limit, or delete them part by part.",
                )
            count = len(found)
            gone = [Update(Operation.DELETE, one) for one in found]
            return self.store.write(gone, require, metadata=noted, expect_head=head)

        return self._wrote(_again(attempt)), count

    def load(self, relationships: Iterable[Relationship]) -> int:
        """Creates many relationships at one revision, as fast as the store can; returns how many they were.

        Raises:
            NotAllowed: the schema does not allow one; nothing was written.
            AlreadyExists: one is there; nothing was written.
        """
        schema = self.schema().schema

        def checked() -> Iterator[Relationship]:
            for relationship in relationships:
                check_relationship(schema, relationship)
                yield relationship

        count = self.store.load(checked())
        self._clock.wrote(self.store.head())
        return count

    def read(
        self,
        filter: Filter,
        *,
        consistency: Consistency = FAST,
        after: Relationship | None = None,
        limit: int | None = None,
    ) -> tuple[str, Sequence[Relationship]]:
        """Returns a token and the relationships as written that match and have not expired, sorted.

        Args:
            after: the last one of the page before; read the next page `at_exactly` the same token.
            limit: of a page; None: all.
        """
        revision = self._clock.revision(consistency)
        snapshot, now = self.store.snapshot(revision), time.time()
        found: list[Relationship] = []
        while True:
            lacking = None if limit is None else limit - len(found)
            page = snapshot.read(filter, after=after, limit=lacking)
            found += (one for one in page if one.expires_seconds is None or one.expires_seconds > now)
            if limit is None or len(page) < (lacking or 0) or len(found) >= limit:
                return token_of(self.store.id, revision), found
            after = page[-1]

    def changes(self, after: str, *, limit: int = 1000) -> tuple[str, Sequence[Change]]:
        """Returns the writes after a token, oldest first, and the token to go on from.

        Raises:
            RevisionGone: some of them are no longer kept.
        """
        changes = self.store.changes(revision_of(after, self.store.id), limit=limit)
        return (token_of(self.store.id, changes[-1].revision) if changes else after), changes

    def wait(self, after: str, timeout_seconds: float) -> bool:
        """Waits until something was written after a token; returns whether it was."""
        return self.store.wait(revision_of(after, self.store.id), timeout_seconds)

    def token(self, consistency: Consistency = LATEST) -> str:
        """Returns a token of now, such as to store with content that is written now.

        A content-change check asks first and has it at once: `graph.check(..., consistency=LATEST).revision`.
        """
        return token_of(self.store.id, self._clock.revision(consistency))

    # From here on: questions.

    def check(
        self,
        permission: str | tuple[Object, str],
        subject: str | Subject,
        *,
        context: Mapping[str, Any] = NOTHING,
        at_least: str = "",
        consistency: Consistency = FAST,
        extra: Sequence[Relationship] = (),
        schema_id: str = "",
        explain: bool = False,
    ) -> Decision:
        """Answers whether a subject has a permission or relation on an object.

        Args:
            permission: "model:kiln#use", or (object, name).
            subject: "user:ada", or "group:research#member" for all of them.
            context: parameters for conditions.
            at_least: a token; short for `consistency=at_least(token)`.
            extra: relationships that hold in this answer only.
            schema_id: a version; "": the one in force.
            explain: whether the decision says why.

        Raises:
            UnknownName: the schema has no such type, relation or permission.
            RevisionGone: the snapshot that was asked for is no longer kept.
            Late: it took too long.
        """
        object, name = permission_of(permission)
        who = Subject.parse(subject) if isinstance(subject, str) else subject
        at = self._at(fresh_as(at_least) if at_least else consistency, context, extra, schema_id)
        token = token_of(self.store.id, at.revision)
        if explain:
            why = self._engine.explain(at, object, name, who)
            return Decision(why.verdict is Verdict.YES, token, why.missing, why)
        verdict, missing = self._engine.check(at, object, name, who)
        return Decision(verdict is Verdict.YES, token, missing)

    def check_many(
        self,
        questions: Sequence[Question],
        *,
        consistency: Consistency = FAST,
        extra: Sequence[Relationship] = (),
        schema_id: str = "",
    ) -> list[Decision]:
        """Answers many questions at one revision, in their order; one that cannot be asked allows nothing and has its `error`."""
        self.limits.check("questions", len(questions))
        at = self._at(consistency, NOTHING, extra, schema_id)
        token = token_of(self.store.id, at.revision)
        return [
            Decision(False, token, error=found)
            if isinstance(found, AccessError)
            else Decision(found[0] is Verdict.YES, token, found[1])
            for found in self._engine.check_many(at, questions)
        ]

    def explain(self, permission: str | tuple[Object, str], subject: str | Subject, **options: Any) -> Step:
        """Returns the path that allowed, or every path that was tried; options are those of `check`."""
        why = self.check(permission, subject, explain=True, **options).why
        if why is None:
            raise RuntimeError("an explanation was asked for and not made")
        return why

    def permissions(
        self, object: str | Object, subject: str | Subject, *, context: Mapping[str, Any] = NOTHING, **options: Any
    ) -> dict[str, Decision]:
        """Returns the decision on every relation and permission of an object for a subject, in the schema's order.

        Args:
            options: as those of `check_many`.

        Raises:
            UnknownName: the schema has no such type.
            AccessError: one of them cannot be answered, such as for a condition that fails.
        """
        asked = Object.parse(object) if isinstance(object, str) else object
        who = Subject.parse(subject) if isinstance(subject, str) else subject
        revision = self._clock.revision(options.pop("consistency", FAST))
        schema = self._version(revision, options.get("schema_id") or None).schema
        if asked.type not in schema.types:
            raise UnknownName(
                f"the schema has no type {asked.type!r}",
                kind=Named.TYPE,
                where=str(asked),
                remedy=meant(asked.type, schema.types),
            )
        questions = [Question(asked, relation.name, who, context) for relation in schema.types[asked.type]]
        pinned = at_exactly(token_of(self.store.id, revision))
        decisions = {}
        for question, found in zip(questions, self.check_many(questions, consistency=pinned, **options), strict=True):
            if found.error is not None:
                raise found.error
            decisions[question.permission] = found
        return decisions

    def expand(
        self,
        permission: str | tuple[Object, str],
        *,
        consistency: Consistency = FAST,
        extra: Sequence[Relationship] = (),
        schema_id: str = "",
    ) -> tuple[str, Node]:
        """Returns a token and the tree of who has a permission, one level of groups deep: leaves name subjects."""
        object, name = permission_of(permission)
        at = self._at(consistency, NOTHING, extra, schema_id)
        return token_of(self.store.id, at.revision), self._engine.expand(at, object, name)

    def lookup_resources(
        self,
        type: str,
        permission: str,
        subject: str | Subject,
        *,
        context: Mapping[str, Any] = NOTHING,
        consistency: Consistency = FAST,
        after: str = "",
        extra: Sequence[Relationship] = (),
        schema_id: str = "",
    ) -> tuple[str, Iterator[Resource]]:
        """Returns a token and the objects of a type on which a subject has a permission, sorted by id, all of them.

        Args:
            after: the last id of the page before; ask for the next page `at_exactly` the same token.
        """
        who = Subject.parse(subject) if isinstance(subject, str) else subject
        at = self._at(consistency, context, extra, schema_id)
        found = self._engine.lookup_resources(at, type, permission, who, after=after)
        return token_of(self.store.id, at.revision), found

    def lookup_subjects(
        self,
        permission: str | tuple[Object, str],
        subject_type: str,
        subject_relation: str = "",
        *,
        context: Mapping[str, Any] = NOTHING,
        consistency: Consistency = FAST,
        after: str = "",
        extra: Sequence[Relationship] = (),
        schema_id: str = "",
    ) -> tuple[str, Iterator[Holder]]:
        """Returns a token and the subjects of a type that have a permission, sorted by id (`*` first), all of them."""
        object, name = permission_of(permission)
        at = self._at(consistency, context, extra, schema_id)
        found = self._engine.lookup_subjects(at, object, name, subject_type, subject_relation, after=after)
        return token_of(self.store.id, at.revision), found

    def collect(self, keep_seconds: float = 24 * 3600.0) -> int:
        """Forgets versions that only snapshots older than this show; returns how many."""
        return self.store.collect(time.time() - keep_seconds)

    def _at(
        self, consistency: Consistency, context: Mapping[str, Any], extra: Sequence[Relationship], schema_id: str
    ) -> At:
        revision = self._clock.revision(consistency)
        version = self._version(revision, schema_id or None)
        self.limits.check("extra", len(extra))
        for relationship in extra:
            check_relationship(version.schema, relationship)
        if context:
            self.limits.json(context, "context")
        left = min(self.limits.seconds, self._within - time.monotonic())
        return At(revision, version, time.time(), context, tuple(extra), Deadline(left))

    def _version(self, revision: int, schema_id: str | None) -> SchemaVersion:
        if schema_id is not None:
            found = next((version for version in self.store.schemas() if version.id == schema_id), None)
        else:
            found = self.store.schema(revision)
        if found is None:
            what = f"version {schema_id!r} of the schema" if schema_id else "schema yet"
            raise NotFound(f"there is no {what}", where="schema", remedy="Write one first: graph.write_schema(text)")
        return found

    def _wrote(self, revision: int) -> str:
        self._clock.wrote(revision)
        return token_of(self.store.id, revision)


def _again(attempt: Callable[[], int]) -> int:
    """Returns what an attempt returns, which is repeated where another write came between."""
    for _ in range(ATTEMPTS - 1):
        with contextlib.suppress(Conflict):
            return attempt()
    return attempt()
