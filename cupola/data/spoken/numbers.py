"""Numbers in English words.

Not here: where a text has a number, and which kind it is (`english.py`). Words are without commas and
without "and": one hundred one.
"""

import functools
from typing import Any

from cupola.core.extra import bring

_LONGEST_DIGITS = 15
"""Beyond quadrillions nobody can follow: longer numbers are read digit by digit."""

_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_ROMAN = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}


@functools.cache
def _inflect() -> Any:
    return bring("inflect", "speech").engine()


def cardinal(digits: str) -> str:
    """Returns 12 as twelve; 007, and what has more than 15 digits, digit by digit."""
    if len(digits) > _LONGEST_DIGITS or (len(digits) > 1 and digits[0] == "0"):
        return one_by_one(digits)
    words: str = _inflect().number_to_words(digits, andword="")
    return words.replace(",", "")


def ordinal(digits: str) -> str:
    """Returns 12 as twelfth."""
    words: str = _inflect().ordinal(cardinal(digits.lstrip("0") or "0"))
    return words


def one_by_one(digits: str) -> str:
    """Returns 12 as one two."""
    return " ".join(_DIGITS[int(digit)] for digit in digits)


def decimal(digits: str) -> str:
    """Returns 3.14 as three point one four."""
    whole, _, rest = digits.partition(".")
    said = f"{cardinal(whole)} point {one_by_one(rest)}" if whole else f"point {one_by_one(rest)}"
    return said if rest else cardinal(whole)


def year(digits: str) -> str:
    """Returns 1905 as nineteen oh five, 2024 as twenty twenty-four, 2005 as two thousand five."""
    number = int(digits)
    century, rest = divmod(number, 100)
    if not 1000 <= number <= 9999 or (century % 10 == 0 and rest < 10):
        return cardinal(str(number))
    if not rest:
        return f"{cardinal(str(century))} hundred"
    return f"{cardinal(str(century))} {'oh ' if rest < 10 else ''}{cardinal(str(rest))}"


def decade(digits: str) -> str:
    """Returns 1990 as nineteen nineties, 90 as nineties, 747 as seven hundred forty-sevens."""
    said = year(digits) if len(digits) == 4 else cardinal(digits)
    return f"{said[:-1]}ies" if said.endswith("y") else f"{said}{'es' if said.endswith('x') else 's'}"


def fraction(above: str, below: str) -> str:
    """Returns 3/4 as three quarters, 1/2 as one half, 2/125 as two over one hundred twenty-five."""
    many = int(above) != 1
    if below == "2":
        return f"{cardinal(above)} {'halves' if many else 'half'}"
    if below == "4":
        return f"{cardinal(above)} {'quarters' if many else 'quarter'}"
    if 3 <= int(below) <= 100:
        return f"{cardinal(above)} {ordinal(below)}{'s' if many else ''}"
    return f"{cardinal(above)} over {cardinal(below)}"


def from_roman(numeral: str) -> int:
    """Returns XIV as 14."""
    values = [_ROMAN[letter] for letter in numeral]
    return sum(-value if value < after else value for value, after in zip(values, [*values[1:], 0], strict=True))
