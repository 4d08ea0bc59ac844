"""Rows: each token once an epoch when training, each target once when evaluating."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupola.core.errors import ConfigError, DataError
from cupola.data.pack import Packed, Windows
from cupola.data.tokens import TokenCorpus

END = 0
LENGTHS = st.lists(st.integers(0, 12), min_size=1, max_size=12)


def corpus_of(lengths: list[int]) -> TokenCorpus:
    """Documents whose tokens are all different, so that each can be recognised wherever it is."""
    offsets = np.concatenate([[0], np.cumsum([n + 1 for n in lengths])]).astype(np.int64)
    tokens = np.arange(1000, 1001 + offsets[-1], dtype=np.uint16)
    tokens[offsets] = END
    sizes = np.asarray(lengths, np.int64)
    return TokenCorpus(tokens=tokens, offsets=offsets, document_bytes=sizes, vocabulary=2000, end=END, tokenizer="t")


def documents(corpus):
    """Each document as its list of (token, target)."""
    pairs = list(zip(corpus.tokens[:-1].tolist(), corpus.tokens[1:].tolist(), strict=True))
    return [pairs[a:b] for a, b in zip(corpus.offsets[:-1], corpus.offsets[1:], strict=True)]


def segments(row):
    """The (token, target, weight) lists of a row's segments, after checking what holds in every row."""
    real = row["segments"] > 0
    assert {name: array.dtype.name for name, array in row.items()} == {
        "tokens": "int32", "targets": "int32", "segments": "int32", "positions": "int32", "weights": "float32",
    }  # fmt: skip
    assert not any(row[name][~real].any() for name in row)
    assert real.tolist() == sorted(real.tolist(), reverse=True)
    count = int(row["segments"].max())
    assert row["segments"][real].tolist() == sorted(row["segments"][real].tolist())
    found = []
    for segment in range(1, count + 1):
        here = row["segments"] == segment
        assert row["positions"][here].tolist() == list(range(here.sum()))
        found.append(list(zip(*(row[n][here].tolist() for n in ("tokens", "targets", "weights")), strict=True)))
    assert all(found)
    return found


@given(lengths=LENGTHS, length=st.integers(1, 20), seed=st.integers(0, 2**64 - 1), epoch=st.integers(0, 3))
@settings(max_examples=150, deadline=None)
def test_an_epoch_holds_each_token_with_its_target_once(lengths, length, seed, epoch):
    corpus = corpus_of(lengths)
    if corpus.size_tokens < length:
        return
    packed = Packed(corpus, length_tokens=length, seed=seed)
    rows = [packed[epoch * packed.rows_per_epoch + i] for i in range(packed.rows_per_epoch)]
    pieces = [piece for row in rows for piece in segments(row)]
    scored = sorted((token, target) for piece in pieces for token, target, weight in piece if weight == 1)
    assert scored == sorted(pair for document in documents(corpus) for pair in document)
    whole = documents(corpus)
    for piece in pieces:
        pairs = [(token, target) for token, target, _ in piece]
        assert any(pairs == document[i : i + len(pairs)] for document in whole for i in range(len(document)))
    padded = [row for row in rows if not row["segments"].all()]
    assert len(padded) <= 1


def test_rows_depend_on_nothing_read_before():
    corpus = corpus_of(list(range(1, 40)))
    first, second = (Packed(corpus, length_tokens=16, seed=5) for _ in range(2))
    indices = np.random.default_rng(0).permutation(5 * first.rows_per_epoch).tolist()
    in_order = [first[i] for i in sorted(indices)]
    for index in indices:
        np.testing.assert_equal(second[index], in_order[index])


def test_epochs_and_seeds_order_documents_and_rows_anew():
    corpus = corpus_of([9] * 50)
    packed = Packed(corpus, length_tokens=10, seed=1)
    size = packed.rows_per_epoch

    def epoch(rows, number):
        return [int(rows[number * size + i]["tokens"][1]) for i in range(size)]

    orders = [epoch(packed, 0), epoch(packed, 1), epoch(Packed(corpus, length_tokens=10, seed=2), 0)]
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(orders[2])
    assert orders[0] != orders[1] != orders[2] != orders[0] != sorted(orders[0])
    # Part of every saved position, so these may never change.
    assert epoch(packed, 0)[:4] == [1131, 1361, 1101, 1171]


def test_rows_are_shuffled_too():
    packed = Packed(corpus_of([999]), length_tokens=10, seed=0)
    firsts = [int(packed[i]["tokens"][0]) for i in range(packed.rows_per_epoch)]
    assert sorted(firsts) != firsts


@given(lengths=LENGTHS, length=st.integers(1, 9), data=st.data())
@settings(max_examples=200, deadline=None)
def test_windows_score_each_target_once_with_the_context_promised(lengths, length, data):
    corpus = corpus_of(lengths)
    stride = data.draw(st.integers(1, length))
    windows = Windows(corpus, length_tokens=length, stride_tokens=stride)
    pieces = [piece for i in range(len(windows)) for piece in segments(windows[i])]
    scored = sorted((token, target) for piece in pieces for token, target, weight in piece if weight == 1)
    assert scored == sorted(pair for document in documents(corpus) for pair in document)
    firsts = {document[0] for document in documents(corpus)}
    for piece in pieces:
        weights = [weight for *_, weight in piece]
        assert weights == sorted(weights)
        from_the_start = (piece[0][0], piece[0][1]) in firsts
        assert from_the_start or weights.index(1) >= length - stride


def test_short_documents_share_rows():
    windows = Windows(corpus_of([2, 6, 4, 0, 1, 7]), length_tokens=8)
    assert len(windows) == 4  # 3 + 5, 7 + 1, 8, and 2 alone
    assert sum(int((windows[i]["segments"] == 0).sum()) for i in range(4)) == 4 * 8 - 26


def test_smaller_strides_take_more_rows_and_the_stride_defaults_to_half():
    corpus = corpus_of([63])
    assert [len(Windows(corpus, length_tokens=16, stride_tokens=s)) for s in (16, 8, 1)] == [4, 7, 49]
    assert len(Windows(corpus, length_tokens=16)) == 7


def test_a_corpus_smaller_than_one_row_is_refused_and_the_remedy_works():
    corpus = corpus_of([3, 4])
    with pytest.raises(DataError, match="has 9 tokens, fewer than one row of 10") as caught:
        Packed(corpus, length_tokens=10)
    assert "length_tokens=9 or less" in caught.value.remedy
    assert "8 bytes" in caught.value.remedy
    assert Packed(corpus, length_tokens=9).rows_per_epoch == 1
    assert len(Windows(corpus, length_tokens=10)) == 1


@pytest.mark.parametrize(
    ("make", "where"),
    [
        (lambda c: Packed(c, length_tokens=0), "length_tokens"),
        (lambda c: Packed(c, length_tokens=4, seed=-1), "seed"),
        (lambda c: Windows(c, length_tokens=0), "length_tokens"),
        (lambda c: Windows(c, length_tokens=4, stride_tokens=5), "stride_tokens"),
        (lambda c: Windows(c, length_tokens=4, stride_tokens=0), "stride_tokens"),
    ],
)
def test_impossible_sizes_are_refused(make, where):
    with pytest.raises(ConfigError) as caught:
        make(corpus_of([9]))
    assert caught.value.where == where
