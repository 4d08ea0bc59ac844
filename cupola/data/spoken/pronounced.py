"""English words as phonemes: those of the CMU dictionary, and by rule what it lacks.

A rule says what a letter is said as, by the letters around it; the longest that fits is taken. Both stand in one
file beside this one, which `bench/pronounce.py` makes; the dictionary's licence is in `CMUDICT-LICENSE.txt`.
Not here: sentences, and words that are written alike and said otherwise: the dictionary's first form is taken.
Invariant: a word of letters has phonemes, whatever it is.
"""

import functools
import lzma
from collections.abc import Mapping
from pathlib import Path

_FILE = Path(__file__).with_name("pronunciations.txt.xz")
_SIZES = ((4, 4), (3, 4), (3, 3), (2, 3), (2, 2), (1, 2), (1, 1), (0, 1), (0, 0))
"""Letters before and after that a rule sees, from the most special to the most general."""
_EDGE = "_" * 4

Phonemes = tuple[str, ...]


def pronounced(word: str) -> Phonemes:
    """Returns the phonemes of a word in lower case, such as ("HH", "AH0", "L", "OW1") of "hello".

    Args:
        word: of the letters a to z and apostrophes.
    """
    known = _table().get(word)
    return tuple(known.split()) if known is not None else by_rule(word)


def known(word: str) -> bool:
    """Returns whether the dictionary has the word."""
    return word in _table()


def by_rule(word: str) -> Phonemes:
    """Returns the phonemes of a word as the rules have it, whether or not the dictionary knows it."""
    if word.endswith("'s"):
        said = by_rule(word[:-2])
        return (*said, *_possessive(said[-1] if said else ""))
    padded = _EDGE + word.replace("'", "") + _EDGE
    said = tuple(phone for at in range(4, len(padded) - 4) for phone in _letter(padded, at))
    return said or ("AH0",)


def _letter(padded: str, at: int) -> Phonemes:
    table = _table()
    for before, after in _SIZES:
        rule = table.get(f"{padded[at - before : at]}<{padded[at]}>{padded[at + 1 : at + 1 + after]}")
        if rule is not None:
            return tuple(rule.split())
    return ()


def _possessive(last: str) -> Phonemes:
    if last in ("S", "Z", "SH", "ZH", "CH", "JH"):
        return ("IH0", "Z")
    return ("S",) if last in ("P", "T", "K", "F", "TH") else ("Z",)


@functools.cache
def _table() -> Mapping[str, str]:
    """Words, and rules under BEFORE<LETTER>AFTER, to phonemes with spaces between."""
    lines = lzma.decompress(_FILE.read_bytes()).decode().splitlines()
    return {word: said for word, _, said in (line.partition(" ") for line in lines)}
