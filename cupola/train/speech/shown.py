"""What a run of a speaking model shows: where it looks, and how it sounds.

Sound is made by Griffin-Lim, of the model's frames and, beside them, of the recording's, so that what
is heard of the vocoder is not taken for the model. Invariant: it reads; it changes no number of the run.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np

from cupola import __version__
from cupola.config import text
from cupola.core.errors import AudioError
from cupola.data.audio.clip import Clip
from cupola.data.audio.features import LogMel
from cupola.data.audio.files import write
from cupola.data.audio.griffin_lim import GriffinLim
from cupola.observe.picture import heat
from cupola.observe.sinks import MediaSink
from cupola.train.experiment import Training
from cupola.train.folder import RunFolder, unwritable
from cupola.train.speech.evaluate import Sample, SpeechScore
from cupola.train.task import Hook, Scored

log = logging.getLogger(__name__)

SHOWN, KEPT = 4, 8
"""Sentences that go to TensorBoard at each score, and that a finished run keeps as files."""


class Shown(Hook):
    """Sends pictures of attention, and the sound of freely spoken held-out sentences, to a sink.

    Args:
        sink: where to.
        front: of the frames.
    """

    def __init__(self, sink: MediaSink, front: LogMel):
        self._sink, self._vocoder = sink, GriffinLim(front=front)
        self._heard: set[str] = set()

    def after_evaluation(self, step: int, score: Scored) -> None:
        """Shows the first few of the score's sentences; the recordings once."""
        if not isinstance(score, SpeechScore):
            return
        for sample in score.samples[:SHOWN]:
            self._sink.image(f"alignment/{sample.name}", alignment(sample), step)
            if sample.name not in self._heard:
                self._hear(f"recording/{sample.name}", sample.true, step)
                self._heard.add(sample.name)
            self._hear(f"spoken/{sample.name}", sample.utterance.features, step)

    def _hear(self, name: str, features: np.ndarray, step: int) -> None:
        try:
            clip = sound(self._vocoder, features)
        except AudioError as error:
            log.warning("%s: %s", name, error.problem)
            return
        self._sink.audio(name, clip.samples, clip.rate_hz, step)


def sound(vocoder: GriffinLim, features: np.ndarray) -> Clip:
    """Returns the sound of frames, quieter where it would be above full scale.

    Raises:
        AudioError: they are not finite, or too few for a sound.
    """
    if len(features) < 2:
        raise AudioError("it stopped at the first frame", remedy="Train longer.")
    clip = vocoder.of(features)
    return clip.at_peak(1.0) if clip.peak > 1 else clip


def alignment(sample: Sample) -> np.ndarray:
    """Returns a picture of where the decoder looked while it spoke."""
    ended = "stopped" if sample.utterance.stopped else "cut"
    title = f"{sample.name}: {sample.distortion_db:.2f} dB, {ended}"
    return heat(sample.utterance.weights.T, title=title, across="frame", up="symbol")


def keep_samples(folder: Path, score: SpeechScore, front: LogMel) -> None:
    """Writes a few sentences as they were spoken, NAME.wav, and of the recording's frames, NAME-recording.wav.

    Raises:
        TrainingError: the folder cannot be written.
    """
    vocoder = GriffinLim(front=front)
    try:
        folder.mkdir(exist_ok=True)
        for sample in score.samples[:KEPT]:
            for name, features in ((sample.name, sample.utterance.features), (f"{sample.name}-recording", sample.true)):
                try:
                    write(sound(vocoder, features), folder / f"{name}.wav")
                except AudioError as error:
                    log.warning("%s: %s", name, error.problem)
    except OSError as error:
        raise unwritable(folder, error) from None


def card(
    folder: RunFolder, experiment: Training, summary: dict[str, Any], score: SpeechScore, texts: dict[str, str]
) -> str:
    """Returns the model card: what the voice learned from, how good it is, how to use it."""
    s, spoken = summary, score.spoken
    rows = "\n".join(
        f"| {each.name} | {texts[each.name]} | {each.distortion_db:.2f} dB | "
        f"{'stopped' if each.utterance.stopped else 'cut'} |"
        for each in score.samples[:KEPT]
    )
    return f"""# {s["name"]}

A Tacotron 2 of {s["parameters"]:,} parameters, trained with Cupola {__version__}.

| | |
|---|--:|
| held-out sentences spoken freely that stop by themselves | {spoken["stopped"]:.0%} of {len(score.samples)} |
| mel-cepstral distortion of them, aligned in time | {spoken["distortion_db"]:.2f} dB |
| attention goes forwards | {spoken["monotonicity"]:.1%} of steps |
| attention near the diagonal | {spoken["diagonality"]:.1%} |
| held-out loss a frame, with the true frames at hand | {score.forced["loss"]:.4f} |
| squared error of a bin before the post-net, and after it | {score.forced["before"]:.4f}, {score.forced["after"]:.4f} |
| stops within 5 frames, with the true frames at hand | {score.forced["stop_accuracy"]:.1%} |
| training time | {s["seconds"]:.0f} s, {s["steps"]:,} steps |
| training frames | {s["frames"]:,} ({s["frames_per_second"]:,.0f} a second) |

Spoken freely: the decoder saw its own frames alone. These figures do not say how natural a voice is.

## Data

{s["speech"]["utterances"]:,} recordings of {s["speech"]["seconds"] / 60:.1f} minutes; {s["held_out_speech"]["utterances"]:,} more, of
{s["held_out_speech"]["seconds"] / 60:.1f} minutes, chosen by a hash of their names, were held out. The recordings' licence is that of the
voice: say it here before the voice is passed on.

## Samples

In samples/, by Griffin-Lim; NAME-recording.wav is the recording's own frames by the same way.

| recording | text | distortion | end |
|---|---|--:|---|
{rows}

## Use

    from cupola.data.audio.files import write
    from cupola.train.folder import RunFolder
    from cupola.train.speech.voice import load_voice

    voice, params = load_voice(RunFolder.open("{folder.path}"))
    write(voice.say(params, "The furnace is ready.").clip, "ready.wav")

## Machine

{chr(10).join(f"- {what}: {value}" for what, value in s["machine"].items())}

## Configuration

{chr(10).join("    " + line for line in text.show(experiment).splitlines())}
"""
