import asyncio
import dataclasses
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import openai
import pytest

from cupola.data.audio.clip import Clip
from cupola.data.audio.files import Encoding, encode
from cupola.models.speech.listening import Listening
from cupola.models.speech.transcribe import transcribe
from cupola.models.speech.whisper_tokens import Task
from cupola.serve.errors import Forbidden
from cupola.serve.http import transcriptions
from cupola.serve.http.guard import Caller
from cupola.serve.http.limits import Limits

sys.path.insert(0, str(Path(__file__).parents[2] / "models" / "speech"))

import small_whisper


@pytest.fixture(scope="module")
def recognizer(tmp_path_factory):
    made = small_whisper.make_recognizer(small_whisper.make_tokens(tmp_path_factory.mktemp("tokens")))
    return dataclasses.replace(made, name="ear")


@pytest.fixture(scope="module")
def clip():
    return small_whisper.make_clips()[0]


@pytest.fixture(scope="module")
def wav(clip):
    return encode(clip, Encoding.WAV_FLOAT)


@pytest.fixture
def start(run, recognizer):
    return lambda **options: run(endpoints=transcriptions.routes([recognizer]), **options)


# The client calls its own method for translations deprecated; the endpoint is not.
@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
def test_the_official_client(start, recognizer, clip, wav):
    audio = start().client().audio
    expected = transcribe(recognizer, clip, Listening(language="en", temperatures=(0.2,)))
    given = {"model": "ear", "file": ("talk.wav", wav), "language": "en", "temperature": 0.2}
    answer = audio.transcriptions.create(**given)
    assert answer.text == expected.text
    verbose = audio.transcriptions.create(**given, response_format="verbose_json", timestamp_granularities=["segment"])
    assert (verbose.text, verbose.language, verbose.duration) == (expected.text, "en", clip.seconds)
    assert [(s.start, s.end, s.text, tuple(s.tokens)) for s in verbose.segments] == [
        (s.start, s.end, s.text, s.tokens) for s in expected.segments
    ]
    assert verbose.segments[0].temperature == 0.2
    texts = {form: audio.transcriptions.create(**given, response_format=form) for form in ("text", "srt", "vtt")}
    assert texts["text"] == f"{expected.text}\n"
    assert texts["srt"].startswith("1\n00:00:00,000 --> ")
    assert texts["vtt"].startswith("WEBVTT\n\n00:00:00.000 --> ")
    # The controls: another language and another task are other texts.
    translated = audio.translations.create(model="ear", file=("talk.wav", wav), temperature=0.2)
    listening = Listening(task=Task.TRANSLATE, temperatures=(0.2,))
    assert translated.text == transcribe(recognizer, clip, listening).text != expected.text


def test_a_large_recording_is_no_json(start, clip):
    long = Clip(np.tile(clip.samples, 8), clip.rate_hz)
    data = encode(long, Encoding.WAV_FLOAT)
    assert len(data) > 65_536
    given = {"model": "ear", "file": ("talk.wav", data), "language": "en", "temperature": 0.2}
    assert start().client().audio.transcriptions.create(**given, response_format="verbose_json").duration > 2


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"model": None}, "model is missing"),
        ({"language": "xx"}, "'xx' is no language"),
        ({"temperature": "2"}, "from 0 to 1"),
        ({"temperature": "hot"}, "from 0 to 1"),
        ({"response_format": "jsn"}, "json"),
        ({"timestamp_granularities[]": "word"}, "times of each word"),
        ({"stream": "true"}, "sent whole"),
        ({"chunking_strategy": "auto"}, "chunking_strategy is not supported"),
        ({"langage": "en"}, "language"),
        ({"prompt": "x" * 5000}, "5000 characters"),
    ],
)
def test_what_cannot_be_honoured_is_refused(start, wav, changes, match):
    fields = {"model": "ear"} | changes
    data = {name: value for name, value in fields.items() if value is not None}
    answer = start().http.post("/v1/audio/transcriptions", data=data, files={"file": ("a.wav", wav)})
    assert answer.status_code == 400
    assert match in answer.json()["error"]["message"]


def test_a_translation_is_into_english_alone(start, wav):
    given = {"data": {"model": "ear", "language": "de"}, "files": {"file": ("a.wav", wav)}}
    answer = start().http.post("/v1/audio/translations", **given)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "language")


def test_recordings_that_are_none(start, wav):
    client = start().client()
    silence = encode(Clip(np.zeros(8000, np.float32), 16_000), Encoding.WAV)
    for data, match in ((b"no sound", "no sound that can be read"), (b"", "empty"), (silence, "of silence")):
        with pytest.raises(openai.BadRequestError, match=match):
            client.audio.transcriptions.create(model="ear", file=("talk.wav", data))
    server = start()
    assert server.http.post("/v1/audio/transcriptions", data={"model": "ear"}, files={"x": wav}).status_code == 400
    answer = server.post("/v1/audio/transcriptions", {"model": "ear"})
    assert answer.status_code == 415


def test_names_that_do_not_hear(start, wav):
    for name in ("eer", "bell"):
        with pytest.raises(openai.NotFoundError, match="no model '(eer|bell)' that hears"):
            start().client().audio.transcriptions.create(model=name, file=("a.wav", wav))


class Deaf:
    """Lets nobody listen; who is not Ada does not even know of it."""

    async def authenticate(self, credentials):
        return Caller(credentials or "anyone", "")

    async def check(self, caller, action, object):
        raise Forbidden(f"{caller.name} may not {action.value} with {object}")

    async def visible(self, caller, objects):
        return [each for each in objects if caller.name == "ada"]


def test_the_guard_is_asked(start, wav):
    server = start(guard=Deaf())
    with pytest.raises(openai.PermissionDeniedError, match="may not generate with model:ear"):
        server.client("ada").audio.transcriptions.create(model="ear", file=("a.wav", wav))
    with pytest.raises(openai.NotFoundError, match="no model 'ear' that hears"):
        server.client("eve").audio.transcriptions.create(model="ear", file=("a.wav", wav))


def test_limits(start, wav, monkeypatch):
    given = {"model": "ear", "file": ("a.wav", wav), "language": "en"}
    with pytest.raises(openai.APIStatusError, match="larger than 1000 bytes"):
        start(limits=Limits(body_bytes=1000)).client().audio.transcriptions.create(**given)
    with pytest.raises(openai.InternalServerError, match="within 1e-05 seconds"):
        start(limits=Limits(request_seconds=1e-5)).client().audio.transcriptions.create(**given)
    monkeypatch.setattr(transcriptions, "_LONGEST_SECONDS", 0.1)
    with pytest.raises(openai.BadRequestError, match="Send at most 0.1 seconds") as refused:
        start().client().audio.transcriptions.create(**given)
    assert refused.value.param == "file"
    monkeypatch.setattr(transcriptions, "_WAITING", 0)
    with pytest.raises(openai.RateLimitError, match="are being listened to"):
        start().client().audio.transcriptions.create(**given)


def test_what_is_kept_in_memory_is_bounded(start, wav, monkeypatch):
    monkeypatch.setattr(transcriptions, "_HELD_SECONDS", 0.5)
    client = start().client()
    given = {"model": "ear", "file": ("a.wav", wav), "language": "en"}
    asking = threading.Event()
    inner = transcriptions._heard

    async def slowly(listener, clip, body):
        asking.set()
        await asyncio.sleep(0.5)
        return await inner(listener, clip, body)

    monkeypatch.setattr(transcriptions, "_heard", slowly)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.audio.transcriptions.create, **given)
        assert asking.wait(10)
        with pytest.raises(openai.RateLimitError, match="hours are being listened to"):
            client.audio.transcriptions.create(**given)
        assert first.result().text is not None
    assert client.audio.transcriptions.create(**given).text is not None
