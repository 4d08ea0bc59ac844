"""The stores that callers make over HTTP, and the assertions they keep with a model: facts in a graph of their own.

Not here: the graph of a store, whose tenant is the store's id (`tenants.py`).
Invariant: a caller sees the stores of its own tenant alone; another's is as if it were not there.
"""

import json
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from cupola.access.consistency import LATEST
from cupola.access.errors import NotFound
from cupola.access.graph import Graph
from cupola.access.relation import Caveated, Filter, Object, Relationship, Subject, Update, delete, touch
from cupola.access.server.tenants import Tenants
from cupola.access.store.ulid import new_ulid

TENANT = "_stores"
"""Whose graph keeps them; no caller's tenant begins with an underscore."""

SEEN_SECONDS = 1.0
"""For which a store that was found is not looked for again."""

SCHEMA = """
/** whose requests made it */
definition tenant {}

caveat about(name string, made_seconds double) {
    name != "" && made_seconds >= 0.0
}

definition store {
    relation owner: tenant with about
}

caveat content(text string) {
    text != ""
}

definition model {
    relation asserted: store with content
}
"""


class Entry(NamedTuple):
    """A store that somebody made.

    Args:
        id: ULID, which is the name of its tenant.
        name: that its maker gave it; several may have the same.
        made_seconds: since 1970.
    """

    id: str
    name: str
    made_seconds: float


class Stores:
    """All stores of a server.

    Args:
        tenants: where their graphs are.
    """

    def __init__(self, tenants: Tenants):
        self._tenants = tenants
        self._ready = False
        self._seen: dict[tuple[str, str], tuple[float, Entry]] = {}

    def create(self, owner: str, name: str) -> Entry:
        """Makes an empty store for a tenant."""
        made = Entry(new_ulid(), name, round(time.time(), 3))
        about = Caveated.of("about", {"name": name, "made_seconds": made.made_seconds})
        self._write(touch(Relationship(Object("store", made.id), "owner", Subject("tenant", owner), about)))
        return made

    def owned(self, owner: str, *, name: str = "", after: str = "", limit: int = 50) -> Sequence[Entry]:
        """Returns a tenant's stores, oldest first.

        Args:
            name: only those of this name.
            after: id of the last one of the page before.
        """
        found: list[Entry] = []
        last = Relationship(Object("store", after), "owner", Subject("tenant", owner)) if after else None
        while len(found) < limit:
            page = self._read(Filter(type="store", relation="owner", subject_id=owner), last, limit)
            found += (entry for entry in map(_entry, page) if name in ("", entry.name))
            if len(page) < limit:
                break
            last = page[-1]
        return found[:limit]

    def get(self, owner: str, id: str) -> Entry:
        """Returns a tenant's store.

        Raises:
            NotFound: there is none of this id, or it is another tenant's.
        """
        found = self._read(Filter(type="store", id=id, relation="owner", subject_id=owner), None, 1)
        if not found:
            raise NotFound(f"there is no store {id[:64]!r}", where="store_id", remedy="List the stores: GET /stores")
        if len(self._seen) > 10_000:
            self._seen.clear()
        entry = _entry(found[0])
        self._seen[owner, id] = time.monotonic() + SEEN_SECONDS, entry
        return entry

    def seen(self, owner: str, id: str) -> Entry | None:
        """Returns a store that was got a moment ago, without asking the database."""
        until, entry = self._seen.get((owner, id), (0.0, None))
        return entry if time.monotonic() < until else None

    def delete(self, owner: str, id: str) -> None:
        """Forgets a store, its relationships and its assertions, and what they were before.

        Raises:
            NotFound: as `get`.
        """
        self.get(owner, id)
        self._write(delete(Relationship(Object("store", id), "owner", Subject("tenant", owner))))
        self._seen.pop((owner, id), None)
        # Nobody reads at a revision of before, so that the history may go too.
        with self._tenants.graph(TENANT) as graph:
            graph.delete(Filter(type="model", subject_type="store", subject_id=id))
            graph.collect(keep_seconds=0.0)
        with self._tenants.graph(id) as graph:
            graph.delete(Filter())
            graph.collect(keep_seconds=0.0)

    def assertions(self, id: str, model: str) -> list[dict[str, Any]]:
        """Returns what was asserted of a store's model."""
        found = self._read(Filter(type="model", id=model, relation="asserted", subject_id=id), None, 1)
        return json.loads(_parameters(found[0])["text"]) if found else []

    def keep_assertions(self, id: str, model: str, assertions: Sequence[dict[str, Any]]) -> None:
        """Puts these in the place of what was asserted of a store's model."""
        content = Caveated.of("content", {"text": json.dumps(assertions)})
        self._write(touch(Relationship(Object("model", model), "asserted", Subject("store", id), content)))

    def _read(self, filter: Filter, after: Relationship | None, limit: int) -> Sequence[Relationship]:
        with self._tenants.graph(TENANT) as graph:
            return graph.read(filter, consistency=LATEST, after=after, limit=limit)[1]

    def _write(self, update: Update) -> None:
        with self._tenants.graph(TENANT) as graph:
            self._prepare(graph)
            graph.write(update)

    def _prepare(self, graph: Graph) -> None:
        if not self._ready and not graph.schemas():
            graph.write_schema(SCHEMA)
        self._ready = True


def _entry(relationship: Relationship) -> Entry:
    about = _parameters(relationship)
    return Entry(relationship.object.id, about["name"], about["made_seconds"])


def _parameters(relationship: Relationship) -> dict[str, Any]:
    return {} if relationship.caveat is None else relationship.caveat.parameters
