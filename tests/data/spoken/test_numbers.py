"""Numbers in words."""

import pytest

from cupola.data.spoken import numbers

pytest.importorskip("inflect")


@pytest.mark.parametrize(
    ("say", "given", "said"),
    [
        (numbers.cardinal, "0", "zero"),
        (numbers.cardinal, "12345", "twelve thousand three hundred forty-five"),
        (numbers.cardinal, "007", "zero zero seven"),
        (numbers.cardinal, "1" * 16, " ".join(["one"] * 16)),
        (numbers.ordinal, "21", "twenty-first"),
        (numbers.ordinal, "100", "one hundredth"),
        (numbers.decimal, "3.14", "three point one four"),
        (numbers.decimal, ".5", "point five"),
        (numbers.year, "1999", "nineteen ninety-nine"),
        (numbers.year, "1905", "nineteen oh five"),
        (numbers.year, "1900", "nineteen hundred"),
        (numbers.year, "2000", "two thousand"),
        (numbers.year, "2005", "two thousand five"),
        (numbers.year, "2024", "twenty twenty-four"),
        (numbers.decade, "1990", "nineteen nineties"),
        (numbers.decade, "80", "eighties"),
        (numbers.decade, "6", "sixes"),
    ],
)
def test_said(say, given, said):
    assert say(given) == said


@pytest.mark.parametrize(
    ("above", "below", "said"),
    [
        ("1", "2", "one half"),
        ("3", "2", "three halves"),
        ("3", "4", "three quarters"),
        ("2", "3", "two thirds"),
        ("1", "125", "one over one hundred twenty-five"),
    ],
)
def test_fractions(above, below, said):
    assert numbers.fraction(above, below) == said


@pytest.mark.parametrize(("numeral", "number"), [("I", 1), ("IV", 4), ("XIX", 19), ("MCMXCIX", 1999)])
def test_roman(numeral, number):
    assert numbers.from_roman(numeral) == number
