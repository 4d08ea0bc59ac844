"""Mixtures: exact shares in every prefix, each part's rows in order, one part unchanged."""

import collections

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupola.core.errors import ConfigError, DataError
from cupola.data.mixture import Mixed, Mixture, Part
from cupola.data.pack import Packed
from cupola.data.sources import HeldOut, Split, TextFiles
from cupola.data.tokenizer import Tokenizer
from cupola.data.tokens import TokenCorpus

TOKENIZER = Tokenizer.train(["abc"], vocabulary=257)
ROWS = Packed(
    TokenCorpus(
        tokens=np.asarray([0, 1, 0], np.uint16),
        offsets=np.asarray([0, 2]),
        document_bytes=np.asarray([1]),
        vocabulary=2,
        end=0,
        tokenizer="t",
    ),
    length_tokens=2,
)
"""Stands where only the order of parts matters."""


@pytest.fixture
def sources(tmp_path):
    for name, count in (("letters", 3), ("digits", 40)):
        (tmp_path / name).mkdir()
        for i in range(count):
            (tmp_path / name / f"{i:02d}.txt").write_text(("abcdefgh" if name == "letters" else "12345678") + str(i))
    return [TextFiles(path=str(tmp_path / name)) for name in ("letters", "digits")]


@pytest.fixture
def packed(sources):
    return [Packed(TokenCorpus.encode(source, TOKENIZER), length_tokens=8, seed=3) for source in sources]


@given(weights=st.lists(st.floats(0.01, 100), min_size=1, max_size=5), start=st.integers(0, 10**12))
@settings(max_examples=100, deadline=None)
def test_shares_hold_in_every_prefix_and_rows_follow_in_order(weights, start):
    mixed = Mixed([ROWS] * len(weights), weights)
    taken = collections.Counter()
    for index in range(200):
        part, row = mixed.locate(index)
        assert row == taken[part]
        taken[part] += 1
        for number, weight in enumerate(weights):
            share = weight / sum(weights) * (index + 1)
            assert abs(taken[number] - share) < len(weights)
    far = collections.Counter(mixed.locate(start + i)[0] for i in range(200))
    for number, weight in enumerate(weights):
        assert abs(far[number] - 200 * weight / sum(weights)) < 2 * len(weights)


def test_tenths_are_tenths():
    mixed = Mixed([ROWS] * 3, [0.1, 0.2, 0.7])
    parts = [mixed.locate(i)[0] for i in range(1000)]
    assert all(collections.Counter(parts[i : i + 10]) == {0: 1, 1: 2, 2: 7} for i in range(0, 1000, 10))


def test_rows_come_from_the_parts_beyond_their_epochs(packed):
    mixed = Mixed(packed, [3.0, 1.0])
    assert packed[0].rows_per_epoch * 4 < 60  # the small part is repeated
    taken = collections.Counter()
    for index in range(80):
        part, row = mixed.locate(index)
        np.testing.assert_equal(mixed[index], packed[part][row])
        letters = int(mixed[index]["tokens"].max()) >= TOKENIZER.encode("a")[0]
        assert letters == (part == 0)
        taken[part] += 1
    assert taken == {0: 60, 1: 20}


def test_a_mixture_of_one_part_is_that_part(sources, packed):
    mixture = Mixture(parts=(Part(source=sources[0], weight=0.3),))
    assert list(mixture.documents()) == list(sources[0].documents())
    (corpus,) = mixture.encode(TOKENIZER)
    assert corpus.fingerprint == packed[0].corpus.fingerprint
    mixed = mixture.pack([corpus], length_tokens=8, seed=3)
    for index in range(20):
        np.testing.assert_equal(mixed[index], packed[0][index])


def test_documents_of_all_parts_have_names_of_their_own(sources):
    names = [d.name for d in Mixture(parts=tuple(Part(source=s) for s in sources)).documents()]
    assert names == sorted(names)
    assert len(set(names)) == 43
    assert names[0] == "0/00.txt"


def test_a_mixture_is_a_value_whose_parts_can_be_swapped(sources):
    mixture = Mixture(parts=(Part(source=HeldOut(source=sources[1], fraction=0.2)), Part(source=sources[0])))
    held = mixture.swap(HeldOut, lambda part: part.replace("split", Split.HELD_OUT))
    assert held.parts[0].source.split is Split.HELD_OUT
    assert mixture.parts[0].source.split is Split.TRAIN
    assert hash(held) != hash(mixture)


@pytest.mark.parametrize("weight", [0.0, -1.0, float("inf"), float("nan")])
def test_weights_must_be_shares(sources, weight):
    with pytest.raises(ConfigError, match="above 0"):
        Part(source=sources[0], weight=weight)


def test_impossible_mixtures_are_refused(sources, packed, tmp_path):
    with pytest.raises(ConfigError, match="at least one Part"):
        Mixture(parts=())
    mixture = Mixture(parts=(Part(source=sources[0]), Part(source=TextFiles(path=str(tmp_path / "none")))))
    with pytest.raises(DataError, match=r"^parts\.1\.source.*no such file"):
        mixture.encode(TOKENIZER)
    with pytest.raises(DataError, match="1 corpora for 2 parts"):
        mixture.pack([packed[0].corpus], length_tokens=8)
