"""A model that speaks, with all that belongs to it: what files and runs give and what says a text.

Not here: speaking (`voice.py`), files (`interop/voice.py`).
"""

import dataclasses
from collections.abc import Iterator

import jax
import numpy as np

from cupola.config.diff import diff, text
from cupola.config.value import Value
from cupola.core.dtype import Precision
from cupola.core.errors import ConfigError
from cupola.core.module import Tree
from cupola.data.audio.vocoder import Vocoder
from cupola.data.spoken.symbols import END
from cupola.models.speech.generate import stream
from cupola.models.speech.voice import Voice


class Card(Value):
    """What is to be known of a voice before it is used.

    Args:
        licence: of the parameters, such as "CC0-1.0".
        data: what it was trained on, whose it is, and under which licence.
        language: a code, such as "en".
        about: what else is to be said: how it was made, what it is not for.
        figures: names and values of what was measured, such as ("word error rate, %", "4.1").
    """

    licence: str
    data: str
    language: str = "en"
    about: str = ""
    figures: tuple[tuple[str, str], ...] = ()

    def check(self) -> None:
        for name in ("licence", "data", "language"):
            if not getattr(self, name).strip():
                raise ConfigError("is empty", where=name, remedy="Say it, or say that it is not known.")


@dataclasses.dataclass(frozen=True, eq=False)
class Synthesizer:
    """A voice with its parameters.

    Args:
        name: under which it was asked for.
        voice: how it speaks.
        params: in the form of `voice.specs()`.
        card: what is to be known of it; None: nobody wrote one.
    """

    name: str
    voice: Voice
    params: Tree
    card: Card | None = None

    @property
    def rate_hz(self) -> int:
        """Samples a second of what it says."""
        return self.voice.vocoder.front.rate_hz

    def at(self, *, speed: float | None = None, precision: Precision | None = None) -> "Synthesizer":
        """Returns it with another speed, or with products of another format.

        Raises:
            ConfigError: the speed is too high or too low.
        """
        voice = self.voice
        if speed is not None:
            voice = voice.replace("speed", speed)
        if precision is not None:
            voice = voice.replace("model.precision", precision)
        return dataclasses.replace(self, voice=voice)

    def with_vocoder(self, vocoder: Vocoder, params: Tree) -> "Synthesizer":
        """Returns it with another vocoder and its parameters.

        Raises:
            ConfigError: it was taught with another front end.
        """
        if vocoder.front != self.voice.vocoder.front:
            raise ConfigError(
                f"the vocoder's front end is another one:\n{text(diff(self.voice.vocoder.front, vocoder.front))}",
                where="vocoder",
                remedy="Train it with the front end of the voice.",
            )
        voice = self.voice.replace("vocoder", vocoder)
        return dataclasses.replace(self, voice=voice, params=self.params | {"vocoder": params})

    def with_card(self, card: Card) -> "Synthesizer":
        """Returns it with another card."""
        return dataclasses.replace(self, card=card)

    def warm(self) -> Iterator[int]:
        """Compiles what speaking needs, so that nobody waits for it; yields each length of text, in symbols."""
        voice = self.voice
        # A chunk of each length has the shapes of all others.
        short = voice.speaking.replace("most_frames", 2 * voice.speaking.chunk_frames)
        for length in range(_STEP, voice.most_characters + _STEP, _STEP):
            symbols = np.full(length, END, np.int32)
            chunks = stream(voice.model, self.params["model"], symbols, key=jax.random.key(0), speaking=short)
            frames = [chunk.features for chunk in chunks]
            if length == _STEP:
                list(voice.vocoder.stream(iter(frames), params=self.params["vocoder"]))
            yield length


_STEP = 32
"""Texts are padded to multiples of so many symbols (`generate.py`)."""
