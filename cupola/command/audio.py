"""Models that hear or speak, as a server is given them.

Not here: the server (`serve.py`).
"""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

from cupola.command.options import CONSOLE, say
from cupola.command.voices import find_voice
from cupola.core.dtype import Precision
from cupola.interop.whisper import open_whisper
from cupola.models.speech.recognizer import Recognizer
from cupola.models.speech.synthesizer import Synthesizer
from cupola.serve.http import speech, transcriptions
from cupola.serve.http.skills import Skill, Skilled


@dataclasses.dataclass(frozen=True)
class Audio:
    """What hears and what speaks.

    Args:
        ears: models that hear.
        voices: models that speak.
    """

    ears: tuple[Recognizer, ...]
    voices: tuple[Synthesizer, ...]

    @property
    def names(self) -> list[str]:
        """What they are called."""
        return [*(each.name for each in self.ears), *(each.name for each in self.voices)]

    def warmed(self) -> dict[str, Any]:
        """Returns what `make_app` is given of them, when all is compiled."""
        for voice in self.voices:
            begun = time.perf_counter()
            with CONSOLE.status(f"compiling {voice.name}"):
                for _ in voice.warm():
                    pass
            parameters = f"{voice.voice.model.count() / 1e6:.1f}M parameters"
            say(f"{voice.name}: speaks, {parameters}, ready in {time.perf_counter() - begun:.1f} s")
        rows = transcriptions.routes(self.ears) if self.ears else []
        rows += speech.routes(self.voices) if self.voices else []
        now = int(time.time())
        skilled = [Skilled(each.name, Skill.HEARS, now) for each in self.ears]
        return {
            "endpoints": rows,
            "others": [*skilled, *(Skilled(each.name, Skill.SPEAKS, now) for each in self.voices)],
        }


def open_audio(hear: Sequence[str] | None, speak: Sequence[str] | None, precision: Precision) -> Audio:
    """Returns the models that a user named.

    Raises:
        CupolaError: one is not there, or cannot be read.
    """
    ears = tuple(open_whisper(each, precision=precision).ready() for each in hear or ())
    return Audio(ears, tuple(find_voice(each, precision=precision) for each in speak or ()))
