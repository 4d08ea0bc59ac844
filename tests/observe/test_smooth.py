"""Exponential means: unbiased at their ends, deaf to what is not finite."""

import math

import pytest

from cupola.observe.smooth import Smooth, centred


def test_a_constant_stays_itself_from_the_first():
    smooth = Smooth(10)
    assert math.isnan(smooth.value)
    assert [smooth.add(3.0) for _ in range(4)] == pytest.approx([3.0] * 4)


def test_what_is_not_finite_is_left_out():
    smooth = Smooth(10)
    assert math.isnan(smooth.add(math.nan))
    smooth.add(2.0)
    assert smooth.add(math.inf) == 2.0


def test_the_span_decides_how_fast_it_follows():
    fast, slow = Smooth(2), Smooth(50)
    for value in (0.0,) * 100 + (1.0,) * 3:
        fast.add(value), slow.add(value)
    assert fast.value > 0.8
    assert slow.value < 0.1


def test_centred_does_not_lag():
    line = [float(i) for i in range(101)]
    assert centred(line, 10)[50] == pytest.approx(50)
    behind = Smooth(10)
    assert [behind.add(v) for v in line][50] < 45
    assert centred([math.nan], 10)[0] != centred([math.nan], 10)[0]
    assert centred([], 10) == []
