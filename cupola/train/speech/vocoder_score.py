"""Scoring a vocoder on held-out recordings: how far the spectra of what it makes are from theirs, and how it sounds.

Not here: judges that listen. Invariant: each recording counts once, whatever it is scored beside; frames
and samples beyond it count nothing.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int

from cupola.core.errors import AudioError, ConfigError
from cupola.core.module import Tree
from cupola.data.audio.clip import Clip
from cupola.data.audio.features import LogMel
from cupola.data.audio.files import write
from cupola.data.audio.segments import Sounding
from cupola.data.audio.spectrum import Stft
from cupola.data.audio.vocoder import Vocoder
from cupola.models.speech.spectral_loss import LEAST, RESOLUTIONS
from cupola.models.speech.wavenet import WaveNet
from cupola.observe.sinks import MediaSink
from cupola.train.experiment import Scoring
from cupola.train.folder import unwritable
from cupola.train.speech.evaluate import on_one_device
from cupola.train.task import Hook, Scored

SHOWN, KEPT = 4, 8
"""Recordings that go to TensorBoard at each score, and that a finished run keeps as files."""

Nats = Callable[[Tree, Any, Any, Any], tuple[Array, Array]]


class VocoderEvaluation(Scoring):
    """When and how held-out recordings are scored.

    Args:
        times: during the run, evenly spread; the end of the run comes on top.
        clips: scored during the run.
        clips_at_end: scored at its end.
        most_seconds: of a recording, from its start; the rest is not looked at.
    """

    times: int = 10
    clips: int = 8
    clips_at_end: int = 64
    most_seconds: float = 4.0

    def check(self) -> None:
        super().check()
        if min(self.clips, self.clips_at_end) < 1 or self.most_seconds <= 0:
            raise ConfigError(
                f"clips={self.clips}, clips_at_end={self.clips_at_end}, most_seconds={self.most_seconds}",
                where="clips",
                remedy="Use such as 8, 64 and 4.",
            )


@dataclasses.dataclass(frozen=True, eq=False)
class Heard:
    """A held-out recording, and what a vocoder makes of its frames.

    Args:
        name: of the recording.
        true: as it is.
        made: by the vocoder; as long.
        distances: between them (`distances`).
    """

    name: str
    true: Clip
    made: Clip
    distances: dict[str, float]


@dataclasses.dataclass(frozen=True)
class VocoderScore:
    """What a vocoder makes of held-out recordings.

    Args:
        heard: what was made.
        bits: of information in a sample, told those before it and the frames; None of a vocoder that draws none.
    """

    heard: tuple[Heard, ...]
    bits: float | None = None

    @property
    def means(self) -> dict[str, float]:
        """Of each distance, over what was heard."""
        return {name: math.fsum(x.distances[name] for x in self.heard) / len(self.heard) for name in _NAMES}

    @property
    def metrics(self) -> dict[str, float]:
        """The numbers that a run records."""
        told = {f"held_out_{name}": value for name, value in self.means.items()}
        return told if self.bits is None else told | {"held_out_bits": self.bits}

    def text(self) -> str:
        """Returns the numbers that matter, for a person."""
        near = f"log-mel frames {self.means['mel']:.3f} and spectra {self.means['spectra']:.3f} from the recordings"
        return near if self.bits is None else f"{self.bits:.3f} bits a sample; {near}"


_NAMES = ("mel", "spectra")


def distances(made: Clip, true: Clip, front: LogMel) -> dict[str, float]:
    """Returns "mel", the mean absolute difference of log-mel frames, and "spectra", that of three resolutions.

    Of each resolution it is |S - S'| / |S| + the mean of |log S - log S'| (`models/speech/spectral_loss.py`).

    Raises:
        AudioError: clips of other lengths or rates, or too short for a frame.
    """
    if (len(made.samples), made.rate_hz) != (len(true.samples), true.rate_hz):
        raise AudioError(
            f"{len(made.samples)} samples at {made.rate_hz} Hz beside {len(true.samples)} at {true.rate_hz} Hz",
            remedy="Cut one to the length of the other.",
        )
    mel = float(np.abs(front.of(made) - front.of(true)).mean())
    return {"mel": mel, "spectra": math.fsum(_apart(made, true, stft) for stft in RESOLUTIONS) / len(RESOLUTIONS)}


def _apart(made: Clip, true: Clip, stft: Stft) -> float:
    ours, theirs = (np.maximum(_magnitudes(clip.samples, stft), LEAST) for clip in (made, true))
    relative = np.linalg.norm(theirs - ours) / np.linalg.norm(theirs)
    return float(relative + np.abs(np.log(theirs) - np.log(ours)).mean())


def _magnitudes(samples: Float32[np.ndarray, " N"], stft: Stft) -> Float32[np.ndarray, "T K"]:
    if len(samples) <= stft.margin:
        raise AudioError(f"{len(samples)} samples are too short", remedy=f"Give at least {stft.margin + 1}.")
    padded = np.pad(samples, stft.margin, mode="reflect")
    # Few lengths, few compilations.
    made = _compiled(stft)(np.pad(padded, (0, -len(padded) % 2**15)))
    return np.asarray(made)[: stft.frames(len(samples))]


@functools.lru_cache(maxsize=16)
def _compiled(stft: Stft) -> Callable[..., Any]:
    return jax.jit(lambda samples: jnp.abs(stft.within(samples)))


class VocoderEvaluator:
    """Scores a vocoder.

    Args:
        vocoder: what is scored.
        evaluation: how much.
        sounds: held out, by name; those too short for a spectrum are left out.
        kept: finds the vocoder's parameters among those of the run.
    """

    def __init__(
        self,
        vocoder: Vocoder,
        evaluation: VocoderEvaluation,
        sounds: Mapping[str, Sounding],
        kept: Callable[[Tree], Tree],
    ):
        self._vocoder, self._evaluation, self._kept = vocoder, evaluation, kept
        front = vocoder.front
        self._most = max(2, int(evaluation.most_seconds / front.frame_seconds))
        least = max(stft.margin for stft in (*RESOLUTIONS, front.stft)) + 1
        self._sounds = {name: x for name, x in sounds.items() if front.samples(len(x.features)) >= least}
        if not self._sounds:
            raise ConfigError(
                f"none of {len(sounds)} held-out recordings has {least} samples",
                where="data.held_out",
                remedy="Hold out more, such as data.held_out=0.1.",
            )

    def all(self, params: Tree) -> VocoderScore:
        """Returns the score over many recordings."""
        return self._over(params, self._evaluation.clips_at_end)

    def sample(self, params: Tree) -> VocoderScore:
        """Returns the score over a fixed sample of them."""
        return self._over(params, self._evaluation.clips)

    def _over(self, params: Tree, count: int) -> VocoderScore:
        alone = on_one_device(self._kept(params))
        return VocoderScore(tuple(self._heard(alone, name, sound) for name, sound in self._picked(count).items()))

    def _picked(self, count: int) -> dict[str, Sounding]:
        named = list(self._sounds.items())
        wanted = min(count, len(named))
        return dict(named[i * len(named) // wanted] for i in range(wanted))

    def _heard(self, params: Tree, name: str, sound: Sounding) -> Heard:
        made = self._vocoder.of(np.asarray(sound.features[: self._most]), params=params)
        true = Clip(np.asarray(sound.samples[: len(made.samples)], np.float32) / 2**15, made.rate_hz)
        made = Clip(made.samples[: len(true.samples)], made.rate_hz)
        return Heard(name, true, made, distances(made, true, self._vocoder.front))


class WaveNetEvaluation(VocoderEvaluation):
    """When and how held-out recordings are scored by a model that draws sample after sample.

    Args:
        clips: whose likelihood is scored during the run.
        clips_at_end: at its end.
        heard: how many of them are sounded.
        heard_seconds: how much of each is, from its start: sounding is slow.
    """

    heard: int = 2
    heard_seconds: float = 1.5

    def check(self) -> None:
        super().check()
        if self.heard < 1 or self.heard_seconds <= 0:
            raise ConfigError(
                f"heard={self.heard}, heard_seconds={self.heard_seconds}",
                where="heard",
                remedy="Use such as 2 and 1.5.",
            )


class WaveNetEvaluator(VocoderEvaluator):
    """Scores a WaveNet by the likelihood of recordings, and by what it sounds of some of them."""

    def __init__(
        self,
        vocoder: Vocoder,
        evaluation: WaveNetEvaluation,
        sounds: Mapping[str, Sounding],
        kept: Callable[[Tree], Tree],
        model: WaveNet,
    ):
        super().__init__(vocoder, evaluation, sounds, kept)
        self._model, self._nats = model, jax.jit(model.loss)
        self._heard_count, self._whole = evaluation.heard, self._most
        self._most = max(2, int(evaluation.heard_seconds / vocoder.front.frame_seconds))

    def _over(self, params: Tree, count: int) -> VocoderScore:
        alone = on_one_device(self._kept(params))
        nats, samples = zip(*(self._told(alone, sound) for sound in self._picked(count).values()), strict=True)
        bits = math.fsum(nats) / math.fsum(samples) / math.log(2)
        sounded = self._picked(min(count, self._heard_count)).items()
        return VocoderScore(tuple(self._heard(alone, name, sound) for name, sound in sounded), bits)

    def _told(self, params: Tree, sound: Sounding) -> tuple[float, float]:
        hop = self._model.hop
        frames = min(len(sound.features), len(sound.samples) // hop, self._whole)
        features = np.zeros((1, self._whole, sound.features.shape[1]), np.float32)
        samples = np.zeros((1, self._whole * hop), np.float32)
        features[0, :frames] = sound.features[:frames]
        samples[0, : frames * hop] = np.asarray(sound.samples[: frames * hop], np.float32) / 2**15
        lengths: Int[Array, " B"] = jnp.asarray([frames])
        nats, count = self._nats(params, _on_device(samples), _on_device(features), lengths)
        return float(nats), float(count)


def _on_device(array: Float[np.ndarray, "..."]) -> Float[Array, "..."]:
    return jnp.asarray(array)


class Shown(Hook):
    """Sends the sound of held-out recordings, and what the vocoder makes of them, to a sink.

    Args:
        sink: where to.
    """

    def __init__(self, sink: MediaSink):
        self._sink = sink
        self._heard: set[str] = set()

    def after_evaluation(self, step: int, score: Scored) -> None:
        """Shows the first few; the recordings once."""
        if not isinstance(score, VocoderScore):
            return
        for heard in score.heard[:SHOWN]:
            if heard.name not in self._heard:
                self._sink.audio(f"recording/{heard.name}", heard.true.samples, heard.true.rate_hz, step)
                self._heard.add(heard.name)
            self._sink.audio(f"vocoder/{heard.name}", _within(heard.made).samples, heard.made.rate_hz, step)


def keep_samples(folder: Path, score: VocoderScore) -> None:
    """Writes a few recordings as NAME-recording.wav, and what the vocoder makes of their frames as NAME.wav.

    Raises:
        TrainingError: the folder cannot be written.
    """
    try:
        folder.mkdir(exist_ok=True)
        for heard in score.heard[:KEPT]:
            write(_within(heard.made), folder / f"{heard.name}.wav")
            write(heard.true, folder / f"{heard.name}-recording.wav")
    except OSError as error:
        raise unwritable(folder, error) from None


def _within(clip: Clip) -> Clip:
    return clip.at_peak(1.0) if clip.peak > 1 else clip
