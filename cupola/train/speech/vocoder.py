"""Teaching vocoders: experiments as values, their task, and the vocoder that a run leaves.

Three kinds: Vocos by its spectra alone, which a CPU can do and whose sound stays rough; Vocos against
discriminators, as its paper does; WaveNet. Not here: what the losses are (`models/speech`), scores
(`vocoder_score.py`). Invariant: a run that is resumed from its folder reads what it read before.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import jax
from jaxtyping import Array, Float

from cupola.config import diff
from cupola.core.context import Context
from cupola.core.errors import ConfigError, DataError
from cupola.core.module import Tree
from cupola.data.audio.corpus import SpeechCorpus
from cupola.data.audio.segments import Segments, SoundBatch, Sounding
from cupola.data.audio.spectrum import Stft
from cupola.data.audio.vocoder import Vocoder
from cupola.data.loader import Prefetched, Shard
from cupola.data.sources import Split
from cupola.models.speech.adversarial import AdversarialLoss, VocosGAN
from cupola.models.speech.spectral_loss import SpectralLoss
from cupola.models.speech.vocoders import VocosVocoder, WaveNetVocoder
from cupola.models.speech.vocos import Vocos
from cupola.models.speech.wavenet import WaveNet
from cupola.observe.sinks import MediaSink
from cupola.optim.accumulate import Summed
from cupola.optim.learner import Learner
from cupola.optim.learners import Learners
from cupola.train.experiment import Training
from cupola.train.folder import RunFolder
from cupola.train.load import load_params
from cupola.train.speech.predicted import digest, predictions
from cupola.train.speech.vocoder_card import card
from cupola.train.speech.vocoder_data import SoundData
from cupola.train.speech.vocoder_score import (
    Shown,
    VocoderEvaluation,
    VocoderEvaluator,
    VocoderScore,
    WaveNetEvaluation,
    WaveNetEvaluator,
    keep_samples,
)
from cupola.train.task import Hook, Outcome, Place, Task, prepare

_LIST = "recordings.jsonl"
_SIDES = {"speech": Split.TRAIN, "held_out_speech": Split.HELD_OUT}


class VocoderTraining(Training):
    """The training of what makes sound of frames; subclasses say what that is.

    Args:
        data: what it is trained on.
        evaluation: how held-out recordings are scored.
        start: folder of a run of a vocoder of the same sizes, with whose parameters this one begins.
    """

    data: SoundData
    evaluation: VocoderEvaluation = VocoderEvaluation()
    start: str | None = None

    unit: ClassVar[str] = "frames"

    def vocoder(self) -> Vocoder:
        """Returns what is trained, as it is used."""
        raise NotImplementedError

    def kept(self, params: Tree) -> Tree:
        """Returns the vocoder's parameters among those that are trained."""
        return params

    def segment_samples(self) -> int:
        """Returns how many samples belong to a segment's frames."""
        return self.data.front.samples(self.data.segment_frames)

    def shares(self) -> dict[str, Any]:
        """Returns what a model may leave out: number formats, bins, and the frames of its spectra."""
        front = self.data.front
        spectra = Stft(size=front.stft.window or front.stft.size, hop=front.stft.hop, padding=front.stft.padding)
        return super().shares() | {"bins": front.bins, "stft": spectra}

    def counted(self, batch: SoundBatch) -> int:
        return batch.features.shape[0] * batch.features.shape[1]


class VocosTraining(VocoderTraining):
    """Vocos by the distance of its spectra from the true ones.

    Nothing in this loss hears phases, so what it makes is intelligible and stays rough: it is meant as a
    warm-up (`start` of a `VocosGANTraining`), or for where discriminators are too dear.

    Args:
        model: what is trained.
        learner: moves it.
        objective: the distance.
    """

    model: Vocos
    learner: Learner
    objective: SpectralLoss = SpectralLoss(mel=15.0, magnitudes=5.0)

    def vocoder(self) -> VocosVocoder:
        return VocosVocoder(front=self.data.front, model=self.model)

    def loss(self, params: Tree, batch: SoundBatch, context: Context) -> Summed:
        made = self.model(params, batch.features, batch.samples.shape[1])
        return _summed(*self.objective(made, batch.samples, self.data.front))

    def flops(self, batch: SoundBatch) -> int:
        """Returns those of the model's products; the loss's transforms are none."""
        return 3 * self.model.flops(*batch.features.shape[:2])


class VocosGANTraining(VocoderTraining):
    """Vocos against discriminators.

    Args:
        model: generator and discriminators.
        learner: moves each of the two by its own.
        objective: what both sides lose.
    """

    model: VocosGAN
    learner: Learners
    objective: AdversarialLoss = AdversarialLoss()

    def vocoder(self) -> VocosVocoder:
        return VocosVocoder(front=self.data.front, model=self.model.generator)

    def kept(self, params: Tree) -> Tree:
        return params["generator"]

    def loss(self, params: Tree, batch: SoundBatch, context: Context) -> Summed:
        return _summed(*self.objective(self.model, params, batch.features, batch.samples, self.data.front))


class WaveNetTraining(VocoderTraining):
    """WaveNet, by the likelihood of each sample, told those before it and the frames.

    Args:
        model: what is trained.
        learner: moves it.
        evaluation: how held-out recordings are scored.
    """

    model: WaveNet
    learner: Learner
    evaluation: WaveNetEvaluation = WaveNetEvaluation()

    def check(self) -> None:
        super().check()
        hop = self.data.front.stft.hop
        if math.prod(self.model.strides) != hop:
            raise ConfigError(
                f"{self.model.strides} make {math.prod(self.model.strides)} samples of a frame, whose hop is {hop}",
                where="model.strides",
                remedy=f"Use strides whose product is {hop}, such as {_strides(hop)}.",
            )

    def vocoder(self) -> WaveNetVocoder:
        return WaveNetVocoder(front=self.data.front, model=self.model)

    def segment_samples(self) -> int:
        return self.data.segment_frames * self.data.front.stft.hop

    def loss(self, params: Tree, batch: SoundBatch, context: Context) -> Summed:
        rows, frames = batch.features.shape[:2]
        lengths = jax.numpy.full(rows, frames)
        nats, count = self.model.loss(params, batch.samples, batch.features, lengths)
        return nats, (count, {"loss": nats}, {})


def _strides(hop: int) -> tuple[int, int]:
    """The two most equal strides."""
    low = next(n for n in range(math.isqrt(hop), 0, -1) if hop % n == 0)
    return low, hop // low


def _summed(loss: Float[Array, " B"], parts: dict[str, Float[Array, " B"]]) -> Summed:
    metrics = {name: part.sum() for name, part in ({"loss": loss} | parts).items()}
    return loss.sum(), (jax.numpy.float32(len(loss)), metrics, {})


@dataclasses.dataclass(frozen=True)
class PreparedSound(Task):
    """What a run of a vocoder reads.

    Args:
        experiment: as given.
        corpora: what it learns from, and what it is measured on.
        predicted: the frames that stand for the recordings' own, by side; None: these.
    """

    experiment: VocoderTraining
    corpora: Mapping[Split, SpeechCorpus]
    predicted: Mapping[Split, Sequence[Any]] | None

    def sounds(self, side: Split) -> list[Sounding]:
        """Returns recordings with the frames that stand for them."""
        sounds = self.corpora[side].sounds()
        frames = [x.features for x in sounds] if self.predicted is None else self.predicted[side]
        return [Sounding(sound.samples, own) for sound, own in zip(sounds, frames, strict=True)]

    def segments(self, shard: Shard = Shard()) -> Segments:
        """Returns the batches to learn from."""
        made = self.experiment
        return Segments(
            self.sounds(Split.TRAIN),
            rows=made.data.batch,
            frames=made.data.segment_frames,
            samples=made.segment_samples(),
            hop=made.data.front.stft.hop,
            seed=made.seed,
            shard=shard,
        )

    def begin(self, params: Tree) -> Tree:
        if self.experiment.start is None:
            return params
        found = started(self.experiment)
        vocoder = jax.tree.map(
            lambda new, drawn: jax.device_put(new, drawn.sharding), found, self.experiment.kept(params)
        )
        return vocoder if self.experiment.kept(params) is params else params | {"generator": vocoder}

    def loader(self, shard: Shard) -> Prefetched:
        data = self.experiment.data
        identity = {
            "recordings": self.corpora[Split.TRAIN].fingerprint,
            "predictions": None if self.predicted is None else digest(list(self.predicted[Split.TRAIN])),
            "segments": [data.batch, data.segment_frames, self.experiment.seed],
        }
        return Prefetched(self.segments(shard), identity=identity)

    def evaluator(self, place: Place, shard: Shard) -> VocoderEvaluator:
        made = self.experiment
        names = [each.name for each in self.corpora[Split.HELD_OUT].utterances]
        sounds = dict(zip(names, self.sounds(Split.HELD_OUT), strict=True))
        if isinstance(made, WaveNetTraining):
            return WaveNetEvaluator(made.vocoder(), made.evaluation, sounds, made.kept, made.model)
        return VocoderEvaluator(made.vocoder(), made.evaluation, sounds, made.kept)

    def hooks(self, sink: MediaSink) -> Sequence[Hook]:
        return (Shown(sink),)

    def finish(
        self, folder: RunFolder, outcome: Outcome, score: VocoderScore, summary: dict[str, Any]
    ) -> dict[str, Any]:
        amounts = {name: _amounts(self.corpora[side]) for name, side in _SIDES.items()}
        summary |= score.metrics | amounts | {"vocoder_parameters": _count(self.experiment.vocoder())}
        keep_samples(folder.path / "samples", score)
        folder.write(folder.card, card(folder, self.experiment, summary, score))
        return summary


@prepare.register(VocoderTraining)
def prepare_sound(experiment: VocoderTraining, folder: RunFolder, note: Callable[[str], None]) -> PreparedSound:
    """Returns a run's recordings prepared, from its folder where they are already there.

    Raises:
        DataError: recordings are missing or cannot be used, or the run began with others.
        ConfigError: predictions of another front end; a run to start from of other sizes.
    """
    data = experiment.data
    _check_same(folder.experiment_of(VocoderTraining).data, data)
    place, listed = data.folder(folder.data), folder.data / _LIST
    begins = not listed.is_file()
    if begins:
        if experiment.start is not None:
            started(experiment)
        corpus = SpeechCorpus.prepare(data.recordings(), data.preparation, place, note)
    else:
        corpus = SpeechCorpus.parse(listed.read_text(encoding="utf-8"), data.preparation, place, where=listed)
    corpora, predicted = data.split(corpus), None
    if data.predictions is not None:
        kept = folder.data / "predicted"
        predicted = {side: predictions(data.predictions, part, kept, note) for side, part in corpora.items()}
    prepared = PreparedSound(experiment, corpora, predicted)
    if begins:
        _tell(prepared, note)
        folder.data.mkdir(exist_ok=True)
        folder.write(listed, corpus.text())
    return prepared


def started(experiment: VocoderTraining) -> Tree:
    """Returns the parameters of the run that an experiment starts from.

    Raises:
        TrainingError: there is no run, or none of a vocoder.
        ConfigError: it is one of another kind, other sizes or other frames.
    """
    found, params = load_vocoder(RunFolder.open(experiment.start or ""))
    ours = experiment.vocoder()
    if found != ours:
        raise ConfigError(
            f"the run {experiment.start} is of another vocoder:\n{diff.text(diff.diff(found, ours))}",
            where="start",
            remedy="Start from a run of the same model and front end, or leave start out.",
        )
    return params


def load_vocoder(folder: RunFolder, step: int | None = None) -> tuple[Vocoder, Tree]:
    """Returns the vocoder of a run, and its parameters, at a step or at the latest checkpoint.

    Example:
        vocoder, params = load_vocoder(RunFolder.open("runs/vocos"))
        clip = vocoder.of(features, params=params)

    Raises:
        TrainingError: there is no run, or it trains another model.
        CheckpointError: there is no such checkpoint, it is damaged, or of other sizes.
    """
    experiment = folder.experiment_of(VocoderTraining)
    params, _ = load_params(folder, experiment, step)
    return experiment.vocoder(), experiment.kept(params)


def _tell(prepared: PreparedSound, note: Callable[[str], None]) -> None:
    told = []
    for side, corpus in prepared.corpora.items():
        amounts = _amounts(corpus)
        told.append(
            f"{side.value.replace('_', ' ')}: {amounts['recordings']:,} recordings, {amounts['seconds'] / 60:.1f} min"
        )
    note("; ".join(told))
    if left_out := prepared.segments().left_out:
        frames = prepared.experiment.data.segment_frames
        note(f"{left_out:,} recordings have fewer than {frames} frames (data.segment_frames) and teach nothing")


def _amounts(corpus: SpeechCorpus) -> dict[str, int | float]:
    samples = sum(len(sound.samples) for sound in corpus.sounds())
    return {"recordings": len(corpus.utterances), "seconds": samples / corpus.preparation.front.rate_hz}


def _count(vocoder: Vocoder) -> int:
    return sum(param.size for param in jax.tree.leaves(vocoder.specs()))


def _check_same(began: SoundData, now: SoundData) -> None:
    for name in ("path", "held_out", "preparation", "predictions", "cache"):
        if getattr(began, name) != getattr(now, name):
            raise DataError(
                "a run that goes on reads what it began with",
                where=f"data.{name}",
                remedy="Leave it as it was, or start a new run.",
            )
