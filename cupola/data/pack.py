"""Packing: rows of fixed length over a corpus of tokens, each computed when it is asked for.

Two ways. `Packed` for training: the documents of an epoch in random order, one after another, cut
into rows. `Windows` for evaluation: every document from its start, each target scored once.
Invariant: a row's targets are the next tokens of the same document, or `end` after its last; no
target crosses from one segment into another.
"""

import bisect
import functools
import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Int64

from cupola.core.errors import ConfigError, DataError
from cupola.data.tokens import TokenCorpus

Row: TypeAlias = dict[str, np.ndarray]
"""Five arrays of shape [T]: `tokens`, `targets` and `positions` within the segment (int32), `segments`
(int32, counted from 1; 0 is padding) and `weights` (float32: how much each target counts)."""

_DOCUMENTS, _ROWS = 0, 1
"""The streams that orders are drawn from."""

_Piece: TypeAlias = tuple[int, int, int]
"""Part of a document in a row, as indices into the corpus: first, one past the last, first scored."""


class Packed:
    """Endless training rows: row `i` of epoch `e` is number `e * rows_per_epoch + i`.

    Each epoch holds each token once. The order of documents, and then of rows, is drawn anew for
    every epoch from (seed, epoch); only the last row cut from an epoch has padding. A document that
    a row cuts goes on in another row, as a segment of its own whose positions begin at 0.

    Args:
        corpus: the documents.
        length_tokens: tokens in a row.
        seed: draws the orders.

    Raises:
        DataError: the corpus is smaller than one row.

    Cost: a row is a few array copies; an epoch costs one sort of its documents and one of its rows.
    """

    def __init__(self, corpus: TokenCorpus, *, length_tokens: int, seed: int = 0):
        _check_length(length_tokens)
        if not 0 <= seed < 2**64:
            raise ConfigError(f"{seed} cannot seed the order", where="seed", remedy="Use a whole number from 0.")
        if corpus.size_tokens < length_tokens:
            per_token = corpus.size_bytes / corpus.size_tokens
            raise DataError(
                f"the corpus has {corpus.size_tokens} tokens, fewer than one row of {length_tokens}",
                where="length_tokens",
                remedy=f"Use length_tokens={corpus.size_tokens} or less, "
                f"or at least {math.ceil(length_tokens * per_token)} bytes of text.",
            )
        self.corpus, self.length_tokens, self.seed = corpus, length_tokens, seed
        self.rows_per_epoch = -(-corpus.size_tokens // length_tokens)
        # Two epochs: rows near a border are prefetched from both.
        self._epoch = functools.lru_cache(maxsize=2)(self._draw_epoch)

    @property
    def parts(self) -> tuple[tuple[float, "Packed"], ...]:
        """Itself with weight 1: rows of one corpus are the simplest mixture."""
        return ((1.0, self),)

    def __getitem__(self, index: int) -> Row:
        epoch, place = divmod(index, self.rows_per_epoch)
        documents, starts, rows = self._epoch(epoch)
        begin = int(rows[place]) * self.length_tokens
        stop = min(begin + self.length_tokens, self.corpus.size_tokens)
        pieces: list[_Piece] = []
        at = int(np.searchsorted(starts, begin, side="right")) - 1
        while begin < stop:
            until = min(stop, int(starts[at + 1]))
            first = int(self.corpus.offsets[documents[at]]) + begin - int(starts[at])
            pieces.append((first, first + until - begin, first))
            begin, at = until, at + 1
        return _row(self.corpus, pieces, self.length_tokens)

    def _draw_epoch(
        self, epoch: int
    ) -> tuple[Int64[np.ndarray, " documents"], Int64[np.ndarray, " bounds"], Int64[np.ndarray, " rows"]]:
        """The order of documents, where each begins in that order, and the order of rows."""
        documents = order(self.corpus.documents, self.seed, epoch, _DOCUMENTS)
        lengths = np.diff(self.corpus.offsets)[documents]
        starts = np.concatenate([[0], np.cumsum(lengths)])
        return documents, starts, order(self.rows_per_epoch, self.seed, epoch, _ROWS)


class Windows(Sequence[Row]):
    """Evaluation rows that cover every document from its start and score each target exactly once.

    A document that fits in a row is scored whole; short ones share rows. A longer one is read by
    windows of `length_tokens`, each scoring the `stride_tokens` targets that the one before did not
    reach, so that each of those sees at least `length_tokens - stride_tokens` tokens to its left.

    Args:
        corpus: the documents.
        length_tokens: tokens in a row.
        stride_tokens: targets scored by each later window of a long document; None means half a
            row. Small strides cost more and give the lower, truer loss.

    Raises:
        ConfigError: the stride is not between 1 and the length.
    """

    def __init__(self, corpus: TokenCorpus, *, length_tokens: int, stride_tokens: int | None = None):
        _check_length(length_tokens)
        stride = max(1, length_tokens // 2) if stride_tokens is None else stride_tokens
        if not 1 <= stride <= length_tokens:
            raise ConfigError(
                f"{stride} is not between 1 and length_tokens={length_tokens}",
                where="stride_tokens",
                remedy=f"Use {max(1, length_tokens // 2)} for half a row of context.",
            )
        self.corpus, self.length_tokens, self.stride_tokens = corpus, length_tokens, stride
        self._rows = _fit(self._pieces(), length_tokens)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        return _row(self.corpus, self._rows[index], self.length_tokens)

    def _pieces(self) -> list[_Piece]:
        pieces = []
        for first, stop in zip(self.corpus.offsets[:-1].tolist(), self.corpus.offsets[1:].tolist(), strict=True):
            reached = min(first + self.length_tokens, stop)
            pieces.append((first, reached, first))
            while reached < stop:
                until = min(reached + self.stride_tokens, stop)
                pieces.append((until - self.length_tokens, until, reached))
                reached = until
        return pieces


def _fit(pieces: list[_Piece], length_tokens: int) -> list[list[_Piece]]:
    """Shares pieces out to rows: the longest first, each into the fullest row that still has room."""
    rows: list[list[_Piece]] = []
    room: list[tuple[int, int]] = []  # (tokens free, row), sorted
    for piece in sorted(pieces, key=lambda p: p[0] - p[1]):
        size = piece[1] - piece[0]
        at = bisect.bisect_left(room, (size, 0))
        if at < len(room):
            free, row = room.pop(at)
        else:
            free, row = length_tokens, len(rows)
            rows.append([])
        rows[row].append(piece)
        if free > size:
            bisect.insort(room, (free - size, row))
    return rows


def _row(corpus: TokenCorpus, pieces: list[_Piece], length_tokens: int) -> Row:
    row = {name: np.zeros(length_tokens, np.int32) for name in ("tokens", "targets", "segments", "positions")}
    row["weights"] = np.zeros(length_tokens, np.float32)
    at = 0
    for segment, (first, stop, scored) in enumerate(pieces, start=1):
        here = slice(at, at := at + stop - first)
        row["tokens"][here] = corpus.tokens[first:stop]
        row["targets"][here] = corpus.tokens[first + 1 : stop + 1]
        row["segments"][here] = segment
        row["positions"][here] = np.arange(stop - first)
        row["weights"][at - (stop - scored) : at] = 1
    return row


def order(count: int, seed: int, epoch: int, stream: int) -> Int64[np.ndarray, " count"]:
    """Returns a permutation, one for each seed, epoch and stream. Only raw Philox words are used: numpy keeps those the same for ever."""
    counter = np.asarray([0, 0, 0, stream], np.uint64)
    generator = np.random.Philox(key=np.asarray([seed, epoch], np.uint64), counter=counter)
    return np.argsort(generator.random_raw(count), kind="stable")


def _check_length(length_tokens: int) -> None:
    if length_tokens < 1:
        raise ConfigError(f"a row of {length_tokens} tokens", where="length_tokens", remedy="Use 1 or more.")
