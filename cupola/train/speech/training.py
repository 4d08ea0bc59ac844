"""Teaching a model to speak: the experiment as a value, and its task.

Not here: what the loss is (`models/speech/loss.py`), scores (`evaluate.py`), what is shown (`shown.py`).
Invariant: a run that is resumed from its folder reads what it read before, whatever became of the
recordings that it was begun with.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import jax
import numpy as np

from cupola.core.context import Context
from cupola.core.errors import ConfigError, DataError
from cupola.core.module import Tree
from cupola.data.audio.batches import Bucketed, Bucketing, SpeechBatch
from cupola.data.audio.corpus import SpeechCorpus
from cupola.data.loader import Prefetched, Shard
from cupola.data.sources import Split
from cupola.models.speech.generate import Speaking
from cupola.models.speech.loss import Objective, spoken_loss
from cupola.models.speech.tacotron import Tacotron2
from cupola.observe.sinks import MediaSink
from cupola.optim.accumulate import Summed
from cupola.train.experiment import Training
from cupola.train.folder import RunFolder
from cupola.train.speech.data import SpeechData
from cupola.train.speech.evaluate import SpeechEvaluation, SpeechEvaluator, SpeechScore
from cupola.train.speech.shown import Shown, card, keep_samples
from cupola.train.task import Hook, Outcome, Place, Task, prepare

_LIST = "utterances.jsonl"


class TextToSpeech(Training):
    """The training of a model that makes frames of symbols.

    Args:
        model: what is trained; it reads as many symbols as `data.symbols` has.
        data: what it is trained on.
        objective: what counts how much.
        evaluation: how held-out utterances are scored.
        speaking: how long and how steadily it speaks, in evaluation and as the voice that it becomes.
    """

    model: Tacotron2
    data: SpeechData
    objective: Objective = Objective()
    evaluation: SpeechEvaluation = SpeechEvaluation()
    speaking: Speaking = Speaking()

    unit: ClassVar[str] = "frames"

    def shares(self) -> dict[str, Any]:
        """Returns what a model may leave out: the number formats and the number of symbols."""
        return super().shares() | {"vocabulary": self.data.symbols.vocabulary}

    def check_batches(self, mesh: jax.sharding.Mesh) -> None:
        super().check_batches(mesh)
        self.rules.spec("B", (self.evaluation.batch,), mesh, where="evaluation.batch")

    def check(self) -> None:
        super().check()
        if self.model.bins != self.data.front.bins:
            raise ConfigError(
                f"the model makes frames of {self.model.bins} bins, and the front end of {self.data.front.bins}",
                where="model.bins",
                remedy=f"Use model.bins={self.data.front.bins}, or another data.preparation.front.",
            )

    def loss(self, params: Tree, batch: SpeechBatch, context: Context) -> Summed:
        return spoken_loss(self.model, params, batch=batch, context=context, objective=self.objective)

    def counted(self, batch: SpeechBatch) -> int:
        return int(np.sum(batch.feature_lengths))

    def flops(self, batch: SpeechBatch) -> int:
        rows, frames, _ = batch.features.shape
        return 3 * self.model.flops(rows, frames, batch.symbols.shape[1])


@dataclasses.dataclass(frozen=True)
class Prepared(Task):
    """What a run of a speaking model reads.

    Args:
        experiment: as given.
        train: what it learns from.
        held_out: what it is measured on.
    """

    experiment: TextToSpeech
    train: SpeechCorpus
    held_out: SpeechCorpus

    def loader(self, shard: Shard) -> Prefetched:
        data, seed = self.experiment.data, self.experiment.seed
        bucketing = Bucketing(batch=data.batch, buckets=data.buckets, multiple=data.multiple, seed=seed)
        batches = Bucketed(data.examples(self.train), bucketing, shard=shard)
        identity = {
            "recordings": self.train.fingerprint,
            "symbols": "".join(data.symbols.alphabet),
            "bucketing": [data.batch, data.buckets, data.multiple, seed],
        }
        return Prefetched(batches, identity=identity)

    def evaluator(self, place: Place, shard: Shard) -> SpeechEvaluator:
        made = self.experiment
        names = [each.name for each in self.held_out.utterances]
        return SpeechEvaluator(
            made.model,
            made.objective,
            made.evaluation,
            made.speaking,
            made.data.front,
            dict(zip(names, made.data.examples(self.held_out), strict=True)),
            place,
            shard,
        )

    def hooks(self, sink: MediaSink) -> Sequence[Hook]:
        return (Shown(sink, self.experiment.data.front),)

    def finish(
        self, folder: RunFolder, outcome: Outcome, score: SpeechScore, summary: dict[str, Any]
    ) -> dict[str, Any]:
        summary |= score.metrics | {"speech": _amounts(self.train), "held_out_speech": _amounts(self.held_out)}
        texts = {each.name: each.text for each in self.held_out.utterances}
        keep_samples(folder.path / "samples", score, self.experiment.data.front)
        folder.write(folder.card, card(folder, self.experiment, summary, score, texts))
        return summary


@prepare.register(TextToSpeech)
def prepare_speech(experiment: TextToSpeech, folder: RunFolder, note: Callable[[str], None]) -> Prepared:
    """Returns a run's recordings prepared, from its folder where they are already there.

    Raises:
        DataError: recordings or transcripts are missing or cannot be used, or the run began with others.
    """
    data = experiment.data
    _check_same(folder.experiment_of(TextToSpeech).data, data)
    place, listed = data.folder(folder.data), folder.data / _LIST
    if listed.is_file():
        corpus = SpeechCorpus.parse(listed.read_text(encoding="utf-8"), data.preparation, place, where=listed)
        sides = data.split(corpus)
    else:
        corpus = SpeechCorpus.prepare(data.in_words(), data.preparation, place, note)
        corpus = data.short_enough(corpus, note)
        sides = data.split(corpus)
        _write(folder, listed, corpus)
        note("; ".join(f"{side.value.replace('_', ' ')}: {_told(sides[side])}" for side in sides))
    return Prepared(experiment, sides[Split.TRAIN], sides[Split.HELD_OUT])


def _write(folder: RunFolder, listed: Path, corpus: SpeechCorpus) -> None:
    folder.data.mkdir(exist_ok=True)
    folder.write(listed, corpus.text())


def _amounts(corpus: SpeechCorpus) -> dict[str, int | float]:
    samples = sum(len(sound.samples) for sound in corpus.sounds())
    return {"utterances": len(corpus.utterances), "seconds": samples / corpus.preparation.front.rate_hz}


def _told(corpus: SpeechCorpus) -> str:
    amounts = _amounts(corpus)
    return f"{amounts['utterances']:,} utterances, {amounts['seconds'] / 60:.1f} min"


def _check_same(began: SpeechData, now: SpeechData) -> None:
    for name in ("path", "held_out", "preparation", "symbols", "language", "most_seconds", "cache"):
        if getattr(began, name) != getattr(now, name):
            raise DataError(
                "a run that goes on reads what it began with",
                where=f"data.{name}",
                remedy="Leave it as it was, or start a new run.",
            )
