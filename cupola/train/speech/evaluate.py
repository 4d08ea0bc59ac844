"""Scoring a model that speaks on held-out utterances: with the true frames at hand, and speaking by itself.

Not here: judges that listen to the sound. Invariant: what is said of speaking was made with the decoder
seeing its own frames alone; with the true ones at hand, each utterance counts once.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int

from cupola.core.context import Context
from cupola.core.errors import ConfigError
from cupola.core.module import Tree
from cupola.data.audio.batches import Example, SpeechBatch, pad
from cupola.data.audio.distortion import mel_cepstral_distortion
from cupola.data.audio.features import LogMel
from cupola.data.loader import Shard
from cupola.layers.convolution import within
from cupola.models.speech.alignment import diagonality, monotonicity
from cupola.models.speech.generate import Speaking, Utterance, generate
from cupola.models.speech.loss import Objective, row_losses
from cupola.models.speech.tacotron import Tacotron2
from cupola.train.experiment import Scoring
from cupola.train.task import Place

Item = TypeVar("Item")

NEAR_FRAMES = 5
"""A stop that is no further than this from the true one is at the right place."""
PATIENCE = 1.5
"""A sentence that is longer than the longest true one by this has not stopped by itself."""
_FRAMES, _SYMBOLS = 128, 32
"""Padded lengths are multiples of these, so that few programs are compiled."""


class SpeechEvaluation(Scoring):
    """When and how held-out utterances are scored.

    Args:
        times: during the run, evenly spread; the end of the run comes on top and scores everything.
        utterances: scored with the true frames at hand during the run; None scores all each time.
        batch: utterances scored at once.
        spoken: how many are spoken freely during the run.
        spoken_at_end: how many are at its end.
    """

    times: int = 10
    utterances: int | None = 64
    batch: int = 16
    spoken: int = 4
    spoken_at_end: int = 32

    def check(self) -> None:
        super().check()
        for name in ("utterances", "batch", "spoken", "spoken_at_end"):
            if (count := getattr(self, name)) is not None and count < 1:
                raise ConfigError(f"{count} is too few", where=name, remedy="Use 1 or more.")


@dataclasses.dataclass(frozen=True, eq=False)
class Sample:
    """A held-out sentence that was spoken freely.

    Args:
        name: of its recording.
        true: the recording's frames.
        utterance: the model's.
        distortion_db: between them, aligned in time; infinite where there are no finite frames.
    """

    name: str
    true: Float32[np.ndarray, "T M"]
    utterance: Utterance
    distortion_db: float


@dataclasses.dataclass(frozen=True)
class SpeechScore:
    """What a model makes of held-out utterances.

    Args:
        forced: with the true frames at hand: parts of the loss a frame, "loss" among them, "stop_accuracy"
            (share of utterances that stop within 5 frames of their end), "monotonicity" and "diagonality".
        samples: spoken freely.
    """

    forced: dict[str, float]
    samples: tuple[Sample, ...]

    @property
    def spoken(self) -> dict[str, float]:
        """Means over what was spoken freely: dB of distortion, share that stopped, monotonicity, diagonality."""
        told = [
            {
                "distortion_db": each.distortion_db,
                "stopped": float(each.utterance.stopped),
                "monotonicity": float(monotonicity(*_row(each.utterance)[:2])[0]),
                "diagonality": float(diagonality(*_row(each.utterance))[0]),
            }
            for each in self.samples
        ]
        return {name: math.fsum(each[name] for each in told) / len(told) for name in told[0]}

    @property
    def metrics(self) -> dict[str, float]:
        """The numbers that a run records."""
        forced = {f"held_out_{name}": value for name, value in self.forced.items()}
        return forced | {f"spoken_{name}": value for name, value in self.spoken.items()}

    def text(self) -> str:
        """Returns the numbers that matter, for a person."""
        stopped = sum(each.utterance.stopped for each in self.samples)
        return (
            f"{self.forced['loss']:.3f} a frame; spoken freely {self.spoken['distortion_db']:.2f} dB from the "
            f"recordings, {stopped} of {len(self.samples)} stopped"
        )


class SpeechEvaluator:
    """Scores a model on held-out utterances.

    Args:
        model: what is scored.
        objective: what the loss is made of.
        evaluation: how many are scored.
        speaking: how it speaks.
        front: of the frames.
        examples: held out, by name.
        place: puts this host's rows of a batch on the devices; None leaves it to jax.
        shard: which of a batch's rows are this host's.
    """

    def __init__(
        self,
        model: Tacotron2,
        objective: Objective,
        evaluation: SpeechEvaluation,
        speaking: Speaking,
        front: LogMel,
        examples: Mapping[str, Example],
        place: Place | None = None,
        shard: Shard = Shard(),
    ):
        self._model, self._evaluation, self._front, self._shard = model, evaluation, front, shard
        self._examples = dict(examples)
        self._place = place or (lambda batch: batch)
        self._forced = jax.jit(partial(_forced, model, objective, speaking.threshold))
        longest = max(len(each.sound.features) for each in self._examples.values())
        self._speaking = speaking.replace("most_frames", min(speaking.most_frames, math.ceil(PATIENCE * longest)))

    def all(self, params: Tree) -> SpeechScore:
        """Returns the score over every held-out utterance, many of them spoken too."""
        return self._over(params, len(self._examples), self._evaluation.spoken_at_end)

    def sample(self, params: Tree) -> SpeechScore:
        """Returns the score over a fixed sample of the utterances."""
        return self._over(params, self._evaluation.utterances, self._evaluation.spoken)

    def _over(self, params: Tree, utterances: int | None, spoken: int) -> SpeechScore:
        chosen = _picked(list(self._examples.values()), utterances)
        chosen.sort(key=lambda each: len(each.sound.features))
        sums: dict[str, float] = {}
        for start in range(0, len(chosen), self._evaluation.batch):
            for name, value in self._batch(params, chosen[start : start + self._evaluation.batch]).items():
                sums[name] = sums.get(name, 0.0) + float(value)
        rows, frames = sums.pop("rows"), sums.pop("frames")
        of_rows = ("stop_accuracy", "monotonicity", "diagonality")
        forced = {name: value / (rows if name in of_rows else frames) for name, value in sums.items()}
        return SpeechScore(forced, self._spoken(params, spoken))

    def _batch(self, params: Tree, examples: Sequence[Example]) -> dict[str, Array]:
        rows = self._evaluation.batch
        # Filled up, so that it divides over devices; rows that are there twice do not count.
        filled = [*examples, *[examples[0]] * (rows - len(examples))]
        frames, symbols = (
            -(-max(map(len, lengths)) // multiple) * multiple
            for lengths, multiple in (
                ([each.sound.features for each in examples], _FRAMES),
                ([each.symbols for each in examples], _SYMBOLS),
            )
        )
        mine = self._shard.share(0, rows)
        batch = pad([filled[i] for i in mine], symbols, frames)
        counts = np.asarray([i < len(examples) for i in mine], np.float32)
        return self._forced(params, *self._place((batch, counts)))

    def _spoken(self, params: Tree, count: int) -> tuple[Sample, ...]:
        named = _picked(list(self._examples.items()), count)
        made = generate(
            self._model,
            on_one_device(params),
            [example.symbols for _, example in named],
            key=jax.random.key(0),
            speaking=self._speaking,
        )
        samples = []
        for (name, example), utterance in zip(named, made, strict=True):
            true = np.asarray(example.sound.features)
            finite = np.isfinite(utterance.features).all()
            far = mel_cepstral_distortion(true, utterance.features, self._front) if finite else math.inf
            samples.append(Sample(name, true, utterance, far))
        return tuple(samples)


def on_one_device(params: Tree) -> Tree:
    """Returns parameters that lie on a mesh, whole on this host's first device."""
    sharding = jax.tree.leaves(params)[0].sharding
    if isinstance(sharding, jax.sharding.NamedSharding):
        everywhere = jax.sharding.NamedSharding(sharding.mesh, jax.sharding.PartitionSpec())
        params = jax.jit(lambda p: p, out_shardings=everywhere)(params)
    return jax.device_put(jax.tree.map(lambda x: x.addressable_data(0), params), jax.local_devices()[0])


def _forced(
    model: Tacotron2,
    objective: Objective,
    threshold: float,
    params: Tree,
    batch: SpeechBatch,
    counts: Float[Array, " B"],
) -> dict[str, Float[Array, ""]]:
    """Sums over the rows that count."""
    lengths = batch.feature_lengths
    given = batch.symbols, batch.symbol_lengths, batch.features, lengths
    spoken = model(params, *given, context=Context(key=jax.random.key(0)))
    loss, parts = row_losses(spoken, batch, objective)
    stops = (jax.nn.sigmoid(spoken.stops) > threshold) & within(lengths, spoken.stops.shape[1])
    first = jnp.where(stops.any(-1), jnp.argmax(stops, -1), spoken.stops.shape[1] + NEAR_FRAMES)
    told = {
        "loss": loss,
        **parts,
        "stop_accuracy": (jnp.abs(first - (lengths - 1)) <= NEAR_FRAMES).astype(jnp.float32),
        "monotonicity": monotonicity(spoken.weights, lengths),
        "diagonality": diagonality(spoken.weights, lengths, batch.symbol_lengths),
        "frames": lengths.astype(jnp.float32),
        "rows": jnp.ones_like(counts),
    }
    return {name: (counts * value).sum() for name, value in told.items()}


def _row(utterance: Utterance) -> tuple[Float[Array, "1 T S"], Int[Array, " 1"], Int[Array, " 1"]]:
    frames, symbols = utterance.weights.shape
    return jnp.asarray(utterance.weights)[None], jnp.asarray([frames]), jnp.asarray([symbols])


def _picked(items: list[Item], count: int | None) -> list[Item]:
    wanted = len(items) if count is None else min(count, len(items))
    return [items[i * len(items) // wanted] for i in range(wanted)]
