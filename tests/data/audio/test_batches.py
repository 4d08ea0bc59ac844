"""Batches of speech: every utterance once an epoch, at few shapes, the same from any start and over any hosts."""

import collections

import numpy as np
import pytest

from cupola.core.errors import ConfigError, DataError, ShapeError
from cupola.data.audio.batches import Bucketed, Bucketing, Example, SpeechBatch, pad
from cupola.data.audio.prepared import Prepared
from cupola.data.loader import Shard


def examples(count):
    """Each is known by its first symbol, and its features hold its number."""
    drawn = np.random.default_rng(0).integers(5, 90, count)
    made = []
    for number, frames in enumerate(drawn.tolist()):
        symbols = np.full(2 + frames // 4, number + 2, np.int32)
        sound = Prepared(np.zeros(frames * 8, np.int16), np.full((frames, 3), number + 1, np.float32))
        made.append(Example(symbols, sound))
    return made


SIZES = Bucketing(batch=4, buckets=3, multiple=8)


def numbers(batch):
    return (batch.symbols[:, 0] - 2).tolist()


def test_each_utterance_once_an_epoch_but_for_what_fills_up():
    made = examples(37)
    batches = Bucketed(made, SIZES)
    for epoch in range(3):
        seen = collections.Counter()
        for index in range(batches.batches_per_epoch):
            seen.update(numbers(batches[epoch * batches.batches_per_epoch + index]))
        assert set(seen) == set(range(37))
        assert sum(seen.values()) - 37 < 3 * SIZES.batch
        assert max(seen.values()) <= 2


def test_rows_are_padded_with_nothing():
    made = examples(20)
    for index in range(6):
        batch = Bucketed(made, SIZES)[index]
        for row, number in enumerate(numbers(batch)):
            example = made[number]
            assert batch.symbol_lengths[row] == len(example.symbols)
            assert batch.feature_lengths[row] == len(example.sound.features)
            np.testing.assert_array_equal(batch.features[row, : len(example.sound.features)], example.sound.features)
            assert not batch.features[row, len(example.sound.features) :].any()
            assert not batch.symbols[row, len(example.symbols) :].any()


def test_shapes_are_few_and_waste_little():
    batches = Bucketed(examples(60), SIZES)
    shapes = {(batch.symbols.shape[1], batch.features.shape[1]) for batch in map(batches.__getitem__, range(40))}
    assert shapes == set(batches.shapes)
    assert len(shapes) == 3
    assert all(length % 8 == 0 for shape in shapes for length in shape)


def test_a_batch_depends_on_its_number_and_the_seed_alone():
    made = examples(30)
    first, second = Bucketed(made, SIZES), Bucketed(made, SIZES)
    later = [numbers(second[index]) for index in (25, 3, 25)]
    assert later == [numbers(first[index]) for index in (25, 3, 25)]
    epochs = [[numbers(first[e * first.batches_per_epoch + i]) for i in range(first.batches_per_epoch)] for e in (0, 1)]
    assert epochs[0] != epochs[1]
    assert epochs[0] != [numbers(Bucketed(made, SIZES.replace("seed", 1))[i]) for i in range(first.batches_per_epoch)]


def test_hosts_share_a_batch():
    made = examples(30)
    whole = Bucketed(made, SIZES)
    parts = [Bucketed(made, SIZES, shard=Shard(index=i, count=2)) for i in range(2)]
    for index in range(9):
        assert numbers(whole[index])[0::2] == numbers(parts[0][index])
        assert numbers(whole[index])[1::2] == numbers(parts[1][index])
    with pytest.raises(ConfigError, match="does not divide over 3 hosts"):
        Bucketed(made, SIZES, shard=Shard(index=0, count=3))


def test_fewer_utterances_than_a_batch_are_repeated():
    batches = Bucketed(examples(3), SIZES)
    assert batches.batches_per_epoch == 1
    assert set(numbers(batches[0])) == {0, 1, 2}


def test_what_cannot_be_a_batch_is_refused():
    with pytest.raises(DataError, match="nothing to learn from"):
        Bucketed([], SIZES)
    with pytest.raises(DataError, match="batch of nothing"):
        pad([], 1, 1)
    with pytest.raises(ConfigError):
        Bucketing(batch=0)
    given = {
        "symbols": np.zeros((2, 5), np.int32),
        "symbol_lengths": np.full(2, 5),
        "feature_lengths": np.full(2, 7),
    }
    with pytest.raises(ShapeError, match="do not fit into 6"):
        SpeechBatch(features=np.zeros((2, 6, 3), np.float32), **given)
    with pytest.raises(ShapeError, match="have shapes"):
        SpeechBatch(features=np.zeros((3, 9, 3), np.float32), **given)
