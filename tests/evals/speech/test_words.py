import pytest

from cupola.evals.speech.words import distance, word_errors, words


@pytest.mark.parametrize(
    ("one", "other", "wrong"),
    [
        ("a b c", "a b c", 0),
        ("a c", "a b c", 1),
        ("a x c", "a b c", 1),
        ("a b b c", "a b c", 1),
        ("", "a b c", 3),
        ("x y z a b c", "", 6),
        ("b c a", "a b c", 2),
    ],
)
def test_the_least_number_of_changes(one, other, wrong):
    assert distance(one.split(), other.split()) == wrong
    assert distance(other.split(), one.split()) == wrong


def test_only_words_count():
    assert words("Don't pay $3, Dr. Lee!") == ["dont", "pay", "three", "dollars", "doctor", "lee"]


def test_errors_of_all_texts_together():
    found = word_errors(["the furnace is red", ""], ["The furnace is ready.", "Pour it."])
    assert (found.wrong, found.of) == (3, 6)
    assert found.percent == 50
    assert word_errors(["a b c d"], ["x y"]).percent == 200
