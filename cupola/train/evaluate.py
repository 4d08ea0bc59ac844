"""Scoring held-out documents: bits per byte, the measure that any tokenizer and any compressor share.

Invariant: each token of each document is scored exactly once, so two models with different
tokenizers are compared on the same bytes.
"""

import dataclasses
import gzip
import lzma
import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cupola.core.module import Tree
from cupola.data.loader import Batch, Shard, batches
from cupola.data.pack import Row, Windows
from cupola.data.tokens import TokenCorpus
from cupola.models.decoder import Decoder
from cupola.train.experiment import Evaluation


@dataclasses.dataclass(frozen=True)
class Score:
    """What a model makes of held-out documents.

    Args:
        nats: sum of the scored tokens' negative log-probabilities.
        tokens: how many were scored, ends of documents included.
        bytes: UTF-8 bytes that they stand for.
    """

    nats: float
    tokens: int
    bytes: float

    @property
    def loss(self) -> float:
        """Nats a token."""
        return self.nats / self.tokens

    @property
    def bits_per_byte(self) -> float:
        """Bits that the model would need for each byte of text."""
        return self.nats / math.log(2) / self.bytes

    @property
    def metrics(self) -> dict[str, float]:
        """The numbers that a run records."""
        return {"held_out_loss": self.loss, "held_out_bits_per_byte": self.bits_per_byte}

    def text(self) -> str:
        """Returns the measure that any two models share."""
        return f"{self.bits_per_byte:.3f} bits per byte"


class Evaluator:
    """Scores a model on the held-out part of each corpus, by windows (`data/pack.py`).

    Args:
        model: what is scored.
        corpora: held-out documents.
        evaluation: context, stride, and how many rows are scored during a run.
        length_tokens: of the training rows.
        place: puts this host's rows of a batch on the devices; None leaves it to jax.
        shard: which of a batch's rows are this host's.
    """

    def __init__(
        self,
        model: Decoder,
        corpora: Sequence[TokenCorpus],
        evaluation: Evaluation,
        length_tokens: int,
        place: Callable[[Batch], Batch] | None = None,
        shard: Shard = Shard(),
    ):
        length = evaluation.length_tokens or length_tokens
        self._windows = [
            Windows(corpus, length_tokens=length, stride_tokens=evaluation.stride_tokens) for corpus in corpora
        ]
        self._bytes_per_token = sum(c.size_bytes for c in corpora) / sum(c.size_tokens for c in corpora)
        self._evaluation, self._shard = evaluation, shard
        self._place = place or (lambda batch: batch)
        self._score = jax.jit(partial(_score, model))

    def all(self, params: Tree) -> Score:
        """Returns the score over every held-out token."""
        return self._over(params, self._windows)

    def sample(self, params: Tree) -> Score:
        """Returns the score over a fixed sample of rows, its bytes estimated from the whole's."""
        rows = [(windows, i) for windows in self._windows for i in range(len(windows))]
        wanted = min(self._evaluation.rows or len(rows), len(rows))
        picked = (rows[i * len(rows) // wanted] for i in range(wanted))
        return self._over(params, [[windows[i] for windows, i in picked]])

    def _over(self, params: Tree, parts: Sequence[Sequence[Row]]) -> Score:
        size = self._evaluation.batch
        totals = [
            self._score(params, self._place(b)) for part in parts for b in batches(part, batch=size, shard=self._shard)
        ]
        nats, tokens = (math.fsum(float(part) for part in parts) for parts in zip(*totals, strict=True))
        return Score(nats=nats, tokens=int(tokens), bytes=tokens * self._bytes_per_token)


def _score(model: Decoder, params: Tree, batch: Batch) -> tuple[Float[Array, ""], Float[Array, ""]]:
    hidden = model(params, batch.tokens, positions=batch.positions, segments=batch.segments)
    log_probs = model.log_probs(params, hidden.states, batch.targets)
    return -jnp.sum(jnp.where(batch.weights > 0, log_probs, 0)), jnp.sum(batch.weights)


def compressed_bits_per_byte(texts: Iterable[str]) -> dict[str, float]:
    """Returns what general compressors need for documents, each compressed by itself.

    Returns:
        {"gzip": bits per byte of gzip -9, "xz": of xz -9e}.
    """
    whole, gzipped, xzipped = 0, 0, 0
    for text in texts:
        content = text.encode()
        whole += len(content)
        gzipped += len(gzip.compress(content, 9, mtime=0))
        xzipped += len(lzma.compress(content, preset=9 | lzma.PRESET_EXTREME))
    return {"gzip": 8 * gzipped / whole, "xz": 8 * xzipped / whole}
