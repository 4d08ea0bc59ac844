"""What is judged: the same sentences as they were recorded, copied by a vocoder, and spoken.

Not here: the judges (`judges.py`), the measures (`measure.py`). Invariant: a side has a clip for each sentence, in
their order; what a voice says was said freely, with the decoder seeing its own frames alone.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence

import numpy as np

from cupola.core.errors import AudioError, DataError
from cupola.data.audio.clip import Clip
from cupola.data.audio.griffin_lim import GriffinLim
from cupola.data.audio.prepared import Prepared
from cupola.data.audio.vocoder import Vocoder
from cupola.models.speech.generate import Utterance
from cupola.models.speech.synthesizer import Synthesizer

TIMED = 8
"""Sentences that are said once more for the real-time factor, when all is compiled."""


@dataclasses.dataclass(frozen=True, eq=False)
class Item:
    """A sentence.

    Args:
        text: as it is written.
        recording: of it; None: there is none.
    """

    text: str
    recording: Prepared | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Side:
    """A column of the table.

    Args:
        name: at its head.
        clips: one for each sentence.
        texts: that they are judged against.
        utterances: frames of each sentence's parts where a voice said them.
        compared: features of the recordings that they are compared with; None: there are none.
        real_time: seconds of work for each second of sound; None: nothing was made.
    """

    name: str
    clips: tuple[Clip, ...]
    texts: tuple[str, ...]
    utterances: tuple[tuple[Utterance, ...], ...] = ()
    compared: tuple[np.ndarray, ...] | None = None
    real_time: float | None = None

    def shuffled(self) -> "Side":
        """Returns the control: each clip against the next sentence, which it does not say."""

        def turned(held: tuple) -> tuple:
            return (*held[1:], *held[:1])

        compared = None if self.compared is None else turned(self.compared)
        return dataclasses.replace(
            self,
            name=f"{self.name}, texts shuffled",
            texts=turned(self.texts),
            compared=compared,
            utterances=(),
            real_time=None,
        )


def sides(synthesizer: Synthesizer, items: Sequence[Item], *, seed: int = 0, note: Callable[[str], None]) -> list[Side]:
    """Returns all sides; the last is the control.

    Args:
        items: two sentences or more, all with recordings or none.
        note: told what is being made.

    Raises:
        DataError: too few sentences, or all the same.
        CupolaError: a sentence that cannot be said.
    """
    if len({item.text for item in items}) < 2:
        raise DataError(
            "fewer than two different sentences",
            where="text",
            remedy="Give more: the control says each in another's place.",
        )
    voice = synthesizer.voice
    vocoders = {name_of(voice.vocoder): voice.vocoder}
    if not isinstance(voice.vocoder, GriffinLim):
        vocoders["Griffin-Lim"] = GriffinLim(front=voice.vocoder.front)
    made = _recorded(synthesizer, items, vocoders, note)
    spoken = [_said(synthesizer, items, name, vocoder, seed, note) for name, vocoder in vocoders.items()]
    return [*made, *spoken, spoken[0].shuffled()]


def name_of(vocoder: Vocoder) -> str:
    """Returns what a vocoder is called."""
    return "Griffin-Lim" if isinstance(vocoder, GriffinLim) else type(vocoder).__name__.removesuffix("Vocoder")


def _recorded(
    synthesizer: Synthesizer, items: Sequence[Item], vocoders: dict[str, Vocoder], note: Callable[[str], None]
) -> list[Side]:
    """The recordings, and what each vocoder makes of their frames."""
    recordings = [item.recording for item in items if item.recording is not None]
    if not recordings:
        return []
    texts, rate_hz = tuple(item.text for item in items), synthesizer.rate_hz
    features = tuple(np.asarray(each.features) for each in recordings)
    found = [Side("recording", tuple(each.clip(rate_hz) for each in recordings), texts, compared=features)]
    for name, vocoder in vocoders.items():
        note(f"copying {len(items)} recordings with {name}")
        params = synthesizer.params["vocoder"] if vocoder is synthesizer.voice.vocoder else {}
        clips = tuple(vocoder.of(each, params=params) for each in features)
        found.append(Side(f"copy, {name}", clips, texts, compared=features))
    return found


def _said(
    synthesizer: Synthesizer, items: Sequence[Item], name: str, vocoder: Vocoder, seed: int, note: Callable[[str], None]
) -> Side:
    note(f"saying {len(items)} sentences with {name}")
    own = vocoder is synthesizer.voice.vocoder
    voice = synthesizer.voice if own else synthesizer.voice.replace("vocoder", vocoder)
    params = synthesizer.params if own else synthesizer.params | {"vocoder": {}}
    clips, utterances, able = [], [], []
    for item in items:
        try:
            parts = list(voice.stream(params, item.text, seed=seed))
            clips.append(Clip(np.concatenate([part.clip.samples for part in parts]), synthesizer.rate_hz))
            utterances.append(tuple(part.utterance for part in parts))
            able.append(item)
        except AudioError as error:
            # What a voice cannot say is judged too: as silence.
            note(f"could not say {item.text!r}: {error.problem}")
            clips.append(Clip(np.zeros(synthesizer.rate_hz, np.float32), synthesizer.rate_hz))
            utterances.append(())
    began = time.perf_counter()
    seconds = sum(voice.say(params, item.text, seed=seed).clip.seconds for item in able[:TIMED])
    real_time = (time.perf_counter() - began) / seconds if able else None
    recordings = [item.recording for item in items]
    compared = tuple(np.asarray(each.features) for each in recordings if each is not None)
    return Side(
        name=f"ours, {name}",
        clips=tuple(clips),
        texts=tuple(item.text for item in items),
        utterances=tuple(utterances),
        compared=compared or None,
        real_time=real_time,
    )
