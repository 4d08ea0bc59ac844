"""When an answer must be there.

Not here: how long that is (`limits.py`, or what the caller says).
Invariant: an answer is whole and in time, or `Late` is raised; nothing is cut.
"""

import time
from collections.abc import Iterator
from typing import TypeVar

from cupola.access.errors import Late

T = TypeVar("T")


class Deadline:
    """The end of the time that is left for one or several answers.

    Args:
        seconds: from now; `math.inf` for no end.
    """

    __slots__ = ("until_seconds",)

    def __init__(self, seconds: float | int):
        self.until_seconds = time.monotonic() + seconds

    def check(self, asked: object) -> None:
        """Refuses to go on when the time is over.

        Args:
            asked: what is being answered, for the error.

        Raises:
            Late: it is.
        """
        if time.monotonic() > self.until_seconds:
            raise Late(
                "the answer takes too long",
                where=str(asked),
                remedy="Ask for less, or give it more time: graph.within(seconds), Limits(seconds=...).",
            )

    def resting(self, found: Iterator[T]) -> Iterator[T]:
        """Yields what an iterator yields; what its reader does in between takes none of the time."""
        return self._rest(found, time.monotonic())

    def _rest(self, found: Iterator[T], since_seconds: float) -> Iterator[T]:
        self.until_seconds += time.monotonic() - since_seconds
        for one in found:
            since_seconds = time.monotonic()
            yield one
            self.until_seconds += time.monotonic() - since_seconds
