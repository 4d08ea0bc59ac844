"""What a `gen` or `select` brought forth, for whoever waits for it.

Not here: who fills it in (`executor.py`). Invariant: it ends exactly once, with a result or an error.
"""

import dataclasses
import threading
from collections.abc import Iterator

from cupola.serve.program.choose import Score
from cupola.serve.request import Reason, Token, Usage


@dataclasses.dataclass(frozen=True)
class Result:
    """What stands in a variable, and how it came about.

    Args:
        text: the variable's text.
        tokens: that made it, thoughts and stop text among them.
        reason: why a generated text ended.
        usage: what a generated text took.
        scores: of each choice, for `select`.
    """

    text: str
    tokens: tuple[Token, ...] = ()
    reason: Reason | None = None
    usage: Usage | None = None
    scores: tuple[Score, ...] = ()


class Variable:
    """A result that is being made; any thread may wait for it."""

    def __init__(self):
        self._changed = threading.Condition()
        self._pieces: list[str] = []
        self._end: Result | list[Result] | BaseException | None = None

    def add(self, piece: str) -> None:
        """Gives a piece of text to those who read as it comes."""
        with self._changed:
            self._pieces.append(piece)
            self._changed.notify_all()

    def end(self, end: Result | list[Result] | BaseException) -> None:
        """Sets the result or the error; what came first stays."""
        with self._changed:
            self._end = end if self._end is None else self._end
            self._changed.notify_all()

    def wait(self) -> Result | list[Result]:
        """Returns the result, when there is one, or raises the error."""
        with self._changed:
            self._changed.wait_for(lambda: self._end is not None)
        return self._ended()

    def stream(self) -> Iterator[str]:
        """Yields the pieces of text from the first on, as they come, and raises the error at the end."""
        seen = 0
        while True:
            with self._changed:
                self._changed.wait_for(lambda seen=seen: self._end is not None or len(self._pieces) > seen)
                fresh, ended = self._pieces[seen:], self._end is not None
            yield from fresh
            seen += len(fresh)
            if ended and seen == len(self._pieces):
                self._ended()
                return

    def _ended(self) -> Result | list[Result]:
        if isinstance(self._end, BaseException):
            raise self._end
        if self._end is None:
            raise RuntimeError("a variable was read before its end")
        return self._end
