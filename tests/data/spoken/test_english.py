"""English as it is said: each kind of number and short form, what must stay as it is, and no digit left."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupola.data.spoken.english import DateOrder, English

pytest.importorskip("inflect")

SAID = {
    # numbers
    "2,345 people": "two thousand three hundred forty-five people",
    "-5 and 3.14 and .5": "minus five and three point one four and point five",
    "the 22nd, the 3rd": "the twenty-second, the third",
    "version 1.2.3": "version one point two point three",
    "pages 3\N{EN DASH}5": "pages three to five",
    "a score of 3:1": "a score of three to one",
    "agent 007": "agent zero zero seven",
    "the 1990s and '80s": "the nineteen nineties and eighties",
    "1/2 cup, 2 1/2 cups, ¾": "one half cup, two and a half cups, three quarters",
    "3½ km and 1/2 mi": "three and a half kilometers and one half of a mile",
    "No. 5 and #1": "number five and number one",
    # years, dates and times
    "in 1984": "in nineteen eighty-four",
    "March 3, 2024.": "March third, twenty twenty-four.",
    "on 3 March": "on the third of March",
    "Mar. 5": "March fifth",
    "2024-03-05": "March fifth, twenty twenty-four",
    "3/4/2024": "March fourth, twenty twenty-four",
    "25/12/2020": "December twenty-fifth, twenty twenty",
    "at 3:05 p.m. we": "at three oh five P M we",
    "at 5pm. Then": "at five P M. Then",
    "14:30": "fourteen thirty",
    "9:00": "nine o'clock",
    # money and units
    "$3.50": "three dollars and fifty cents",
    "$1 and £1.01": "one dollar and one pound and one penny",
    "€0.99": "ninety-nine cents",
    "$2.5 million and $5M": "two point five million dollars and five million dollars",
    "-$3 or $1,234": "minus three dollars or one thousand two hundred thirty-four dollars",
    "5 kg, 1 kg, 3.5 km/h": "five kilograms, one kilogram, three point five kilometers per hour",
    "20°C and 100%": "twenty degrees Celsius and one hundred percent",
    "5 m²": "five square meters",
    "10 s or 747s": "ten seconds or seven hundred forty-sevens",
    # short forms, letters and Roman numerals
    "Dr. Lee and Mrs. Bell": "doctor Lee and missus Bell",
    "St. Paul at 5 Main St. in town": "saint Paul at five Main street in town",
    "e.g. this, etc.": "for example this, et cetera.",
    "Smith vs. Jones Inc. won": "Smith versus Jones incorporated won",
    "NASA and the FBI": "NASA and the F B I",
    "two CPUs, an MP3": "two C P U's, an M P three",
    "the U.S. Army": "the U S Army",
    "in the U.K. The rest": "in the U K. The rest",
    "it must NOT": "it must NOT",
    "Henry VIII, Chapter IV": "Henry the eighth, Chapter four",
    "now I'm here, and I've time": "now I'm here, and I've time",
    "nerve gas VX": "nerve gas V X",
    "on the Internet, an IVR": "on the Internet, an I V R",
    "World War II": "World War two",
    "Elizabeth I love, the class I took": "Elizabeth I love, the class I took",
    "John V. Lindsay": "John V Lindsay",
    # signs and punctuation
    "“It\N{RIGHT SINGLE QUOTATION MARK}s naïve…” — Zoë": '"It\'s naive...", Zoe',
    "A & B": "A and B",
    "a@b.org": "a at b dot org",
    "call 555-1234": "call five five five, one two three four",
    "E=mc²": "E equals mc squared",
    "well-known": "well-known",
    "One\n\nTwo.": "One. Two.",
}


@pytest.mark.parametrize("text", SAID)
def test_said(text):
    assert English()(text) == SAID[text]


def test_the_order_of_dates():
    assert English(dates=DateOrder.DAY_FIRST)("3/4/24") == "April third, twenty twenty-four"


def test_nothing_stays_nothing():
    assert English()(" \n ") == ""


@settings(max_examples=150, deadline=None)
@given(st.text(st.sampled_from("0123456789.,:/-$€%°'\"()#& kgmsthApPMDrSIVX\n"), max_size=25))
def test_no_digit_is_left(text):
    said = English()(text)
    assert not any(char.isdigit() for char in said)
    assert said == " ".join(said.split())
