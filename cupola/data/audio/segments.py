"""Segments of recordings with their frames, drawn at random, by index: what a vocoder learns from.

Not here: threads and devices (the trainer's). Invariant: batch n depends on the recordings, the sizes, the
seed and n alone, so a run goes on after batch n without having read the ones before.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Float, Float32, Int16

from cupola.core.errors import ConfigError, DataError, ShapeError
from cupola.core.record import record
from cupola.data.loader import Shard

Samples: Any = Float[Array | np.ndarray, "B N"]
Frames: Any = Float[Array | np.ndarray, "B T M"]


@record
class SoundBatch:
    """Sound and its frames: numpy arrays from here, jax arrays inside a step.

    Args:
        samples: full scale is 1.
        features: log-mel frames.

    Raises:
        ShapeError: not as many rows of both.
    """

    samples: Samples
    features: Frames

    def __post_init__(self):
        given = self.samples, self.features
        if all(isinstance(array, np.ndarray) for array in given):
            shapes = [array.shape for array in given]
            if (len(shapes[0]), len(shapes[1])) != (2, 3) or shapes[0][0] != shapes[1][0]:
                raise ShapeError(f"arrays of a batch have shapes {shapes}", remedy="They are [B, N] and [B, T, M].")


@dataclasses.dataclass(frozen=True, eq=False)
class Sounding:
    """A recording, and the frames that stand for it: its own, or what a model made of its text."""

    samples: Int16[np.ndarray, " N"]
    features: Float32[np.ndarray, "T M"]


class Segments:
    """Endless batches of segments, by index; every place of every recording is as likely.

    Args:
        sounds: recordings of one hop between frames; those that are too short for a segment are left out.
        rows: in a batch, over all hosts.
        frames: in a segment.
        samples: in a segment.
        hop: samples from one frame to the next.
        seed: draws the places.
        shard: which rows of each batch are this host's.

    Raises:
        DataError: no recording is long enough.
        ConfigError: the rows do not divide over the hosts.
    """

    def __init__(
        self,
        sounds: Sequence[Sounding],
        *,
        rows: int,
        frames: int,
        samples: int,
        hop: int,
        seed: int,
        shard: Shard = Shard(),
    ):
        if rows % shard.count:
            raise ConfigError(
                f"a batch of {rows} does not divide over {shard.count} hosts",
                where="batch",
                remedy=f"Use batch={shard.count * max(1, rows // shard.count)}.",
            )
        self._sounds, self._rows, self._frames, self._samples, self._hop = sounds, rows, frames, samples, hop
        self._seed, self._shard = seed, shard
        places = [min(len(x.features) - frames, (len(x.samples) - samples) // hop) + 1 for x in sounds]
        self._ends = np.cumsum(np.maximum(places, 0), dtype=np.int64)
        if not len(sounds) or not self._ends[-1]:
            longest = max((len(x.features) for x in sounds), default=0)
            raise DataError(
                f"none of {len(sounds)} recordings has {frames} frames; the longest has {longest}",
                where="segment_frames",
                remedy=f"Use segment_frames={max(2, longest - 1)} or fewer, or longer recordings.",
            )

    @property
    def left_out(self) -> int:
        """How many recordings are too short for a segment."""
        return int(np.count_nonzero(np.diff(self._ends, prepend=0) == 0))

    def __getitem__(self, index: int) -> SoundBatch:
        # Only raw words are used: numpy keeps those the same for ever.
        key = np.asarray([self._seed, index], np.uint64)
        drawn = np.random.Philox(key=key).random_raw(self._rows) % np.uint64(self._ends[-1])
        mine = [self._segment(int(place)) for place in drawn[self._shard.index :: self._shard.count]]
        samples, features = zip(*mine, strict=True)
        return SoundBatch(samples=np.stack(samples), features=np.stack(features))

    def _segment(self, place: int) -> tuple[Float32[np.ndarray, " N"], Float32[np.ndarray, "T M"]]:
        which = int(np.searchsorted(self._ends, place, side="right"))
        start = place - (int(self._ends[which - 1]) if which else 0)
        sound, at = self._sounds[which], start * self._hop
        samples = np.asarray(sound.samples[at : at + self._samples], np.float32) / 2**15
        return samples, np.asarray(sound.features[start : start + self._frames], np.float32)
