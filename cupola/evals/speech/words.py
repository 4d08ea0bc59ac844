"""Word error rate: what was heard against what was said.

Only letters count, in small ones, and numbers are words. Not here: who hears (`judges.py`).
Invariant: it is the least number of words to change, leave out or put in, so it may be above all words.
"""

import dataclasses
import re
from collections.abc import Sequence

import numpy as np

from cupola.data.spoken.english import English


@dataclasses.dataclass(frozen=True)
class WordErrors:
    """Errors in a number of words.

    Args:
        wrong: words that were changed, left out or put in.
        of: words that were said.
    """

    wrong: int
    of: int

    @property
    def percent(self) -> float:
        """The word error rate."""
        return 100 * self.wrong / max(self.of, 1)


def word_errors(heard: Sequence[str], said: Sequence[str]) -> WordErrors:
    """Returns the errors of all texts together."""
    pairs = [(words(one), words(other)) for one, other in zip(heard, said, strict=True)]
    return WordErrors(sum(distance(one, other) for one, other in pairs), sum(len(other) for _, other in pairs))


def words(text: str) -> list[str]:
    """Returns the words of an English text alone, in small letters, numbers as they are spoken."""
    return re.findall(r"[a-z]+", English()(text).lower().replace("'", ""))


def distance(one: Sequence[str], other: Sequence[str]) -> int:
    """Returns the least number of words to change, leave out or put in."""
    row = np.arange(len(other) + 1)
    for i, word in enumerate(one, 1):
        before, row = row, np.empty_like(row)
        row[0] = i
        for j, against in enumerate(other, 1):
            row[j] = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (word != against))
    return int(row[-1])
