import pytest

from cupola.serve.program.choose import Method, Score, choose

LONG_GOOD = Score((-3.0, -0.1, -0.1), (-3.0, -0.1, -0.1))
"""Unlikely to begin with, but the likeliest on average; the prompt adds nothing to it."""
SHORT = Score((-2.0,), (-4.0,))
"""The likeliest to begin with; the prompt adds two nats."""


@pytest.mark.parametrize(
    ("method", "best"),
    [(Method.TOKEN_LENGTH_NORMALIZED, 0), (Method.GREEDY_TOKEN, 1), (Method.UNCONDITIONAL_NORMALIZED, 1)],
)
def test_each_method_weighs_otherwise(method, best):
    assert choose([LONG_GOOD, SHORT], method) == best
    assert choose([SHORT, LONG_GOOD], method) == 1 - best


def test_greedy_goes_on_at_the_mean_of_what_has_ended():
    short, long = Score((-1.0,)), Score((-1.0, -2.0))
    assert choose([long, short], Method.GREEDY_TOKEN) == 1


@pytest.mark.parametrize("method", list(Method))
def test_the_first_of_equal_ones(method):
    assert choose([SHORT, SHORT], method) == 0
