"""Speculation: guessing the next tokens, so that one step of the model checks many.

Not here: the steps themselves, a model that drafts (`draft.py`).
Invariant: speculation changes no token. A position's token is a function of its logits, the request's seed and
the position alone (`sample.py`), so the engine draws at every drafted position as if it had come to it, and
keeps the draws up to the first that differs from the draft: those are what it would have drawn one by one,
also with a temperature, penalties or a grammar. This accepts less than rejection sampling of drafts would,
which keeps only the distribution and not the tokens.
Source: prompt look-up decoding, Saxena 2023; lossless checks of drafts, Leviathan et al. 2023, section 2.
"""

import enum
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from cupola.config.value import Value
from cupola.core.errors import ConfigError


class SpeculationKind(enum.Enum):
    """Who guesses."""

    NONE = "none"
    NGRAM = "ngram"
    """The sequence itself: what followed its last tokens when they stood in it before."""
    DRAFT = "draft"
    """A smaller model of the same vocabulary."""


class Speculation(Value):
    """How an engine guesses ahead.

    Args:
        kind: who guesses.
        count: at most so many tokens in a step.
        min_n: fewest last tokens that must have stood in the sequence before, for NGRAM.
        max_n: most that are looked for.
    """

    kind: SpeculationKind = SpeculationKind.NONE
    count: int = 4
    min_n: int = 2
    max_n: int = 4

    def check(self) -> None:
        if self.count < 1:
            raise ConfigError(f"count={self.count} guesses nothing", where="count", remedy="Use 1 or more; 4 is usual.")
        if not 1 <= self.min_n <= self.max_n:
            raise ConfigError(
                f"min_n={self.min_n} and max_n={self.max_n} leave no length to look for",
                where="min_n",
                remedy="Use 1 <= min_n <= max_n, such as 2 and 4.",
            )

    def proposer(self) -> "Proposer | None":
        """Returns who guesses for one sequence; None: nobody does."""
        match self.kind:
            case SpeculationKind.NGRAM:
                return NgramProposer(self)
            case SpeculationKind.DRAFT:
                return Awaited()
        return None


@runtime_checkable
class Proposer(Protocol):
    """Guesses for one sequence."""

    def propose(self, tokens: Sequence[int], count: int) -> list[int]:
        """Returns up to `count` tokens that may come after `tokens`, which only ever grow at their end."""

    def learn(self, drafted: int, accepted: int) -> None:
        """Takes note of how many of the last proposal's tokens were drafted and how many came."""


class Awaited:
    """Keeps places for guesses that a draft model makes of all sequences at once, when a step is planned."""

    def propose(self, tokens: Sequence[int], count: int) -> list[int]:
        """Returns `count` places."""
        return [0] * count

    def learn(self, drafted: int, accepted: int) -> None:
        """Takes note of nothing."""


class NgramProposer:
    """Proposes what followed the longest match of the sequence's last tokens, where it stood last.

    Every n-gram of the sequence is in a table with the place after it, which grows with the sequence:
    a step costs max_n look-ups for each new token, however long the sequence is.

    Args:
        speculation: lengths to look for, and how many tokens at most.
    """

    def __init__(self, speculation: Speculation):
        self._lengths = range(speculation.max_n, speculation.min_n - 1, -1)
        self._limit = self._room = speculation.count
        self._after: dict[tuple[int, ...], int] = {}
        self._indexed = 0

    def propose(self, tokens: Sequence[int], count: int) -> list[int]:
        """Returns up to `count` tokens; fewer while few of the last ones came, none without a match."""
        self._index(tokens)
        count = min(count, self._room)
        for n in self._lengths:
            if n < len(tokens):
                place = self._after.get(tuple(tokens[-n:]))
                if place is not None and count > 0:
                    return _continued(tokens, place, count)
        return []

    def learn(self, drafted: int, accepted: int) -> None:
        """Doubles the next proposal where all came, else makes it one longer than what came."""
        if drafted:
            grown = self._room * 2 if accepted == drafted else accepted + 1
            self._room = min(self._limit, grown)

    def _index(self, tokens: Sequence[int]) -> None:
        # The n-grams that end at the last token have nothing after them yet: they wait for the next call.
        for end in range(max(self._indexed, 1), len(tokens)):
            for n in self._lengths:
                if n <= end:
                    self._after[tuple(tokens[end - n : end])] = end
        self._indexed = max(self._indexed, len(tokens))


def _continued(tokens: Sequence[int], place: int, count: int) -> list[int]:
    """Copies from `place` on; at the end of the tokens it goes on with the copy, as repetition does."""
    copied = list(tokens[place : place + count])
    period = len(tokens) - place
    while len(copied) < count:
        copied.append(copied[len(copied) - period])
    return copied


def accept(draft: Sequence[int], drawn: Sequence[int]) -> list[int]:
    """Returns the tokens that a step adds: the draws up to the first that the draft did not have.

    Args:
        draft: the guessed tokens.
        drawn: what was drawn for the next position and after each guessed token: one more than the draft.
    """
    for i, (guess, token) in enumerate(zip(draft, drawn, strict=False)):
        if guess != token:
            return list(drawn[: i + 1])
    return list(drawn)
