"""What a state has said so far: turns of roles, or one text without roles.

Not here: how a template writes turns, and tokens of constant text (`local.py`).
Invariant: a transcript is a value; a branch that goes on from one never changes another.
"""

import dataclasses
import enum

from cupola.serve.program.errors import ProgramError


class Role(enum.Enum):
    """Who speaks in a turn."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


@dataclasses.dataclass(frozen=True)
class Span:
    """Text that was written, or generated.

    Args:
        text: of the span.
        tokens: it was generated as; none for what was written.
    """

    text: str
    tokens: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Turn:
    """What one role says; None is text without roles."""

    role: Role | None
    spans: tuple[Span, ...] = ()

    @property
    def text(self) -> str:
        """All of it, written and generated."""
        return "".join(span.text for span in self.spans)


@dataclasses.dataclass(frozen=True)
class Transcript:
    """Turns, the last of which may still be open.

    Args:
        turns: the first said first.
        open: the role whose turn goes on, after `turns`; text without roles stays open for ever.
    """

    turns: tuple[Turn, ...] = ()
    open: Turn | None = None

    @property
    def text(self) -> str:
        """What all turns say, one after the other, without any mark between them."""
        return "".join(turn.text for turn in self.all)

    @property
    def all(self) -> tuple[Turn, ...]:
        """The turns, the open one too."""
        return self.turns if self.open is None else (*self.turns, self.open)

    def opened(self, role: Role) -> "Transcript":
        """Returns it with a new turn.

        Raises:
            ProgramError: another turn is open, or there is text without a role.
        """
        if self.open is not None and self.open.role is None:
            raise ProgramError(
                f"a turn of the {role.value} after text that stands in no role",
                remedy='Put all text into roles, as user("..."), or use none at all.',
            )
        if self.open is not None and self.open.role is not None:
            raise ProgramError(
                f"a turn of the {role.value} inside one of the {self.open.role.value}",
                remedy="Turns follow one another: close the outer one before, or write the inner text without a role.",
            )
        return Transcript(self.turns, Turn(role))

    def closed(self) -> "Transcript":
        """Returns it with its open turn ended."""
        return self if self.open is None else Transcript((*self.turns, self.open))

    def written(self, text: str) -> "Transcript":
        """Returns it with constant text at its end.

        Raises:
            ProgramError: there are turns, and none is open.
        """
        return self._with(Span(text)) if text else self

    def generated(self, text: str, tokens: tuple[int, ...]) -> "Transcript":
        """Returns it with what a model said at its end; else as `written`."""
        return self._with(Span(text, tokens)) if text or tokens else self

    def _with(self, span: Span) -> "Transcript":
        if self.open is None and self.turns:
            raise ProgramError(
                f"{span.text[:40]!r} stands in no role, after turns that do",
                remedy='Put it into one: s += user("...") or s += assistant(...).',
            )
        turn = self.open or Turn(None)
        spans = turn.spans
        if spans and not spans[-1].tokens and not span.tokens:
            # One text is encoded as one, wherever the program happened to cut it.
            spans, span = spans[:-1], Span(spans[-1].text + span.text)
        return Transcript(self.turns, Turn(turn.role, (*spans, span)))
