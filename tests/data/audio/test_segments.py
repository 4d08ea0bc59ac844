import dataclasses

import numpy as np
import pytest

from cupola.core.errors import ConfigError, DataError, ShapeError
from cupola.data.audio.segments import Segments, SoundBatch, Sounding
from cupola.data.loader import Shard

HOP, FRAMES = 4, 5


def counted(frames, first):
    """A recording whose frame t is first + t, and whose samples say in which frame they are."""
    features = np.arange(first, first + frames, dtype=np.float32)[:, None]
    return Sounding(np.repeat(np.arange(first, first + frames), HOP).astype(np.int16), features)


SOUNDS = [counted(20, 0), counted(3, 100), counted(9, 200)]
GIVEN = {"rows": 6, "frames": FRAMES, "samples": FRAMES * HOP, "hop": HOP, "seed": 3}


def drawn(segments, count):
    return [segments[i] for i in range(count)]


def test_a_segments_samples_are_those_of_its_frames():
    for batch in drawn(Segments(SOUNDS, **GIVEN), 20):
        assert batch.samples.shape == (6, FRAMES * HOP)
        assert batch.features.shape == (6, FRAMES, 1)
        np.testing.assert_array_equal(np.repeat(batch.features[..., 0], HOP, axis=1), batch.samples * 2**15)
        np.testing.assert_array_equal(np.diff(batch.features[..., 0]), np.ones((6, FRAMES - 1)))


def test_every_place_is_as_likely():
    batches = drawn(Segments(SOUNDS, **GIVEN), 1000)
    firsts, counts = np.unique(np.concatenate([batch.features[:, 0, 0] for batch in batches]), return_counts=True)
    assert firsts.tolist() == [*range(16), *range(200, 205)]
    expected = 6000 / 21
    assert abs(counts - expected).max() < 5 * np.sqrt(expected)


def test_batches_come_by_index_and_depend_on_the_seed():
    segments = Segments(SOUNDS, **GIVEN)
    late = segments[1000]
    np.testing.assert_array_equal(Segments(SOUNDS, **GIVEN)[1000].samples, late.samples)
    assert (segments[1001].samples != late.samples).any()
    assert (Segments(SOUNDS, **GIVEN | {"seed": 4})[1000].samples != late.samples).any()


def test_hosts_share_a_batch():
    whole = Segments(SOUNDS, **GIVEN)[7]
    for index in range(2):
        part = Segments(SOUNDS, **GIVEN, shard=Shard(index=index, count=2))[7]
        np.testing.assert_array_equal(part.samples, whole.samples[index::2])
        np.testing.assert_array_equal(part.features, whole.features[index::2])


def test_what_is_too_short_is_counted():
    assert Segments(SOUNDS, **GIVEN).left_out == 1
    # A recording may end before its last frame does.
    cut = [dataclasses.replace(SOUNDS[0], samples=SOUNDS[0].samples[: 5 * HOP])]
    assert {batch.features[0, 0, 0] for batch in drawn(Segments(cut, **GIVEN), 9)} == {0.0}


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Segments(SOUNDS[1:2], **GIVEN), DataError, "segment_frames: none of 1 .* has 5 .* longest has 3\nUse"),
        (lambda: Segments([], **GIVEN), DataError, "none of 0 recordings"),
        (lambda: Segments(SOUNDS, **GIVEN, shard=Shard(count=4)), ConfigError, "batch: a batch of 6 .* 4 hosts\n.*=4"),
        (
            lambda: SoundBatch(samples=np.zeros((2, 8)), features=np.zeros((3, 2, 1))),
            ShapeError,
            r"\[\(2, 8\), \(3, 2, 1\)\]",
        ),
    ],
)
def test_what_cannot_be_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()
