"""The ledger sums to the wall clock, whatever is nested or fails."""

import contextlib

import pytest

from cupola.observe.goodput import Cause, Ledger


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def ledger(clock):
    return Ledger(clock=clock)


def test_every_second_is_counted_once(ledger, clock):
    clock.now += 1
    with ledger.time(Cause.STEP):
        clock.now += 10
        with ledger.time(Cause.CHECKPOINT):
            clock.now += 4
        clock.now += 20
    with contextlib.suppress(ZeroDivisionError), ledger.time(Cause.DATA):
        clock.now += 5
        raise ZeroDivisionError
    clock.now += 2
    spent = ledger.seconds()
    assert {cause: s for cause, s in spent.items() if s} == {
        Cause.STEP: 30, Cause.CHECKPOINT: 4, Cause.DATA: 5, Cause.OTHER: 3
    }  # fmt: skip
    assert sum(spent.values()) == ledger.total_seconds == 42
    assert ledger.goodput == pytest.approx(30 / 42)


def test_open_causes_are_counted_until_now(ledger, clock):
    with ledger.time(Cause.COMPILE):
        clock.now += 7
        assert ledger.seconds()[Cause.COMPILE] == 7
        clock.now += 1
    assert ledger.seconds()[Cause.COMPILE] == 8


def test_the_text_starts_with_what_took_longest(ledger, clock):
    with ledger.time(Cause.DATA):
        clock.now += 30
    with ledger.time(Cause.STEP):
        clock.now += 90
    first, second, last = ledger.text().splitlines()
    assert first.split() == ["step", "1:30", "75.0%"]
    assert second.split() == ["data", "wait", "30", "s", "25.0%"]
    assert last.split() == ["wall", "clock", "2:00"]


def test_an_empty_ledger_has_a_text(ledger):
    assert ledger.text().startswith("wall clock")
    assert ledger.goodput == 0
