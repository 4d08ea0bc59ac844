"""A place in the words of a text, and what to do where a word is not the one that the grammar wants.

Not here: the grammar (`parser.py`).
Invariant: one mistake is told once. After an error nothing is told until a wanted word was taken again.
Source: the single-word repairs of ANTLR 4 (Parr 2013, "The Definitive ANTLR 4 Reference", section 9.3), so that
the errors are those that users of OpenFGA's own tools see: a stray word is passed over, a missing one is supposed,
and else the reader skips to a word that may follow.
"""

from collections.abc import Collection

from cupola.access.schema.fga.errors import FgaError, Kind
from cupola.access.schema.fga.lexer import END, NAME, NAMES, NEWLINE, SPACE, Word


class Lost(Exception):
    """The word at hand fits nowhere; it has been told."""


class Cursor:
    """Walks over words and gathers errors.

    Args:
        words: the last of which is the end.
    """

    def __init__(self, words: tuple[Word, ...]):
        self._words, self._index, self._silent = words, 0, False
        self.errors: list[FgaError] = []

    @property
    def word(self) -> Word:
        """The word at hand."""
        return self._words[self._index]

    def ahead(self, distance: int = 1) -> str:
        """Returns the kind of a word further on."""
        return self._words[min(self._index + distance, len(self._words) - 1)].kind

    def at(self, *kinds: str) -> bool:
        """Returns whether the word at hand is of one of these kinds."""
        return self.word.kind in kinds

    def advance(self) -> Word:
        """Takes the word at hand, which was wanted."""
        self._silent = False
        return self._step()

    def accept(self, *kinds: str) -> Word | None:
        """Takes the word at hand if it is of one of these kinds."""
        return self.advance() if self.at(*kinds) else None

    def settle(self, wanted: Collection[str]) -> None:
        """Makes sure that the word at hand is one of the wanted; passes over a single stray one before it.

        Raises:
            Lost: neither it nor the next one is.
        """
        if self.word.kind in wanted:
            return
        if self.ahead() not in wanted:
            raise self.lost(wanted)
        self.tell(f"`{_shown(self.word)}` has no place here; {_wanted(wanted)} may follow")
        self._silent = True
        self._step()

    def take(self, wanted: str | Collection[str], *, then: Collection[str] = ()) -> Word:
        """Takes a wanted word; supposes one where the word at hand is what may come after it.

        Raises:
            Lost: it is something else.
        """
        kinds = (wanted,) if isinstance(wanted, str) else wanted
        if self.word.kind not in kinds and self.ahead() not in kinds and self.word.kind in then:
            self.tell(f"{_wanted(kinds)} is missing before `{_shown(self.word)}`")
            self._silent = True
            return Word("", "", self.word.start, self.word.place)
        self.settle(kinds)
        return self.advance()

    def skip_to(self, *kinds: str) -> None:
        """Passes over words until one of these kinds, or the end."""
        while not self.at(END, *kinds):
            self._step()

    def lost(self, wanted: Collection[str]) -> Lost:
        """Tells that the word at hand is none of the wanted, and returns what to raise."""
        self.tell(f"`{_shown(self.word)}` cannot stand here; {_wanted(wanted)} can")
        self._silent = True
        return Lost()

    def tell(self, problem: str, word: Word | None = None) -> None:
        """Notes a mistake in the grammar at a word, the one at hand unless another is given."""
        if not self._silent:
            word = word or self.word
            self.errors.append(FgaError(problem, Kind.SYNTAX, word.text, place=word.place))

    def _step(self) -> Word:
        word = self.word
        self._index = min(self._index + 1, len(self._words) - 1)
        return word


def _shown(word: Word) -> str:
    return word.text.replace("\n", "\\n")


def _wanted(kinds: Collection[str]) -> str:
    """Returns the kinds as a phrase; all that can be a name are one."""
    signs = {SPACE: "a space", NEWLINE: "a new line", END: "the end", NAME: "a name"}
    kept = set(kinds) - (NAMES - {NAME} if NAME in kinds else set())
    return " or ".join(sorted(signs.get(kind, kind if " " in kind else f"`{kind}`") for kind in kept))
