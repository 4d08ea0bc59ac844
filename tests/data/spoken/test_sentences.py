"""Sentences: none too long, none lost, each ending where it ends."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cupola.core.errors import ConfigError, TextError
from cupola.data.spoken.sentences import sentences


def test_sentences_end_where_they_end():
    text = 'It is ready. "Is it?" he said... Pour, at 3.5! (All of it.) Go'
    assert sentences(text) == ("It is ready.", '"Is it?"', "he said...", "Pour, at 3.5!", "(All of it.)", "Go")


def test_a_long_one_is_broken_at_its_best_places():
    text = "The iron melts; the slag, which floats, is drawn off with a long rod of steel"
    assert sentences(text, most_characters=40) == (
        "The iron melts; the slag, which floats,",
        "is drawn off with a long rod of steel",
    )
    assert sentences("one two three four", most_characters=9) == ("one two", "three", "four")


@given(st.lists(st.text(st.sampled_from("ab.,;!? "), min_size=1), min_size=1), st.integers(8, 40))
def test_nothing_is_lost_and_nothing_is_too_long(parts, most):
    text = " ".join(part[:5] for part in ["a", *parts])
    found = sentences(text, most_characters=most)
    assert " ".join(found) == " ".join(text.split())
    assert all(any(char.isalnum() for char in piece) for piece in found[:1])


@pytest.mark.parametrize(("text", "said"), [("", "empty"), (" \n", "empty"), ("...!", "has no letter")])
def test_nothing_to_say_is_refused(text, said):
    with pytest.raises(TextError, match=said):
        sentences(text)


def test_a_word_that_fits_nowhere_is_refused():
    with pytest.raises(TextError, match="word of 50 characters"):
        sentences("a " + "b" * 50, most_characters=40)
    with pytest.raises(ConfigError):
        sentences("a", most_characters=0)
