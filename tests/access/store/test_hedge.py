"""What takes long is asked twice, and rarely."""

import threading
import time

import pytest

from cupola.access.store.hedge import ENOUGH, Hedge


@pytest.fixture
def hedge():
    made = Hedge(4)
    yield made
    made.close()


@pytest.fixture
def known(hedge):
    """One that knows how long questions take: not long."""
    for _ in range(2 * ENOUGH):
        assert hedge.run(lambda: 1, lambda: 2) == 1
    assert hedge.patience_seconds < 0.1
    return hedge


@pytest.fixture
def stuck():
    """A question that ends with the test."""
    over = threading.Event()
    yield lambda: over.wait(10) and "late"
    over.set()


def fail() -> str:
    raise OSError("gone")


def test_the_first_answer_counts(known, stuck):
    began = time.monotonic()
    assert known.run(stuck, lambda: "second") == "second"
    assert time.monotonic() - began < 5


def test_nothing_is_asked_twice_before_delays_are_known(hedge):
    asked = []
    assert hedge.run(lambda: time.sleep(0.05) or "first", lambda: asked.append(1)) == "first"
    assert (asked, hedge.patience_seconds) == ([], float("inf"))


def test_a_second_question_that_fails_changes_nothing(known):
    assert known.run(lambda: time.sleep(0.1) or "first", fail) == "first"


def test_a_failure_is_the_answer_where_nothing_is_asked_twice(hedge):
    with pytest.raises(OSError, match="gone"):
        hedge.run(fail, lambda: "never asked")


def test_a_second_answer_hides_a_failure(known):
    def fail_late() -> str:
        time.sleep(0.05)
        return fail()

    assert known.run(fail_late, lambda: time.sleep(0.1) or "second") == "second"
    with pytest.raises(OSError, match="gone"):
        known.run(fail_late, fail_late)


def test_second_questions_are_few(known):
    """Where everything is slow, most are asked once."""
    seconds = []
    for _ in range(60):
        known.run(lambda: time.sleep(0.02), lambda: seconds.append(1))
    assert 0 < len(seconds) < 30
