"""POST /v1/audio/transcriptions and /v1/audio/translations: recordings to text.

Not here: the form (`form.py`, `audio_body.py`), how speech is heard (`models/speech`).
Invariant: each recognizer listens to one window at a time, of whichever call; between windows a call
that was left or took too long ends.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from typing import Any

import orjson
from starlette.responses import Response

from cupola.core.errors import AudioError
from cupola.data.audio.clip import Clip
from cupola.data.audio.files import decode
from cupola.models.speech.recognizer import Recognizer
from cupola.models.speech.transcribe import follow
from cupola.models.speech.transcript import Format, Transcript
from cupola.models.speech.whisper_tokens import Task
from cupola.serve.errors import Busy
from cupola.serve.http.audio_body import AudioBody, Reply, read_audio_body
from cupola.serve.http.call import Call, Endpoint
from cupola.serve.http.errors import TimedOut
from cupola.serve.http.form import read_form
from cupola.serve.http.turns import Turn, by_object, find

_WAITING = 64
"""Recordings that wait for one recognizer; more are refused."""
_LONGEST_SECONDS = 4 * 3600.0
_HELD_SECONDS = 8 * 3600.0
"""Of decoded recordings that one recognizer keeps in memory at the same time; with more, more are refused."""
_PLAIN = "text/plain; charset=utf-8"
_MEDIA = {Reply.TEXT: _PLAIN, Reply.SRT: _PLAIN, Reply.VTT: "text/vtt; charset=utf-8"}


def routes(recognizers: Iterable[Recognizer]) -> list[Endpoint]:
    """Returns the rows of the table of routes for some recognizers: give them to `make_app` as `endpoints`."""
    handlers = _Handlers(recognizers)
    return [
        Endpoint("POST", "/v1/audio/transcriptions", handlers.transcribe),
        Endpoint("POST", "/v1/audio/translations", handlers.translate),
    ]


class _Listener:
    """A recognizer and those who wait for it."""

    def __init__(self, recognizer: Recognizer):
        self.recognizer = recognizer
        self.turn = Turn(_WAITING, "recordings are being listened to")
        self._decoding, self._held_seconds = asyncio.Lock(), 0.0

    @contextlib.asynccontextmanager
    async def decoded(self, body: AudioBody) -> AsyncIterator[Clip]:
        """Gives the sound of a recording; one at a time is decoded, and what all keep is bounded.

        Raises:
            AudioError: there is none, or too much.
            Busy: too much is kept already.
        """
        async with self._decoding:
            clip = await asyncio.to_thread(_clip, body)
        if self._held_seconds and self._held_seconds + clip.seconds > _HELD_SECONDS:
            raise Busy(
                f"recordings of {self._held_seconds / 3600:.1f} hours are being listened to",
                remedy="Send it again later.",
                retry_after_seconds=60,
            )
        self._held_seconds += clip.seconds
        try:
            yield clip
        finally:
            self._held_seconds -= clip.seconds


class _Handlers:
    """Answers the calls."""

    def __init__(self, recognizers: Iterable[Recognizer]):
        self._listeners = by_object((each.name, _Listener(each)) for each in recognizers)

    async def transcribe(self, call: Call) -> Response:
        """Gives the words of a recording."""
        return await self._answer(call, Task.TRANSCRIBE)

    async def translate(self, call: Call) -> Response:
        """Gives the words of a recording in English."""
        return await self._answer(call, Task.TRANSLATE)

    async def _answer(self, call: Call, task: Task) -> Response:
        form = await asyncio.to_thread(read_form, call.body, call.http.headers.get("content-type", ""))
        body = read_audio_body(form, task)
        listener = await find(call, self._listeners, body.model, "hears")
        seconds = call.service.limits.request_seconds
        try:
            async with asyncio.timeout(seconds), listener.turn.place(), listener.decoded(body) as clip:
                transcript = await _heard(listener, clip, body)
        except TimeoutError:
            raise TimedOut(
                f"the text was not found within {seconds:g} seconds", remedy="Send a shorter recording."
            ) from None
        return _response(transcript, body.reply)


def _clip(body: AudioBody) -> Clip:
    try:
        raw_g722 = body.file.name.lower().endswith(".g722")
        clip = decode(body.file.data, raw_g722=raw_g722, most_seconds=_LONGEST_SECONDS)
        clip.check_sound()
    except AudioError as error:
        raise error.under("file") from None
    return clip


async def _heard(listener: _Listener, clip: Clip, body: AudioBody) -> Transcript:
    windows = follow(listener.recognizer, clip, body.listening)
    transcript = None
    while (found := await listener.turn.work(lambda: next(windows, None))) is not None:
        transcript = found
    if transcript is None:
        raise RuntimeError("a recording has no window")
    return transcript


def _response(transcript: Transcript, reply: Reply) -> Response:
    match reply:
        case Reply.TEXT:
            return Response(f"{transcript.text}\n", media_type=_PLAIN)
        case Reply.SRT | Reply.VTT:
            return Response(Format(reply.value).write(transcript), media_type=_MEDIA[reply])
    seconds = transcript.duration_seconds
    told: dict[str, Any] = {"text": transcript.text, "usage": {"type": "duration", "seconds": round(seconds)}}
    if reply is Reply.VERBOSE_JSON:
        told |= {"task": transcript.task.value, "language": transcript.language, "duration": seconds}
        told["segments"] = [
            {
                "id": number,
                "seek": round(100 * each.window),
                "start": each.start,
                "end": each.end,
                "text": each.text,
                "tokens": each.tokens,
                "temperature": each.temperature,
                "avg_logprob": each.average_log_prob,
                "compression_ratio": each.compression_ratio,
                "no_speech_prob": each.no_speech,
            }
            for number, each in enumerate(transcript.segments)
        ]
    return Response(orjson.dumps(told), media_type="application/json")
