"""Models that hear or speak: found by name for a caller, and used by one call at a time.

Not here: what they do (`transcriptions.py`, `speech.py`). Invariant: a name that a caller may not see is
answered exactly as one that does not exist; work that was begun in a thread has ended before the next one's begins.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import TypeVar

from cupola.config.suggest import did_you_mean
from cupola.serve.errors import Busy, NotFound
from cupola.serve.http.call import Call
from cupola.serve.http.errors import ModelNotFound
from cupola.serve.http.guard import Action

Held = TypeVar("Held")
Made = TypeVar("Made")


def _nothing() -> None:
    pass


class Turn:
    """Whose turn it is, and who waits.

    Args:
        most: calls at the same time, the one whose turn it is among them; more are refused.
        what: they are, for whoever is refused.
    """

    def __init__(self, most: int, what: str):
        self.waiting = 0
        self._most, self._what, self._lock = most, what, asyncio.Lock()

    @contextlib.asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Takes a place among those who wait.

        Raises:
            Busy: there is none.
        """
        if self.waiting >= self._most:
            raise Busy(f"{self._most} {self._what}", remedy="Send it again later.", retry_after_seconds=10)
        self.waiting += 1
        try:
            yield
        finally:
            self.waiting -= 1

    async def work(self, some: Callable[[], Made], *, leave: Callable[[], None] = _nothing) -> Made:
        """Returns what some work gives, done in a thread while it is nobody else's turn.

        Args:
            leave: tells the work, where it can be told, that nobody waits for it any more.
        """
        async with self._lock:
            # Shielded, so that nobody else's turn begins while this is still worked on.
            working = asyncio.ensure_future(asyncio.to_thread(some))
            try:
                return await asyncio.shield(working)
            except asyncio.CancelledError:
                leave()
                await asyncio.wait([working])
                raise


async def find(call: Call, held: Mapping[str, Held], name: str, verb: str) -> Held:
    """Returns the model of a name, if the caller may use it.

    Args:
        held: by their objects, such as "model:whisper-base".
        verb: what they do, for whoever names another.

    Raises:
        ModelNotFound: there is none, or the caller may not know of it.
        Forbidden: the caller may not use it.
    """
    visible = await call.service.guard.visible(call.caller, held)
    object = f"model:{name}"
    if object in visible:
        with contextlib.suppress(NotFound):
            await call.service.guard.check(call.caller, Action.GENERATE, object)
            return held[object]
    names = [each.removeprefix("model:") for each in visible if each != object]
    raise ModelNotFound(
        f"there is no model {name[:200]!r} that {verb}", where="model", remedy=did_you_mean(name[:200], names)
    )


def by_object(names: Iterable[tuple[str, Held]]) -> dict[str, Held]:
    """Returns things by what the guard calls them."""
    return {f"model:{name}": held for name, held in names}
