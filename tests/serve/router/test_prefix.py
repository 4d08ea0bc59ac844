import itertools
import random

import pytest

from cupola.serve.router.prefix import PrefixTree


def shared(one, other):
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def test_it_matches_what_was_inserted():
    tree = PrefixTree(1000)
    tree.insert("the furnace melts")
    tree.insert("the furnace pours")
    assert tree.characters == len("the furnace melts") + len("pours")
    assert tree.match("the furnace") == 11
    assert tree.match("the furnace melts iron") == 17
    assert tree.match("the furn of") == 8
    assert tree.match("x") == tree.match("") == 0


@pytest.mark.parametrize("seed", range(5))
def test_it_agrees_with_comparing_all_texts(seed):
    draw = random.Random(seed)
    tree, texts = PrefixTree(10**6), []
    for _ in range(200):
        text = "".join(draw.choices("ab", k=draw.randrange(12)))
        assert tree.match(text) == max((shared(text, t) for t in texts), default=0)
        tree.insert(text)
        texts.append(text)


def test_it_stays_within_its_limit_and_lets_go_of_the_oldest():
    tree = PrefixTree(100)
    for number in range(50):
        tree.insert("keep me")
        tree.insert(f"{number:02}" + "-" * 8)
        assert tree.characters <= 100
    assert tree.match("keep me") == 7
    assert tree.match("49--------") == 10
    assert tree.match("00--------") < 10
    tree.insert("x" * 500)
    assert tree.characters <= 100
