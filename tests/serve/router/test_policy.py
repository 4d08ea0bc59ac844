import collections

import pytest

from cupola.core.errors import ConfigError
from cupola.serve.router.policy import Balance, Choice, Load, Policy


def loads(**running):
    return [Load(name, count) for name, count in running.items()]


def serve(choice, keys, names="abcd"):
    """The share of characters that went where they had been sent before; all requests end at once."""
    held = total = 0
    for key in keys:
        chosen = choice.choose(loads(**dict.fromkeys(names, 0)), key)
        seen = served[chosen] if (served := serve.seen) else []
        held += max((len(k) for k in seen if key.startswith(k)), default=0)
        total += len(key)
        serve.seen[chosen].append(key)
        choice.sent(chosen, key)
    return held / total


def conversations(users=9, turns=6):
    return [
        "".join(f"user {u} says turn {i}. " * 20 for i in range(turn + 1))
        for turn in range(turns)
        for u in range(users)
    ]


@pytest.fixture(autouse=True)
def fresh():
    serve.seen = collections.defaultdict(list)


def test_cache_aware_beats_round_robin_on_conversations():
    aware = serve(Choice(Policy.CACHE_AWARE, seed=0), conversations())
    serve.seen.clear()
    blind = serve(Choice(Policy.ROUND_ROBIN, seed=0), conversations())
    best = 1 - 1 / 3.5  # each turn adds one of what it has; 6 turns
    assert aware > 0.95 * best
    assert blind < 0.6 * aware


def test_new_conversations_are_spread():
    choice = Choice(Policy.CACHE_AWARE, seed=0)
    counts = collections.Counter()
    for user in range(40):
        key = f"{user:03} " * 100
        chosen = choice.choose(loads(a=0, b=0, c=0, d=0), key)
        choice.sent(chosen, key)
        counts[chosen] += 1
    assert set(counts.values()) == {10}


@pytest.mark.parametrize(("cached", "idle", "chosen"), [(9, 0, "a"), (20, 0, "b"), (40, 30, "a"), (60, 30, "b")])
def test_balance_comes_first_only_beyond_both_thresholds(cached, idle, chosen):
    choice = Choice(Policy.CACHE_AWARE, Balance(absolute=9, relative=1.5), seed=0)
    choice.sent("a", "x" * 500)
    assert choice.choose(loads(a=cached, b=idle), "x" * 500) == chosen


def test_a_short_or_small_match_is_worth_nothing():
    choice = Choice(Policy.CACHE_AWARE, seed=0)
    choice.sent("a", "x" * 150)
    for key in ("x" * 50, "x" * 150 + "y" * 1000):
        assert choice.choose(loads(a=1, b=0), key) == "b"
    assert choice.choose(loads(a=1, b=0), "x" * 150 + "y") == "a"


def test_forgotten_workers_hold_nothing():
    choice = Choice(Policy.CACHE_AWARE, seed=0)
    choice.sent("a", "x" * 500)
    choice.forget("a")
    assert choice.held("a", "x" * 500) == 0


def test_the_other_policies():
    turn = Choice(Policy.ROUND_ROBIN)
    order = []
    for _ in range(4):
        order.append(turn.choose(loads(b=9, a=0), ""))
        turn.sent(order[-1], "")
    assert order == ["a", "b", "a", "b"]
    two = Choice(Policy.POWER_OF_TWO, seed=0)
    drawn = {two.choose(loads(a=0, b=1, c=2), "") for _ in range(100)}
    assert drawn == {"a", "b"}, "of two the more loaded is never taken"
    chance = Choice(Policy.RANDOM, seed=0)
    assert {chance.choose(loads(a=0, b=100), "") for _ in range(100)} == {"a", "b"}


@pytest.mark.parametrize("fields", [{"absolute": -1}, {"relative": 0.5}, {"share": 2.0}, {"limit_characters": 0}])
def test_thresholds_that_make_no_sense(fields):
    with pytest.raises(ConfigError, match=next(iter(fields))):
        Balance(**fields)
