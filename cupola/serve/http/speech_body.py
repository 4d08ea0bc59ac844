"""What a client asks to be said: the body of /v1/audio/speech.

Not here: speaking (`speech.py`).
"""

import enum
from typing import Any

import msgspec

from cupola.data.audio.streams import Streaming
from cupola.models.speech.pace import FASTEST, SLOWEST
from cupola.serve.errors import InvalidRequest
from cupola.serve.http.call import Call

DEFAULT = "default"
"""A name that every model's voice has."""


class Sending(enum.Enum):
    """How sound comes."""

    AUDIO = "audio"
    """As the bytes of a file."""
    EVENTS = "sse"
    """In events, base64."""


class VoiceName(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A voice as the object that OpenAI's API also takes."""

    id: str


class SpeechBody(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A request for sound; the fields are OpenAI's, and `seed`."""

    model: str
    input: str
    voice: str | VoiceName
    response_format: Streaming | None = None
    speed: float | None = None
    stream_format: Sending | None = None
    seed: int | None = None
    user: Any = None

    @property
    def form(self) -> Streaming:
        """In which form it is sent."""
        return self.response_format or Streaming.MP3

    @property
    def voice_name(self) -> str:
        """The voice that is asked for."""
        return self.voice if isinstance(self.voice, str) else self.voice.id


_REFUSED = {"instructions": "a voice reads in the way that it was taught"}


def read_speech_body(call: Call) -> SpeechBody:
    """Returns what a body asks for.

    Raises:
        InvalidRequest: something is missing, unknown or impossible.
    """
    body = call.parse(SpeechBody, _REFUSED)
    most = call.service.limits.speech_characters
    if len(body.input) > most:
        raise InvalidRequest(
            f"the input has {len(body.input)} characters", where="input", remedy=f"Send up to {most} at once."
        )
    if body.speed is not None and not SLOWEST <= body.speed <= FASTEST:
        raise InvalidRequest(
            f"the speed is {body.speed:g}", where="speed", remedy=f"Send a number from {SLOWEST} to {FASTEST}."
        )
    if body.seed is not None and not 0 <= body.seed < 2**31:
        raise InvalidRequest(f"the seed is {body.seed}", where="seed", remedy="Send one from 0 to 2147483647.")
    return body


def check_voice(body: SpeechBody) -> None:
    """Checks that the model has the voice that is asked for: a model has one, of its own name.

    Raises:
        InvalidRequest: it has not.
    """
    if body.voice_name not in (body.model, DEFAULT):
        raise InvalidRequest(
            f"{body.model} has no voice {body.voice_name[:100]!r}",
            where="voice",
            remedy=f"Send {body.model} or {DEFAULT}.",
        )
