"""Decoders of text: from an experiment's sources to tokens in the run's folder, and what reads them there.

Invariant: what a run resumed from its folder reads is, bit for bit, what it read when it began.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cupola.config import text
from cupola.core.errors import DataError
from cupola.data.loader import Loader, Shard
from cupola.data.mixture import Mixture
from cupola.data.sources import HeldOut, Split
from cupola.data.tokenizer import Tokenizer
from cupola.data.tokens import TokenCorpus
from cupola.observe import machine
from cupola.train import report
from cupola.train.evaluate import Evaluator, Score, compressed_bits_per_byte
from cupola.train.experiment import Data, Experiment
from cupola.train.folder import RunFolder
from cupola.train.task import Outcome, Place, Task


@dataclasses.dataclass(frozen=True)
class Prepared(Task):
    """What a run of a decoder of text reads.

    Args:
        experiment: as given, with the vocabulary of the tokenizer that its text allowed.
        tokenizer: of the corpora.
        train: one corpus for each part of the mixture.
        held_out: the same, of the documents that are held out.
    """

    experiment: Experiment
    tokenizer: Tokenizer
    train: tuple[TokenCorpus, ...]
    held_out: tuple[TokenCorpus, ...]

    def loader(self, shard: Shard) -> Loader:
        data = self.experiment.data
        rows = split(data, Split.TRAIN).pack(self.train, length_tokens=data.length_tokens, seed=self.experiment.seed)
        return Loader(rows, batch=data.batch, shard=shard)

    def evaluator(self, place: Place, shard: Shard) -> Evaluator:
        made = self.experiment
        return Evaluator(made.model, self.held_out, made.evaluation, made.data.length_tokens, place, shard)

    def finish(self, folder: RunFolder, outcome: Outcome, score: Score, summary: dict[str, Any]) -> dict[str, Any]:
        texts = (text for corpus in self.held_out for text in corpus.texts(self.tokenizer))
        compressed = compressed_bits_per_byte(texts)
        summary |= report.of_text(self.experiment, self.train, outcome, score, compressed, machine.measure())
        report.draw(folder, summary)
        folder.write(folder.card, report.card(folder, self.experiment, summary))
        return summary


def split(data: Data, side: Split) -> Mixture:
    """Returns the mixture with one side of each part's documents."""
    parts = tuple(
        dataclasses.replace(part, source=HeldOut(source=part.source, fraction=data.held_out, split=side))
        for part in data.mixture.parts
    )
    return Mixture(parts=parts)


def prepare(experiment: Experiment, folder: RunFolder, note: Callable[[str], None]) -> Prepared:
    """Returns the tokenizer and corpora of a run, from its folder where they are already there.

    Args:
        note: told, in a line, of each thing that is made.

    Raises:
        DataError: a source is missing, empty, binary or too small, or the run began with another.
        TokenizerError: the tokenizer named cannot be read, or has another vocabulary than the model.
    """
    data = experiment.data
    _check_same(folder.experiment_of(Experiment).data, data)
    sides = {"train": split(data, Split.TRAIN), "held_out": split(data, Split.HELD_OUT)}
    if folder.tokenizer.is_file() or data.tokenizer is not None:
        tokenizer = Tokenizer.load(folder.tokenizer if folder.tokenizer.is_file() else data.tokenizer or "")
        tokenizer.check_exact_vocabulary(experiment.model.vocabulary)
    else:
        texts = (document.text for document in sides["train"].documents())
        tokenizer = Tokenizer.train(texts, experiment.model.vocabulary)
        note(f"tokenizer: byte-level BPE, {tokenizer.vocabulary:,} tokens")
        if tokenizer.vocabulary < experiment.model.vocabulary:
            experiment = experiment.replace("model.vocabulary", tokenizer.vocabulary)
            folder.write(folder.config, text.show(experiment))
            note(f"so little text gives no more tokens: model.vocabulary is {tokenizer.vocabulary} in this run")
    tokenizer.save(folder.tokenizer)
    corpora = {}
    for name, mixture in sides.items():
        places = _places(folder, name, data)
        if all(place.is_dir() for place in places):
            corpora[name] = tuple(TokenCorpus.load(place, tokenizer) for place in places)
            continue
        corpora[name] = mixture.encode(tokenizer)
        for corpus, place in zip(corpora[name], places, strict=True):
            corpus.save(place)
        size = {
            unit: sum(getattr(c, unit) for c in corpora[name]) for unit in ("documents", "size_bytes", "size_tokens")
        }
        note(
            f"{name.replace('_', ' ')}: {size['documents']:,} documents, {size['size_bytes'] / 1e6:.1f} MB, "
            f"{size['size_tokens']:,} tokens"
        )
    return Prepared(experiment, tokenizer, corpora["train"], corpora["held_out"])


def held_out(experiment: Experiment, folder: RunFolder, tokenizer: Tokenizer) -> tuple[TokenCorpus, ...]:
    """Returns the held-out corpora of a run that was begun, whatever became of its sources.

    Raises:
        DataError: they are missing or damaged.
    """
    return tuple(TokenCorpus.load(place, tokenizer) for place in _places(folder, "held_out", experiment.data))


def _places(folder: RunFolder, name: str, data: Data) -> list[Path]:
    return [folder.data / f"{name}-{i}" for i in range(len(data.mixture.parts))]


def _check_same(began: Data, now: Data) -> None:
    for name in ("mixture", "held_out", "tokenizer"):
        if getattr(began, name) != getattr(now, name):
            raise DataError(
                "a run that goes on reads what it began with",
                where=f"data.{name}",
                remedy="Leave it as it was, or start a new run.",
            )
