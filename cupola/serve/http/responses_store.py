"""Responses that were kept, so that a later one can continue them.

Not here: what a response is (`responses.py`). They are kept in memory: a server that starts anew has
none. Invariant: nobody sees a response of another caller, and together they stay within the bounds.
"""

import collections
import dataclasses
from collections.abc import Mapping
from typing import Any

import orjson

from cupola.config.value import Value
from cupola.core.errors import ConfigError
from cupola.serve.errors import NotFound

Item = dict[str, Any]


class StoreLimits(Value):
    """How much is kept.

    Args:
        responses: of all callers together.
        size_bytes: of their JSON, the conversations before them included.
    """

    responses: int = 4096
    size_bytes: int = 256 * 1024 * 1024

    def check(self) -> None:
        for name in ("responses", "size_bytes"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}={getattr(self, name)} is negative", where=name, remedy="Use 0 or more.")


@dataclasses.dataclass(frozen=True)
class Kept:
    """A response and what led to it.

    Args:
        response: as it was sent.
        input: items of the whole conversation before its output, the oldest first.
    """

    response: dict[str, Any]
    input: tuple[Item, ...]

    @property
    def conversation(self) -> tuple[Item, ...]:
        """Its input and its output."""
        return (*self.input, *self.response["output"])


class ResponseStore:
    """Keeps responses until there is no more room; then whoever holds most loses its oldest."""

    def __init__(self, limits: StoreLimits = StoreLimits()):
        self._limits = limits
        self._kept: dict[str, collections.OrderedDict[str, tuple[Kept, int]]] = {}
        self._bytes: collections.Counter[str] = collections.Counter()

    def __len__(self) -> int:
        return sum(map(len, self._kept.values()))

    @property
    def size_bytes(self) -> int:
        """What all of them take."""
        return self._bytes.total()

    def keep(self, owner: str, kept: Kept) -> None:
        """Keeps a response of an owner, if it is not larger than all the room there is."""
        size = len(orjson.dumps(kept.response)) + sum(len(orjson.dumps(item)) for item in kept.input)
        if size > self._limits.size_bytes or not self._limits.responses:
            return
        while len(self) >= self._limits.responses or self.size_bytes + size > self._limits.size_bytes:
            largest = max(self._bytes, key=self._bytes.__getitem__)
            self._drop(largest, next(iter(self._kept[largest])))
        self._kept.setdefault(owner, collections.OrderedDict())[kept.response["id"]] = kept, size
        self._bytes[owner] += size

    def get(self, owner: str, id: str, where: str = "response_id") -> Kept:
        """Returns a response of this owner.

        Raises:
            NotFound: there is none; those of others are none.
        """
        mine: Mapping[str, tuple[Kept, int]] = self._kept.get(owner, {})
        if id not in mine:
            raise NotFound(
                f"there is no response {id[:200]!r}",
                where=where,
                remedy="It was deleted, never stored (store: false), or gave way to newer ones; send its items as input.",
            )
        return mine[id][0]

    def delete(self, owner: str, id: str) -> None:
        """Forgets a response of this owner.

        Raises:
            NotFound: as `get`.
        """
        self.get(owner, id)
        self._drop(owner, id)

    def _drop(self, owner: str, id: str) -> None:
        _, size = self._kept[owner].pop(id)
        self._bytes[owner] -= size
        if not self._kept[owner]:
            del self._kept[owner], self._bytes[owner]
