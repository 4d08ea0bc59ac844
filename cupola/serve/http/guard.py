"""Who may do what: the protocol that every route but /health asks, and the guard that lets everyone in.

Not here: keys (`keys.py`), the permission graph (`access/`), which fills this protocol in.
Invariant: a name that a caller may not see is answered exactly as one that does not exist.
"""

import dataclasses
import enum
from collections.abc import Iterable
from typing import Protocol, runtime_checkable


class Action(enum.Enum):
    """What a caller wants of an object."""

    GENERATE = "generate"
    EMBED = "embed"
    SCORE = "score"
    TOKENIZE = "tokenize"
    READ = "read"
    """See that it exists, and its public facts."""
    MANAGE = "manage"
    """Load and unload adapters."""
    OBSERVE = "observe"
    """Read metrics."""


SERVER = "server:http"
"""The object that stands for the server itself; a model is "model:NAME", an adapter "adapter:NAME"."""


@dataclasses.dataclass(frozen=True)
class Caller:
    """Who asks.

    Args:
        name: for logs and limits.
        namespace: whose cached prefixes it shares; equal namespaces share.
        subject: who that is in a permission graph; "" where none is asked.
    """

    name: str
    namespace: str
    subject: str = ""

    @property
    def owner(self) -> str:
        """Whose stored responses it sees: its own alone, with whichever of its keys."""
        return self.subject or self.name


@runtime_checkable
class Guard(Protocol):
    """Knows callers and what each may do. What takes its methods long they await: others are answered meanwhile."""

    async def authenticate(self, credentials: str | None) -> Caller:
        """Returns who has these credentials, a key as the client sent it; None: it sent none.

        Raises:
            Unauthorized: nobody has.
            Unavailable: that cannot be said now, nor in the other methods.
        """

    async def check(self, caller: Caller, action: Action, object: str) -> None:
        """Does nothing where the caller may do this to the object, such as "model:smollm2".

        Raises:
            Forbidden: it may not.
            NotFound: it may not even know of it.
        """

    async def visible(self, caller: Caller, objects: Iterable[str]) -> list[str]:
        """Returns those of these models and adapters that the caller may know of, in the same order."""


class Open:
    """Everyone may do everything: for an address that only this machine's user can reach."""

    async def authenticate(self, credentials: str | None) -> Caller:
        return Caller("anyone", "")

    async def check(self, caller: Caller, action: Action, object: str) -> None:
        pass

    async def visible(self, caller: Caller, objects: Iterable[str]) -> list[str]:
        return list(objects)
