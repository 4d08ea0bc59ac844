"""Symbols: spoken text as the ids that a speech model reads, characters or phonemes.

Id 0 is padding and id 1 ends every text; the others are the alphabet in its order, which is part of
the value, so a checkpoint knows its symbols. Invariant: a text that is encoded is read back by
`symbols` one for one; nothing is left out in silence.
"""

import functools
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import SupportsInt

import numpy as np
from jaxtyping import Int32

from cupola.config.value import Value
from cupola.core.errors import ConfigError, TextError
from cupola.data.spoken.espeak import transcribe
from cupola.data.spoken.pronounced import pronounced

PAD, END = 0, 1

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_MARKS = " '!,.:;?-()\""
_VOWELS = "AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW"
_CONSONANTS = "B CH D DH F G HH JH K L M N NG P R S SH T TH V W Y Z ZH"
_IPA = "abdefhijklmnoprstuvwxzæçðŋɐɑɒɔəɚɛɜɡɪɬɹɾʃʊʌʒʔʲˈˌː̩̃θᵻ"  # noqa: RUF001
_WORD = re.compile(r"[a-z]+(?:'[a-z]+)*")


class Symbols(Value):
    """What a speech model reads; each kind says what it makes of a text."""

    @property
    def alphabet(self) -> Sequence[str]:
        """The symbols, without padding and end."""
        raise NotImplementedError

    @property
    def vocabulary(self) -> int:
        """How many ids there are."""
        return 2 + len(self.alphabet)

    def symbols(self, text: str) -> Iterable[str]:
        """Yields the symbols of a spoken text, those that are not in the alphabet too.

        Raises:
            TextError: it cannot be transcribed.
        """
        raise NotImplementedError

    def encode(self, text: str) -> Int32[np.ndarray, " S"]:
        """Returns the ids of a spoken text, the last of them `END`.

        Raises:
            TextError: there is nothing to say, or a character is none of the alphabet; the message names each.
            Unsupported: a package or program that transcribes is not installed.
        """
        ids = _ids(tuple(self.alphabet))
        said = list(self.symbols(text))
        unknown = dict.fromkeys(symbol for symbol in said if symbol not in ids)
        if unknown:
            raise TextError(
                f"{', '.join(map(_named, unknown))}: no symbol of this voice",
                where="text",
                remedy=f"Write it in words, or leave it out. It reads: {' '.join(self.alphabet[:80])}",
            )
        if all(symbol in _MARKS for symbol in said):
            raise TextError("there is nothing to say", where="text", remedy="Give at least one word.")
        return np.asarray([*(ids[symbol] for symbol in said), END], np.int32)

    def decode(self, ids: Iterable[SupportsInt]) -> str:
        """Returns the symbols of ids, without padding and end."""
        return "".join(self.alphabet[i - 2] for i in map(int, ids) if i >= 2)


class Characters(Symbols):
    """Lower-case letters, the space and punctuation.

    Args:
        letters: the alphabet, each character once. Another language has others.
    """

    letters: str = _LETTERS + _MARKS

    def check(self) -> None:
        if len(set(self.letters)) < len(self.letters) or not self.letters:
            raise ConfigError(f"{self.letters!r} repeats a symbol", where="letters", remedy="Name each once.")

    @property
    def alphabet(self) -> Sequence[str]:
        return self.letters

    def symbols(self, text: str) -> Iterable[str]:
        return unicodedata.normalize("NFC", text.lower())


class Arpabet(Symbols):
    """The phonemes of the CMU dictionary with their stress; a word that it lacks is said by rule."""

    @property
    def alphabet(self) -> Sequence[str]:
        vowels = [f"{{{vowel}{stress}}}" for vowel in _VOWELS.split() for stress in "012"]
        return [*_MARKS, *vowels, *(f"{{{consonant}}}" for consonant in _CONSONANTS.split())]

    def symbols(self, text: str) -> Iterable[str]:
        text, at = text.lower(), 0
        for match in _WORD.finditer(text):
            yield from text[at : match.start()]
            yield from (f"{{{phone}}}" for phone in pronounced(match[0]))
            at = match.end()
        yield from text[at:]


class IPA(Symbols):
    """The International Phonetic Alphabet, as the program espeak-ng transcribes a text.

    Args:
        voice: of espeak-ng, such as en-us.
        phones: what it may answer with, each once; punctuation and the space stay as they are.
    """

    voice: str = "en-us"
    phones: str = _IPA

    @property
    def alphabet(self) -> Sequence[str]:
        return _MARKS + self.phones

    def symbols(self, text: str) -> Iterable[str]:
        parts = re.split(r"([!,.:;?()\"]+)", text)
        said = transcribe([part.strip() for part in parts[::2]], voice=self.voice)
        for words, around, marks in zip(said, parts[::2], [*parts[1::2], ""], strict=True):
            yield from f"{around[: len(around) - len(around.lstrip())]}{words}"
            yield from f"{around[len(around.rstrip()) :] if around.strip() else ''}{marks}"


@functools.cache
def _ids(alphabet: tuple[str, ...]) -> dict[str, int]:
    return {symbol: number for number, symbol in enumerate(alphabet, start=2)}


def _named(symbol: str) -> str:
    return f"{symbol!r} ({unicodedata.name(symbol[0], f'U+{ord(symbol[0]):04X}')})"
