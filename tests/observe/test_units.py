"""Quantities as a person reads them."""

import math

import pytest

from cupola.observe.units import bytes_text, quantity, seconds_text, short


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (7, "7"), (math.nan, "nan"), (0.5, "0.50"), (999, "999"), (999.6, "1.00k"), (10234, "10.2k"), (9.994e5, "999k"), (9.996e5, "1.00M"),
     (2.6e6, "2.60M"), (8.87e11, "887G"), (1.65e12, "1.65T"), (-1500, "-1.50k")],
)  # fmt: skip
def test_short(value, text):
    assert short(value) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (17, "17 B"), (1.5e9, "1.50 GB")])
def test_bytes(count, text):
    assert bytes_text(count) == text


def test_quantity():
    assert quantity(1.45e11, "FLOP/s") == "145 GFLOP/s"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.042, "42.0 ms"),
        (50, "50 s"),
        (0.9999, "1.00 s"),
        (3.2, "3.20 s"),
        (59.99, "1:00"),
        (754, "12:34"),
        (3723, "1:02:03"),
    ],
)
def test_seconds(seconds, text):
    assert seconds_text(seconds) == text
