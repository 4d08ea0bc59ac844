"""Threads that answer questions while the event loop goes on, no more of them than the server takes on.

Invariant: whoever cannot be taken on is told so at once; a task that ran out of time no longer holds up its client.
"""

import asyncio
import concurrent.futures
import functools
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TypeVar

from cupola.access.errors import Late
from cupola.access.server.http.errors import Busy

Answer = TypeVar("Answer")

BATCH = 256
"""Entries of a stream that are fetched at one go."""


class Workers:
    """A bounded pool of threads.

    Args:
        name: of what it does, for its threads and its errors.
        threads: of them.
        waiting: tasks that may wait for one.
        seconds: that a task may take, the waiting included.
    """

    def __init__(self, name: str, *, threads: int, waiting: int, seconds: float | int):
        self.name, self.most, self.seconds = name, threads + waiting, seconds
        self.taken = 0
        self._pool = concurrent.futures.ThreadPoolExecutor(threads, thread_name_prefix=name)

    async def run(self, task: Callable[[], Answer]) -> Answer:
        """Returns what a task returns.

        Raises:
            Busy: too many wait already.
            Late: it takes too long.
        """
        if self.taken >= self.most:
            raise Busy(f"{self.taken} {self.name} are under way, which is all this server takes on", remedy="Wait.")
        self.taken += 1
        future = self._pool.submit(task)
        future.add_done_callback(functools.partial(self._done, asyncio.get_running_loop()))
        try:
            async with asyncio.timeout(self.seconds):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            raise Late(
                f"no answer after {self.seconds:g} seconds", where="server", remedy="Ask for less, or later."
            ) from None

    async def stream(self, entries: Iterator[Answer]) -> AsyncIterator[list[Answer]]:
        """Yields what an iterator yields, some at a time, each time within the bounds of `run`."""
        while batch := await self.run(functools.partial(_take, entries)):
            yield batch

    def close(self) -> None:
        """Ends the threads as soon as they are idle."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _done(self, loop: asyncio.AbstractEventLoop, _: object) -> None:
        # The count belongs to the loop's thread; when that has ended, nobody counts any more.
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._release)

    def _release(self) -> None:
        self.taken -= 1


def _take(entries: Iterator[Answer]) -> list[Answer]:
    return list(itertools.islice(entries, BATCH))
