"""Batches of speech: utterances of like length together, at few shapes, by index.

Not here: threads and devices (the trainer's). Invariant: batch n depends on the examples, the sizes,
the seed and n alone, so a run goes on after batch n without having read the ones before.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Float, Int, Int32

from cupola.config.value import Value
from cupola.core.errors import ConfigError, DataError, ShapeError
from cupola.core.record import record
from cupola.data.audio.prepared import Prepared
from cupola.data.loader import Shard
from cupola.data.pack import order

Ids: Any = Int[Array | np.ndarray, "B S"]
Frames: Any = Float[Array | np.ndarray, "B T M"]
Lengths: Any = Int[Array | np.ndarray, " B"]


@dataclasses.dataclass(frozen=True, eq=False)
class Example:
    """The symbols of an utterance, and its recording."""

    symbols: Int32[np.ndarray, " S"]
    sound: Prepared


@record
class SpeechBatch:
    """Utterances padded with 0 to one length: numpy arrays from here, jax arrays inside a step.

    Args:
        symbols: ids; 0 is padding.
        symbol_lengths: how many of a row's are no padding.
        features: log-mel frames.
        feature_lengths: how many of a row's are no padding.

    Raises:
        ShapeError: shapes that do not agree, or lengths beyond them.
    """

    symbols: Ids
    symbol_lengths: Lengths
    features: Frames
    feature_lengths: Lengths

    def __post_init__(self):
        if not all(isinstance(array, np.ndarray) for array in vars(self).values()):
            return
        shapes = {name: array.shape for name, array in vars(self).items()}
        rows = len(self.symbols)
        wanted = (rows, *self.symbols.shape[1:2]), (rows,), (rows, *self.features.shape[1:3]), (rows,)
        if tuple(shapes.values()) != wanted or self.features.ndim != 3 or self.symbols.ndim != 2:
            raise ShapeError(f"arrays of a batch have shapes {shapes}", remedy="[B, S], [B], [B, T, M] and [B].")
        for lengths, most in (
            (self.symbol_lengths, self.symbols.shape[1]),
            (self.feature_lengths, self.features.shape[1]),
        ):
            if rows and not 0 <= lengths.min() <= lengths.max() <= most:
                raise ShapeError(f"lengths {lengths} do not fit into {most}", remedy="Pad to the longest.")


class Bucketing(Value):
    """How utterances become batches.

    Args:
        batch: utterances in a batch, over all hosts.
        buckets: how many shapes there are at most; more waste less on padding and compile more.
        multiple: padded lengths are multiples of this.
        seed: draws the orders.
    """

    batch: int
    buckets: int = 6
    multiple: int = 16
    seed: int = 0

    def check(self) -> None:
        for name in ("batch", "buckets", "multiple"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{getattr(self, name)}", where=name, remedy="Use 1 or more.")
        if not 0 <= self.seed < 2**64:
            raise ConfigError(f"{self.seed} cannot seed the order", where="seed", remedy="Use a whole number from 0.")


class Bucketed:
    """Endless training batches, by index; each epoch has each utterance once, in an order drawn anew.

    A bucket's last batch of an epoch is filled up with others of the same bucket. Utterances are cut
    into buckets of equal number by their frames; each bucket has one shape for ever.

    Args:
        examples: what to learn from.
        bucketing: the sizes and the seed.
        shard: which rows of each batch are this host's.

    Raises:
        DataError: there are no examples.
        ConfigError: the batch does not divide over the hosts.
    """

    def __init__(self, examples: Sequence[Example], bucketing: Bucketing, *, shard: Shard = Shard()):
        if not examples:
            raise DataError("there is nothing to learn from", where="examples", remedy="Give recordings with text.")
        if bucketing.batch % shard.count:
            raise ConfigError(
                f"a batch of {bucketing.batch} does not divide over {shard.count} hosts",
                where="batch",
                remedy=f"Use batch={shard.count * max(1, bucketing.batch // shard.count)}.",
            )
        self.examples, self.bucketing, self.shard = examples, bucketing, shard
        frames = np.asarray([len(example.sound.features) for example in examples])
        symbols = np.asarray([len(example.symbols) for example in examples])
        # A bucket that is smaller than a batch would repeat itself within one.
        count = max(1, min(bucketing.buckets, len(examples) // bucketing.batch))
        self._buckets = np.array_split(np.argsort(frames, kind="stable"), count)
        self.shapes = tuple(
            (self._up(int(symbols[bucket].max())), self._up(int(frames[bucket].max()))) for bucket in self._buckets
        )
        self.batches_per_epoch = sum(-(-len(bucket) // bucketing.batch) for bucket in self._buckets)
        # Two epochs: batches near a border are prefetched from both.
        self._epoch = functools.lru_cache(maxsize=2)(self._draw_epoch)

    def __getitem__(self, index: int) -> SpeechBatch:
        epoch, at = divmod(index, self.batches_per_epoch)
        bucket, chosen = self._epoch(epoch)[at]
        mine = chosen[self.shard.index :: self.shard.count]
        return pad([self.examples[i] for i in mine], *self.shapes[bucket])

    def _up(self, length: int) -> int:
        return -(-length // self.bucketing.multiple) * self.bucketing.multiple

    def _draw_epoch(self, epoch: int) -> list[tuple[int, list[int]]]:
        batch, drawn = self.bucketing.batch, []
        for number, bucket in enumerate(self._buckets):
            turns = bucket[order(len(bucket), self.bucketing.seed, epoch, number + 1)].tolist()
            for start in range(0, len(turns), batch):
                # Filled up from the start of the order, so that nobody waits for the next epoch.
                drawn.append((number, [turns[(start + i) % len(turns)] for i in range(batch)]))
        return [drawn[i] for i in order(len(drawn), self.bucketing.seed, epoch, 0).tolist()]


def pad(examples: Sequence[Example], symbols: int, frames: int) -> SpeechBatch:
    """Returns a batch of examples, padded with 0 to so many symbols and frames.

    Raises:
        DataError: there are none, or one is longer.
    """
    if not examples:
        raise DataError("a batch of nothing", where="examples", remedy="Give at least one.")
    bins = examples[0].sound.features.shape[1]
    batch = SpeechBatch(
        symbols=np.zeros((len(examples), symbols), np.int32),
        symbol_lengths=np.asarray([len(example.symbols) for example in examples], np.int32),
        features=np.zeros((len(examples), frames, bins), np.float32),
        feature_lengths=np.asarray([len(example.sound.features) for example in examples], np.int32),
    )
    for row, example in enumerate(examples):
        batch.symbols[row, : len(example.symbols)] = example.symbols
        batch.features[row, : len(example.sound.features)] = example.sound.features
    return batch
