"""Pronunciations: the dictionary's, and by rule what it lacks."""

import pytest

from cupola.data.spoken.pronounced import by_rule, known, pronounced
from cupola.data.spoken.symbols import Arpabet


@pytest.mark.parametrize(
    ("word", "said"),
    [("hello", "HH AH0 L OW1"), ("furnace", "F ER1 N AH0 S"), ("it's", "IH1 T S"), ("anvil", "AE1 N V AH0 L")],
)
def test_the_dictionary_decides(word, said):
    assert known(word)
    assert " ".join(pronounced(word)) == said


@pytest.mark.parametrize(
    ("word", "sounds"),
    [
        ("blorp", "B L AO R P"),
        ("snickle", "S N IH K AH L"),
        ("blinting", "B L IH N T IH NG"),
        ("tashes", "T AE SH IH Z"),
    ],
)
def test_what_it_lacks_is_said_by_rule(word, sounds):
    assert not known(word)
    assert [phone.rstrip("012") for phone in pronounced(word)] == sounds.split()


def test_rules_say_most_words_nearly_as_the_dictionary_does():
    words = [
        "ready",
        "river",
        "window",
        "garden",
        "number",
        "finger",
        "market",
        "kitchen",
        "letter",
        "winter",
        "summer",
        "paper",
        "basket",
        "rabbit",
    ]
    same = [
        [phone.rstrip("012") for phone in by_rule(word)] == [phone.rstrip("012") for phone in pronounced(word)]
        for word in words
    ]
    assert sum(same) >= len(words) - 4


def test_owners_are_said_by_rule_too():
    assert [by_rule(word)[-1] for word in ("blorp's", "blorb's")] == ["S", "Z"]
    assert by_rule("blosh's")[-2:] == ("IH0", "Z")


def test_whatever_is_said_is_a_symbol():
    alphabet = set(Arpabet().alphabet)
    for word in ("q", "zzz", "a'b", "xylorimba", "cwm", "llanfair", "o'blorp"):
        assert {f"{{{phone}}}" for phone in pronounced(word)} <= alphabet
        assert pronounced(word)
