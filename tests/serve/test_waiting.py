import pytest

from cupola.serve.admit import Limits, Policy
from cupola.serve.pages import Pages
from cupola.serve.radix import Radix
from cupola.serve.request import Request
from cupola.serve.sequence import Sequence
from cupola.serve.waiting import PROBES, Waiting

KEY = ("", None)


@pytest.fixture
def tree():
    return Radix(Pages(9, 1))


def queue(tree, number, policy=Policy.LONGEST_PREFIX, **changes):
    waiting = Waiting(Limits(policy=policy, max_wait_steps=2), tree)
    for i in range(number):
        priority = changes.get("priorities", [0] * number)[i]
        waiting.add(Sequence(request=Request(id=str(i), prompt=(i, i, i), priority=priority), arrival=i))
    return waiting


def first(waiting, number=3):
    return [sequence.arrival for sequence in waiting.first(number)]


def test_who_came_first_goes_first_where_nothing_is_shared(tree):
    assert first(queue(tree, 5)) == [0, 1, 2]


def test_priority_goes_before_what_is_shared_and_what_is_shared_before_arrival(tree):
    waiting = queue(tree, 4, priorities=[0, 0, 1, 0])
    tree.insert(tree.match(KEY, ())[1], (3, 3), tree.pages.take(2))
    assert first(waiting, 4) == [2, 3, 0, 1]


def test_who_was_retracted_goes_first_among_equals(tree):
    waiting = queue(tree, 3)
    last = list(waiting)[-1]
    waiting.remove(last)
    last.retracted = True
    waiting.add(last)
    assert first(waiting) == [2, 0, 1]


def test_who_was_passed_over_long_enough_goes_before_all(tree):
    waiting = queue(tree, 2, priorities=[0, 5])
    waiting.passed()
    assert first(waiting) == [1, 0]
    waiting.passed()
    assert first(waiting) == [0, 1]


def test_in_a_long_queue_all_are_looked_up_in_turn(tree):
    number = 3 * PROBES
    waiting = queue(tree, number)
    tree.insert(tree.match(KEY, ())[1], (number - 1,), tree.pages.take(1))
    assert [first(waiting, 1) for _ in range(3)] == [[0], [0], [number - 1]]


def test_the_random_policy_is_random_and_the_same_for_a_seed(tree):
    one, two = (first(queue(tree, 20, Policy.RANDOM), 20) for _ in range(2))
    assert one == two != sorted(one)
