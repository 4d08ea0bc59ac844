"""The server as a person starts it: a process, a port, a signal."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import openai
import pytest

from cupola.access import Graph, delete, touch
from cupola.data.audio.files import decode
from cupola.interop.voice import Form, write_voice
from cupola.recipes.guard import object_id
from cupola.serve.http.keys import make_key

sys.path.insert(0, str(Path(__file__).parents[1] / "interop"))

from spoken import make_synthesizer

SMALL = ["--length", "64", "--running", "2", "--memory", "2MB", "--precision", "float32"]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextlib.contextmanager
def serving(*words, ready=True):
    """A server; gives its address and process."""
    port = free_port()
    command = [str(Path(sys.executable).with_name("cupola")), "serve", *map(str, words), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 240
        while ready and time.monotonic() < deadline:
            assert process.poll() is None, process.stdout.read()
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/health") as answer:
                if answer.status == 200:
                    break
            time.sleep(0.2)
        yield url, process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def server(trained):
    with serving(trained, *SMALL) as (url, _):
        yield url


def test_a_run_is_served_under_the_name_of_its_folder(server, trained):
    client = openai.OpenAI(base_url=f"{server}/v1", api_key="none")
    assert [model.id for model in client.models.list()] == [Path(trained).name]
    told = client.completions.create(model=Path(trained).name, prompt="the furnace", max_tokens=8, seed=1)
    assert told.usage.completion_tokens == 8 or told.choices[0].finish_reason == "stop"
    again = client.completions.create(model=Path(trained).name, prompt="the furnace", max_tokens=8, seed=1, stream=True)
    assert "".join(chunk.choices[0].text for chunk in again) == told.choices[0].text


def test_a_model_without_a_template_says_so_when_asked_to_chat(server, trained):
    client = openai.OpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0)
    with pytest.raises(openai.BadRequestError, match="template"):
        client.chat.completions.create(model=Path(trained).name, messages=[{"role": "user", "content": "hi"}])


def test_the_chat_page_is_there(server):
    with urllib.request.urlopen(server) as answer:
        page = answer.read().decode()
    assert "<title>" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_a_signal_finishes_what_runs_and_ends_well(trained):
    with serving(trained, *SMALL) as (url, process):
        body = {"model": Path(trained).name, "prompt": "iron", "max_tokens": 40, "stream": True}
        asked = urllib.request.Request(
            f"{url}/v1/completions", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(asked) as answer:
            answer.readline()
            process.send_signal(signal.SIGTERM)
            rest = answer.read().decode()
        assert rest.rstrip().endswith("data: [DONE]")
        told, _ = process.communicate(timeout=60)
        assert process.returncode == 0, told


def test_two_engines_behind_one_address(trained):
    with serving(trained, *SMALL, "--replicas", "2") as (url, process):
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none")
        for seed in range(4):
            client.completions.create(model=Path(trained).name, prompt=f"iron {seed}", max_tokens=4)
        with urllib.request.urlopen(f"{url}/workers") as answer:
            assert len(json.load(answer)["data"]) == 2
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode == 0


def test_a_graph_guards_every_engine_behind_one_address(trained, tmp_path):
    keys, address = tmp_path / "keys.json", tmp_path / "access.db"
    ann, bob = (make_key(keys, name, subject=f"user:{name}") for name in ("ann", "bob"))
    name = Path(trained).name
    guarded = ("--access", address, "--keys", keys, "--replicas", "2")
    with serving(trained, *SMALL, *guarded) as (url, _), Graph.open(str(address)) as graph:
        one, other = (openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) for key in (ann, bob))
        fact = f"model:{object_id(name)}#user@user:ann"
        graph.write(touch(fact))
        assert [[model.id for model in client.models.list()] for client in (one, other)] == [[name], []]
        for seed in range(4):
            one.completions.create(model=name, prompt=f"iron {seed}", max_tokens=2)
            with pytest.raises(openai.NotFoundError):
                other.completions.create(model=name, prompt=f"iron {seed}", max_tokens=2)
        with pytest.raises(openai.PermissionDeniedError):
            one.get("/../workers", cast_to=object)
        graph.write(delete(fact))
        for seed in range(4):
            with pytest.raises(openai.NotFoundError):
                one.completions.create(model=name, prompt=f"iron {seed}", max_tokens=2)
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0).models.list()


@pytest.mark.parametrize(
    ("words", "problem", "remedy"),
    [
        (["smolm2"], "smolm2", "smollm2"),
        (["nothing-here.gguf"], "nothing-here.gguf", "Fetched"),
        (["smollm2", "--host", "0.0.0.0"], "can be reached by others", "keys"),
        (["smollm2", "--keys", "none.json"], "cannot be read", "key"),
        (["smollm2", "--access", "a.db", "--keys", "none.json"], "nobody has a key yet", "--subject user:ada"),
        (["smollm2", "--access", "a.db", "--let-in", "anyone"], "everyone is to be let in", "Leave out one"),
        (["smollm2", "--keys", "none.json", "--let-in", "anyone"], "everyone is to be let in", "Leave out one"),
        (["smollm2", "--replicas", "2", "--allow-origin", "https://a.example"], "other sites", "Leave it out"),
        (["--speak", "crier.safetensors", "--replicas", "2"], "passes no sound on", "Leave it out"),
        (["--hear", "whisper-base", "--replicas", "2"], "passes no recordings on", "Leave it out"),
        (["--speak", "nobody"], "there is no voice 'nobody'", "cupola train tacotron2"),
        (["smollm2", "--memory", "much"], "no amount of memory", "2GB"),
    ],
)
def test_what_cannot_be_served_is_refused(cupola, words, problem, remedy):
    ended = cupola("serve", *words)
    assert ended.code == 2
    assert problem in ended.err
    assert remedy in ended.err


def test_a_schema_that_says_too_little_is_refused(cupola, tmp_path):
    keys, address = tmp_path / "keys.json", str(tmp_path / "access.db")
    make_key(keys, "ann", subject="user:ann")
    with Graph.open(address) as graph:
        graph.write_schema("definition user {}")
    ended = cupola("serve", "smollm2", "--access", address, "--keys", keys)
    assert ended.code == 2
    assert "no definition model, no definition adapter" in ended.err


def test_a_taken_port_is_said(cupola, trained, server):
    ended = cupola("serve", trained, *SMALL, "--port", server.rsplit(":", 1)[1])
    assert ended.code == 2
    assert "Use another port" in ended.err


def test_a_voice_is_served_with_keys(tmp_path):
    spoken = make_synthesizer()
    write_voice(tmp_path / "crier.safetensors", spoken, form=Form.FLOAT32)
    keys = tmp_path / "keys.json"
    ann, bob = (make_key(keys, name, models=(pattern,)) for name, pattern in (("ann", "cr*"), ("bob", "x*")))
    words = ("--speak", tmp_path / "crier.safetensors", "--keys", keys, "--precision", "float32")
    with serving(*words) as (url, _):
        one, other = (openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) for key in (ann, bob))
        assert [[model.id for model in client.models.list()] for client in (one, other)] == [["crier"], []]
        given = {"model": "crier", "voice": "crier", "input": "One.", "response_format": "wav"}
        said = decode(one.audio.speech.create(**given).content)
        wanted = spoken.voice.say(spoken.params, "One.").clip
        np.testing.assert_allclose(said.samples, np.clip(wanted.samples, -1, 1), atol=1e-3)
        with pytest.raises(openai.NotFoundError):
            other.audio.speech.create(**given)
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0).audio.speech.create(**given)
