"""POST /v1/audio/speech: text to sound, sent while it is made.

Not here: the body (`speech_body.py`), how speech is made (`models/speech`), how sound is encoded (`data/audio`).
Invariant: a voice makes a few frames at a time, of whichever call; when a call ends, however it ends, nothing more
is made for it. What can be refused is refused before the first byte: later an answer can only break off.
"""

import asyncio
import base64
import contextlib
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from cupola.core.errors import TextError
from cupola.data.audio.streams import Encoder, encoder
from cupola.models.speech.synthesizer import Synthesizer
from cupola.models.speech.voice import Piece
from cupola.serve.errors import InvalidRequest
from cupola.serve.http.call import Call, Endpoint
from cupola.serve.http.errors import TimedOut
from cupola.serve.http.metrics import Metrics, Spoken
from cupola.serve.http.speech_body import Sending, SpeechBody, check_voice, read_speech_body
from cupola.serve.http.sse import EventStream, event
from cupola.serve.http.turns import Turn, by_object, find

_SPEAKING = 32
"""Texts that one voice speaks at the same time; more are refused."""


def routes(synthesizers: Iterable[Synthesizer]) -> list[Endpoint]:
    """Returns the rows of the table of routes for some voices: give them to `make_app` as `endpoints`."""
    return [Endpoint("POST", "/v1/audio/speech", _Handler(synthesizers))]


class _Speaker:
    """A voice and those who wait for it."""

    def __init__(self, synthesizer: Synthesizer):
        self.synthesizer = synthesizer
        self.turn = Turn(_SPEAKING, "texts are being spoken")


class _Handler:
    """Answers the calls."""

    def __init__(self, synthesizers: Iterable[Synthesizer]):
        self._speakers = by_object((each.name, _Speaker(each)) for each in synthesizers)

    async def __call__(self, call: Call) -> Response:
        body = read_speech_body(call)
        speaker = await find(call, self._speakers, body.model, "speaks")
        check_voice(body)
        speech = _Speech(speaker, body, call.service.metrics)
        sound = speech.sound(call.service.limits.request_seconds)
        try:
            first = await anext(sound)
        except BaseException:
            await sound.aclose()
            raise
        if body.stream_format is Sending.EVENTS:
            return EventStream(_events(first, sound, speech))
        return _Sound(first, sound, body.form.media_type)


class _Left(Exception):
    """Nobody waits for the sound any more."""


class _Speech:
    """One text that is spoken."""

    def __init__(self, speaker: _Speaker, body: SpeechBody, metrics: Metrics):
        self._speaker, self._body, self._metrics = speaker, body, metrics
        self._synthesizer = speaker.synthesizer.at(speed=body.speed)
        self._encoder: Encoder = encoder(body.form, self._synthesizer.rate_hz)
        self._left = threading.Event()
        self._pieces: Iterator[Piece] | None = None
        self._began = time.monotonic()
        self._first: float | None = None
        self.characters, self.frames, self.samples, self.cut = len(body.input), 0, 0, 0

    async def sound(self, seconds: float | None) -> AsyncGenerator[bytes, None]:
        """Yields bytes as early as they can be had, never none.

        Raises:
            Busy: too many texts are being spoken.
            CupolaError: the text cannot be spoken.
            TimedOut: it took too long.
        """
        try:
            async with asyncio.timeout(seconds), self._speaker.turn.place():
                more = True
                while more:
                    data, more = await self._speaker.turn.work(self._next, leave=self._left.set)
                    if data:
                        self._first = self._first or time.monotonic()
                        yield data
        except TimeoutError:
            raise TimedOut(
                f"the text was not spoken within {seconds:g} seconds", remedy="Send a shorter text."
            ) from None
        finally:
            self._left.set()
            self._tell()

    @property
    def audio_seconds(self) -> float:
        """How long the sound is."""
        return self.samples / self._synthesizer.rate_hz

    def _next(self) -> tuple[bytes, bool]:
        """Returns the bytes of a piece, and whether there are more; on a thread."""
        if self._pieces is None:
            self._pieces = self._begun()
        piece = next(self._pieces, None)
        if piece is None:
            return self._encoder.finish(), False
        self.samples += len(piece.samples)
        if piece.utterance is not None:
            self.frames += len(piece.utterance.features)
            self.cut += not piece.utterance.stopped
        return self._encoder.feed(piece.samples), True

    def _begun(self) -> Iterator[Piece]:
        synthesizer = self._synthesizer
        try:
            return synthesizer.voice.pieces(
                synthesizer.params, self._body.input, seed=self._body.seed or 0, between=self._check
            )
        except TextError as error:
            raise InvalidRequest(error.problem, where="input", remedy=error.remedy) from None

    def _check(self) -> None:
        if self._left.is_set():
            raise _Left

    def _tell(self) -> None:
        now = time.monotonic()
        first = None if self._first is None else self._first - self._began
        spoken = Spoken(first, now - self._began, self.audio_seconds, self.cut)
        self._metrics.spoke(self._synthesizer.name, spoken)


class _Sound(Response):
    """Sends bytes as they come; where they cannot go on, the answer breaks off, so that nobody takes it for whole."""

    def __init__(self, first: bytes, rest: AsyncGenerator[bytes, None], media_type: str):
        self._first, self._rest = first, rest
        self.status_code, self.media_type, self.background = 200, media_type, None
        self.init_headers({"cache-control": "no-cache", "x-accel-buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with contextlib.aclosing(self._rest):
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": self._first, "more_body": True})
            async for data in self._rest:
                await send({"type": "http.response.body", "body": data, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _events(first: bytes, rest: AsyncGenerator[bytes, None], speech: _Speech) -> AsyncIterator[bytes]:
    """Yields the sound in events, and one at the end that says how much it was."""
    async with contextlib.aclosing(rest):
        yield _delta(first)
        async for data in rest:
            yield _delta(data)
    usage = {"input_tokens": speech.characters, "output_tokens": speech.frames}
    usage["total_tokens"] = usage["input_tokens"] + usage["output_tokens"]
    yield event({"type": "speech.audio.done", "usage": usage, "seconds": speech.audio_seconds, "cut": speech.cut})


def _delta(data: bytes) -> bytes:
    return event({"type": "speech.audio.delta", "audio": base64.b64encode(data).decode()})
