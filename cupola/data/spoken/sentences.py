"""Sentences: long text in pieces that a voice can say in one breath.

Not here: short forms with a full stop, which are spoken in words by then (`english.py`). Invariant:
joined with spaces, the pieces are the text, its runs of white space made one.
"""

import re

from cupola.core.errors import ConfigError, TextError

_ENDS = re.compile(r"(?<=[.!?])[\"')]*\s+|\n\s*")
_BREATHS = (re.compile(r"(?<=[;:])\s+"), re.compile(r"(?<=,)\s+"), re.compile(r"\s+"))
"""Where a sentence that is too long is broken, the best places first."""


def sentences(text: str, *, most_characters: int = 240) -> tuple[str, ...]:
    """Returns the sentences of spoken text; what is longer is broken at a semicolon, a comma or a space.

    Raises:
        TextError: there is nothing to say, or a word is longer than a piece may be.
    """
    if most_characters < 1:
        raise ConfigError(f"{most_characters} characters", where="most_characters", remedy="Use such as 240.")
    if not any(char.isalnum() for char in text):
        said = f"{text!r} has no letter" if text.strip() else "the text is empty"
        raise TextError(said, where="text", remedy="Give at least one word.")
    pieces: list[str] = []
    for sentence in _split(_ENDS, text):
        if any(char.isalnum() for char in sentence) or not pieces:
            pieces += _broken(sentence, most_characters, _BREATHS)
        else:
            pieces[-1] += f" {sentence}"
    return tuple(pieces)


def _broken(sentence: str, most: int, places: tuple[re.Pattern[str], ...]) -> list[str]:
    """Breaks at the best places, and puts together again what fits."""
    if len(sentence) <= most:
        return [sentence]
    if not places:
        raise TextError(
            f"a word of {len(sentence)} characters: {sentence[:20]}...",
            where="text",
            remedy=f"Write it in words of at most {most} characters.",
        )
    pieces = [""]
    for part in (piece for whole in _split(places[0], sentence) for piece in _broken(whole, most, places[1:])):
        if pieces[-1] and len(pieces[-1]) + 1 + len(part) <= most:
            pieces[-1] += f" {part}"
        else:
            pieces.append(part)
    return pieces[1:]


def _split(pattern: re.Pattern[str], text: str) -> list[str]:
    """Parts of a text; what a pattern matches other than white space stays with the part before."""
    parts, at = [], 0
    for match in pattern.finditer(text):
        parts.append(text[at : match.end()])
        at = match.end()
    return [" ".join(part.split()) for part in [*parts, text[at:]] if part.strip()]
