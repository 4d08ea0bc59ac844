import pytest

from cupola.core.dims import DIMS, letters
from cupola.core.errors import ShapeError


def test_letters_are_split_in_order():
    assert letters("B T D", 3) == ("B", "T", "D")
    assert letters("", 0) == ()


def test_each_letter_is_one_character_with_one_meaning():
    assert all(len(letter) == 1 for letter in DIMS)
    assert len(set(DIMS.values())) == len(DIMS)


@pytest.mark.parametrize(
    ("dims", "rank", "message"),
    [("D X", 2, "'X' in 'D X' is no dimension letter"), ("DF", 1, "'DF'"), ("D F", 3, "names 2 dimensions .* has 3")],
)
def test_wrong_letters_are_refused(dims, rank, message):
    with pytest.raises(ShapeError, match=message):
        letters(dims, rank)
