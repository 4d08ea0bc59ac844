"""What a program needs of whoever generates for it.

Not here: our engine (`local.py`), an HTTP endpoint (`endpoint.py`).
Invariant: a back-end honours every field of a call or refuses the call and says what to use.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

from cupola.serve.program.choose import Method, Score
from cupola.serve.program.transcript import Transcript
from cupola.serve.request import Grammar, Piece


@dataclasses.dataclass(frozen=True)
class Call:
    """What one `gen` asks for; its fields mean what those of `Request` mean.

    Args:
        sampling: the fields of `Sampling` that the program names; for others the back-end's own hold.
    """

    limit_tokens: int
    sampling: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    stop: tuple[str, ...] = ()
    grammar: Grammar | None = None
    top_logprobs: int | None = None


@runtime_checkable
class Session(Protocol):
    """A back-end as one state sees it; used by one thread at a time."""

    def generate(self, transcript: Transcript, call: Call) -> Iterator[Piece]:
        """Yields what follows a transcript, the last piece with its `Finish`; leaving early aborts.

        Raises:
            CupolaError: the call cannot be honoured or was not served.
        """

    def score(self, transcript: Transcript, choices: tuple[str, ...], method: Method) -> tuple[Score, ...]:
        """Returns the score of each text after a transcript.

        Raises:
            CupolaError: as `generate`.
        """

    def cache(self, transcript: Transcript) -> None:
        """Computes a prefix that several states will share, so that they find it; only a hint."""

    def fork(self) -> "Session":
        """Returns a session for a branch."""


@runtime_checkable
class Backend(Protocol):
    """Generates for many states at once."""

    def session(self) -> Session:
        """Returns a session for a new state."""
