"""Text to sound over HTTP: OpenAI's client unchanged, sound before the text is spoken, nothing made for nobody."""

import base64
import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import numpy as np
import openai
import pytest

from cupola.data.audio.files import decode
from cupola.data.audio.griffin_lim import GriffinLim
from cupola.data.audio.streams import PCM_RATE_HZ
from cupola.models.speech import voice as voices
from cupola.models.speech.generate import Speaking
from cupola.serve.errors import Forbidden
from cupola.serve.http import speech
from cupola.serve.http.guard import Caller
from cupola.serve.http.limits import Limits
from cupola.serve.http.skills import Skill, Skilled

sys.path.insert(0, str(Path(__file__).parents[2] / "interop"))

import spoken

TEXT = "One. Two."


@pytest.fixture(scope="module")
def crier():
    return spoken.make_synthesizer()


@pytest.fixture
def start(run, crier):
    def started(synthesizer=crier, **options):
        listed = [Skilled(synthesizer.name, Skill.SPEAKS, 5)]
        return run(endpoints=speech.routes([synthesizer]), others=listed, **options)

    return started


def wanted(crier, text=TEXT, **options):
    return np.clip(crier.voice.say(crier.params, text, **options).clip.samples, -1, 1)


def test_the_official_client(start, crier):
    create = start().client().audio.speech.create
    given = {"model": "crier", "voice": "crier", "input": TEXT}
    for form in ("wav", "flac"):
        clip = decode(create(**given, response_format=form).content)
        assert clip.rate_hz == spoken.RATE
        np.testing.assert_allclose(clip.samples, wanted(crier), atol=2**-14)
    for form in ("mp3", "opus", "aac"):
        clip = decode(create(**given, response_format=form).content)
        assert abs(clip.seconds - len(wanted(crier)) / spoken.RATE) < 0.25
    pcm = np.frombuffer(create(**given, response_format="pcm").content, "<i2")
    assert abs(len(pcm) / PCM_RATE_HZ - len(wanted(crier)) / spoken.RATE) < 0.01
    # The controls: another seed, and another speed.
    other = decode(create(**given, response_format="wav", extra_body={"seed": 3}).content)
    np.testing.assert_allclose(other.samples, wanted(crier, seed=3), atol=2**-14)
    assert (other.samples != wanted(crier)).any()
    assert decode(create(**given, response_format="wav", speed=2.0).content).seconds < 0.65 * other.seconds
    assert create(**given).response.headers["content-type"] == "audio/mpeg"
    assert create(model="crier", voice={"id": "default"}, input=TEXT).content


def test_the_official_client_streams(start, crier, tmp_path):
    given = {"model": "crier", "voice": "default", "input": TEXT, "response_format": "wav"}
    client = start().client()
    with client.audio.speech.with_streaming_response.create(**given) as answer:
        assert answer.headers["content-type"] == "audio/wav"
        parts = list(answer.iter_bytes())
    np.testing.assert_allclose(decode(b"".join(parts)).samples, wanted(crier), atol=2**-14)
    with client.audio.speech.with_streaming_response.create(**given) as answer:
        answer.stream_to_file(tmp_path / "said.wav")
    assert (tmp_path / "said.wav").read_bytes() == b"".join(parts)


def test_events(start, crier):
    body = {"model": "crier", "voice": "crier", "input": TEXT, "response_format": "wav", "stream_format": "sse"}
    answer = start().post("/v1/audio/speech", body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    told = [json.loads(line.removeprefix("data: ")) for line in answer.text.split("\n\n") if line]
    assert {each["type"] for each in told[:-1]} == {"speech.audio.delta"}
    data = b"".join(base64.b64decode(each["audio"]) for each in told[:-1])
    np.testing.assert_allclose(decode(data).samples, wanted(crier), atol=2**-14)
    assert told[-1]["type"] == "speech.audio.done"
    assert told[-1]["usage"] == {"input_tokens": 9, "output_tokens": 80, "total_tokens": 89}
    assert told[-1]["cut"] == 2


class Stepwise(GriffinLim):
    """A vocoder that streams, a chunk for each permit."""

    def stream(self, features, *, params, seed=0):
        for some in features:
            assert permits.acquire(timeout=10)
            made.append(len(some))
            yield np.repeat(np.tanh(some.mean(1)), spoken.HOP).astype(np.float32)


permits, made = threading.Semaphore(0), []


@pytest.fixture
def stepwise():
    made.clear()
    while permits.acquire(blocking=False):
        pass
    yield spoken.make_synthesizer(vocoder=Stepwise(front=spoken.FRONT))
    permits.release(10_000)


def test_sound_comes_before_the_sentence_is_ready(start, stepwise):
    server = start(stepwise)
    given = {"model": "crier", "voice": "crier", "input": "One.", "response_format": "wav"}
    permits.release()
    with server.client().audio.speech.with_streaming_response.create(**given) as answer:
        parts = answer.iter_bytes()
        assert len(next(parts)) > 44  # more than the head
        assert len(made) == 1
        permits.release(10)
        assert b"".join(parts)
    assert sum(made) == 40


def test_a_client_that_goes_ends_the_work(start, stepwise, until):
    server = start(stepwise)
    body = {"model": "crier", "voice": "crier", "input": "One. " * 200, "response_format": "pcm"}
    permits.release(20)
    with server.raw("/v1/audio/speech", body) as client:
        assert client.recv(4096)
    # What is worked on ends; nothing else is begun.
    permits.release(1000)
    until(lambda: not server.service.calls)
    count = len(made)
    time.sleep(0.2)
    assert len(made) == count < 900
    # Whoever comes next is served.
    assert server.client().audio.speech.create(model="crier", voice="crier", input="One.").content


def test_frames_for_nobody_are_not_made(start, until, monkeypatch):
    """The vocoder needs the whole sentence, so that no sound comes between the frames."""
    endless = spoken.make_synthesizer(speaking=Speaking(most_frames=4000, chunk_frames=8))
    begun, inner = [], voices.spoken_frames

    def counted(*args, **options):
        for some in inner(*args, **options):
            begun.append(1)
            time.sleep(0.01)
            yield some

    monkeypatch.setattr(voices, "spoken_frames", counted)
    server = start(endless)
    body = {"model": "crier", "voice": "crier", "input": "One.", "response_format": "pcm"}
    with server.raw("/v1/audio/speech", body):
        until(lambda: len(begun) > 3)
    until(lambda: not server.service.calls)
    assert len(begun) < 250
    # What was begun has ended before the call has: nothing more is made.
    count = len(begun)
    time.sleep(0.1)
    assert len(begun) == count


def test_calls_take_turns(start, stepwise):
    server = start(stepwise)
    given = {"model": "crier", "voice": "crier", "response_format": "wav"}
    create, client = server.client().audio.speech.create, server.client().audio.speech
    permits.release()
    with client.with_streaming_response.create(input="One. " * 100, **given) as answer, ThreadPoolExecutor(1) as pool:
        parts = answer.iter_bytes()
        assert next(parts)
        short = pool.submit(create, input="Two.", **given)
        while not short.done():
            permits.release()
            time.sleep(0.01)
        assert short.result().content
        assert len(made) < 250  # of 500 that the long one needs
        permits.release(10_000)


@pytest.mark.parametrize(
    ("changes", "match", "param"),
    [
        ({"model": None}, "model is missing", "model"),
        ({"input": None}, "input is missing", "input"),
        ({"voice": None}, "voice is missing", "voice"),
        ({"input": ""}, "the text is empty", "input"),
        ({"input": "日本"}, "no symbol of this voice", "input"),
        ({"input": "x" * 5000}, "5000 characters\nSend up to 4096", "input"),
        ({"input": 5}, "expected string", "input"),
        ({"voice": "alloy"}, "has no voice 'alloy'\nSend crier or default", "voice"),
        ({"response_format": "midi"}, "midi", "response_format"),
        ({"speed": 5}, "the speed is 5\nSend a number from 0.25 to 4", "speed"),
        ({"stream_format": "chunks"}, "chunks", "stream_format"),
        ({"instructions": "whisper"}, "instructions is not supported", "instructions"),
        ({"sped": 1}, "Did you mean 'speed'", "sped"),
        ({"seed": -1}, "the seed is -1", "seed"),
    ],
)
def test_what_cannot_be_honoured_is_refused(start, changes, match, param):
    body = {"model": "crier", "voice": "crier", "input": "One."} | changes
    body = {name: value for name, value in body.items() if value is not None}
    answer = start().post("/v1/audio/speech", body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert match in error["message"]
    assert error["param"] == param


def test_models_are_listed_by_what_they_do(start):
    server = start()
    listed = {model.id: model.model_dump() for model in server.client().models.list()}
    assert listed["crier"]["speaks"] is True
    assert listed["crier"]["chats"] is False
    assert listed["bell"]["chats"] is True
    assert server.client().models.retrieve("crier").created == 5
    with pytest.raises(openai.BadRequestError, match="crier speaks and does nothing else\nSend it to /v1/audio/speech"):
        server.client().completions.create(model="crier", prompt="x")
    with pytest.raises(openai.NotFoundError, match="no model 'bell' that speaks"):
        server.client().audio.speech.create(model="bell", voice="bell", input="One.")


class Mute:
    """Lets nobody speak; who is not Ada does not even know of it."""

    async def authenticate(self, credentials):
        return Caller(credentials or "anyone", "")

    async def check(self, caller, action, object):
        raise Forbidden(f"{caller.name} may not {action.value} with {object}")

    async def visible(self, caller, objects):
        return [each for each in objects if caller.name == "ada"]


def test_the_guard_is_asked(start):
    server = start(guard=Mute())
    given = {"model": "crier", "voice": "crier", "input": "One."}
    with pytest.raises(openai.PermissionDeniedError, match="may not generate with model:crier"):
        server.client("ada").audio.speech.create(**given)
    with pytest.raises(openai.NotFoundError, match="no model 'crier' that speaks"):
        server.client("eve").audio.speech.create(**given)
    assert [model.id for model in server.client("eve").models.list()] == []
    with pytest.raises(openai.NotFoundError):
        server.client("eve").models.retrieve("crier")


def test_limits(start, monkeypatch):
    given = {"model": "crier", "voice": "crier", "input": "One."}
    with pytest.raises(openai.BadRequestError, match="Send up to 2 at once"):
        start(limits=Limits(speech_characters=2)).client().audio.speech.create(**given)
    with pytest.raises(openai.InternalServerError, match="within 1e-05 seconds"):
        start(limits=Limits(request_seconds=1e-5)).client().audio.speech.create(**given)
    monkeypatch.setattr(speech, "_SPEAKING", 0)
    with pytest.raises(openai.RateLimitError, match="texts are being spoken"):
        start().client().audio.speech.create(**given)


def test_a_voice_that_fails_after_the_first_sound_breaks_off(start, stepwise, monkeypatch):
    permits.release(100)
    inner, count = voices.Voice.pieces, []

    def failing(self, *args, **options):
        for piece in inner(self, *args, **options):
            yield piece
            count.append(1)
            if len(count) == 3:
                raise ValueError("no more")

    monkeypatch.setattr(voices.Voice, "pieces", failing)
    given = {"model": "crier", "voice": "crier", "input": "One. Two.", "response_format": "wav"}
    create = start(stepwise).client().audio.speech.with_streaming_response.create
    with pytest.raises(httpx2.RemoteProtocolError), create(**given) as answer:
        b"".join(answer.iter_bytes())


def test_metrics(start):
    server = start()
    server.client().audio.speech.create(model="crier", voice="crier", input=TEXT)
    told = server.http.get("/metrics").text
    assert 'cupola_speech_cut_sentences_total{model="crier"} 2.0' in told
    assert 'cupola_time_to_first_audio_seconds_count{model="crier"} 1.0' in told
    seconds = float(told.split('cupola_speech_audio_seconds_total{model="crier"} ')[1].split()[0])
    assert abs(seconds - 0.74) < 0.1


def test_a_neural_vocoder_streams(start):
    hummer = spoken.make_neural()
    given = {"model": "hummer", "voice": "hummer", "input": "One.", "response_format": "wav"}
    with start(hummer).client().audio.speech.with_streaming_response.create(**given) as answer:
        parts = list(answer.iter_bytes())
    np.testing.assert_allclose(decode(b"".join(parts)).samples, wanted(hummer, "One."), atol=2**-14)
