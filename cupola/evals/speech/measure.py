"""The measures of speech, one row each, over sides that say the same.

Not here: what is judged (`sides.py`), how the table is printed (`command/`). Invariant: a measure that a side
cannot have is None there, and a judge that is not here has its row all the same, without numbers.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import jax.numpy as jnp
import numpy as np

from cupola.core.errors import AudioError
from cupola.data.audio.batches import Example
from cupola.data.audio.clip import Clip
from cupola.data.audio.distortion import mel_cepstral_distortion
from cupola.data.audio.features import LogMel
from cupola.evals.speech.judges import Listener, Rater
from cupola.evals.speech.sides import Item, Side
from cupola.evals.speech.words import word_errors
from cupola.models.speech.alignment import monotonicity
from cupola.models.speech.generate import Utterance
from cupola.models.speech.loss import Objective
from cupola.models.speech.synthesizer import Synthesizer
from cupola.train.speech.evaluate import NEAR_FRAMES, SpeechEvaluation, SpeechEvaluator

BAD_PERCENT = 50.0
"""Fewer word errors than these in sentences that were not said: such a judge hears what it expects."""


@dataclasses.dataclass(frozen=True)
class Row:
    """A measure of each side.

    Args:
        name: with its unit.
        values: one for each side; None: it has none.
        digits: behind the point, when it is printed.
    """

    name: str
    values: tuple[float | None, ...]
    digits: int = 1


def measure(
    sides: Sequence[Side],
    front: LogMel,
    listeners: Sequence[Listener],
    raters: Sequence[Rater],
    forced: Mapping[str, float] | None = None,
) -> list[Row]:
    """Returns all measures.

    Args:
        sides: the columns.
        front: of the voice, in whose features distortion is measured.
        listeners, raters: the judges that are here.
        forced: as `forced` returns it; None: there are no recordings.
    """
    rows = [
        Row(
            f"word errors by {listener.name}, %",
            tuple(word_errors(listener.hear(side.clips), side.texts).percent for side in sides),
        )
        for listener in listeners
    ]
    rows.append(Row("mel-cepstral distortion, dB", tuple(_distortion(side, front) for side in sides), digits=2))
    for rater in raters:
        rated = [rater.rate(side.clips) for side in sides]
        rows += [
            Row(f"{rater.name}, {name}, 1 to 5", tuple(each[name] for each in rated), digits=2) for name in rated[0]
        ]
    rows.append(Row("stopped by itself, %", tuple(_mean(side, _stopped) for side in sides)))
    if forced is not None:
        right = 100 * forced["stop_accuracy"]
        name = f"stop within {NEAR_FRAMES} frames of the true one, recording at hand, %"
        rows.append(Row(name, tuple(right if side.utterances else None for side in sides)))
    rows.append(Row("attention monotonic, %", tuple(_mean(side, _monotonic) for side in sides)))
    rows.append(Row("real-time factor", tuple(side.real_time for side in sides), digits=3))
    return rows


def forced(synthesizer: Synthesizer, items: Sequence[Item]) -> dict[str, float] | None:
    """Returns what the model makes of the recordings with the true frames at hand; None where there are none.

    Raises:
        TextError: a text holds a character that is no symbol.
    """
    voice = synthesizer.voice
    examples = {
        str(number): Example(voice.symbols.encode(voice.language(item.text)), item.recording)
        for number, item in enumerate(items)
        if item.recording is not None
    }
    if not examples:
        return None
    evaluation = SpeechEvaluation(spoken_at_end=1)
    evaluator = SpeechEvaluator(voice.model, Objective(), evaluation, voice.speaking, voice.vocoder.front, examples)
    return evaluator.all(synthesizer.params["model"]).forced


def distrusted(rows: Sequence[Row]) -> list[str]:
    """Returns the names of the judges who hear a text, in the last side, that was not said."""
    return [row.name for row in rows if row.name.startswith("word errors") and (row.values[-1] or 0) < BAD_PERCENT]


def _distortion(side: Side, front: LogMel) -> float | None:
    """Mean over the clips, whose features are found from their sound; that of a recording from itself is none."""
    if side.compared is None or side.name == "recording":
        return None
    far = [_far(clip, wanted, front) for clip, wanted in zip(side.clips, side.compared, strict=True)]
    return math.fsum(far) / len(far)


def _far(clip: Clip, wanted: np.ndarray, front: LogMel) -> float:
    try:
        features = front.of(clip)
    except AudioError:
        return math.inf
    return mel_cepstral_distortion(features, wanted, front)


def _mean(side: Side, one: Callable[[Utterance], float]) -> float | None:
    if not side.utterances:
        return None
    # Of a sentence that could not be said, nothing stopped and nothing went on.
    values = [one(utterance) for parts in side.utterances for utterance in parts]
    values += [0.0 for parts in side.utterances if not parts]
    return 100 * math.fsum(values) / len(values)


def _stopped(utterance: Utterance) -> float:
    return float(utterance.stopped)


def _monotonic(utterance: Utterance) -> float:
    frames = jnp.asarray([len(utterance.weights)])
    return float(monotonicity(jnp.asarray(utterance.weights)[None], frames)[0])
