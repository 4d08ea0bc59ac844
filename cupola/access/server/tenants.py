"""The graphs of a server: one for each tenant of a database, opened when first asked for.

Not here: which tenant a caller has (`identity.py`), the stores that callers make (`stores.py`).
Invariant: a graph is never closed while somebody uses it; at most `most` are open once those in use are let go.
"""

import collections
import contextlib
import dataclasses
import threading
from collections.abc import Iterator

from cupola.access.errors import InvalidArgument, StoreUnavailable
from cupola.access.graph import Graph
from cupola.access.limits import Limits

MEMORY = ":memory:"
LONGEST = 128
"""Characters of a tenant's name."""


@dataclasses.dataclass
class _Open:
    graph: Graph
    users: int = 0


class Tenants:
    """Opens the graphs of one database by the names of their tenants.

    Args:
        address: as `Graph.open` takes it. In memory, a graph lives as long as this object, so that one more than
            `most` is refused rather than another forgotten.
        limits: of each graph.
        quantum_seconds: likewise.
        most: graphs that stay open.
    """

    def __init__(
        self,
        address: str = MEMORY,
        *,
        limits: Limits | None = None,
        quantum_seconds: float | int = 0.0,
        most: int = 64,
    ):
        self.address, self.limits, self.most = address, limits or Limits(), most
        self._quantum = float(quantum_seconds)
        self._open: collections.OrderedDict[str, _Open] = collections.OrderedDict()
        self._lock = threading.Lock()
        self._closed = False

    @contextlib.contextmanager
    def graph(self, tenant: str) -> Iterator[Graph]:
        """Lends the graph of a tenant, which is made where it is not there yet.

        Raises:
            InvalidArgument: the name is empty, too long or of strange characters.
            StoreUnavailable: the database cannot be opened, or is in memory and holds as many as it may.
        """
        with self._lock:
            held = self._take(tenant)
        try:
            yield held.graph
        finally:
            with self._lock:
                held.users -= 1
                spare = self._spare()
            for one in spare:
                one.graph.close()

    def close(self) -> None:
        """Closes all graphs."""
        with self._lock:
            self._closed = True
            spare, self._open = list(self._open.values()), collections.OrderedDict()
        for one in spare:
            one.graph.close()

    def __len__(self) -> int:
        return len(self._open)

    def _take(self, tenant: str) -> _Open:
        if self._closed:
            raise StoreUnavailable("the server is shutting down", remedy="Send it again in a while.")
        held = self._open.get(tenant)
        if held is None:
            _check_name(tenant)
            if self.address == MEMORY and len(self._open) >= self.most:
                raise StoreUnavailable(
                    f"{self.most} tenants are in memory, which is all it takes",
                    where="tenant",
                    remedy="Keep them in a file.",
                )
            graph = Graph.open(self.address, tenant=tenant, limits=self.limits, quantum_seconds=self._quantum)
            held = self._open[tenant] = _Open(graph)
        self._open.move_to_end(tenant)
        held.users += 1
        return held

    def _spare(self) -> list[_Open]:
        """Takes out those that were asked for longest ago, as far as nobody uses them."""
        if self.address == MEMORY or self._closed:
            return []
        over = len(self._open) - self.most
        names = [name for name, one in self._open.items() if not one.users][: max(over, 0)]
        return [self._open.pop(name) for name in names]


def _check_name(tenant: str) -> None:
    if not 0 < len(tenant) <= LONGEST or not tenant.isprintable() or any(mark in tenant for mark in " #@*/\\"):
        raise InvalidArgument(
            f"{tenant[:40]!r} is no tenant's name", where="tenant", remedy="Use letters, digits, -, _ and dots."
        )
