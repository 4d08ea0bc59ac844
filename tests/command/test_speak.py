"""A text as sound, from the command line."""

import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cupola.command import speak as speaking
from cupola.data.audio.files import decode, read
from cupola.interop import voice as voice_files
from cupola.interop.voice import Form, write_voice

sys.path.insert(0, str(Path(__file__).parents[1] / "interop"))

import spoken


@pytest.fixture(scope="module")
def crier():
    return spoken.make_synthesizer()


@pytest.fixture(scope="module")
def file(crier, tmp_path_factory):
    path = tmp_path_factory.mktemp("voices") / "crier.safetensors"
    write_voice(path, crier, form=Form.FLOAT32)
    return path


def test_a_text_becomes_a_file(cupola, crier, file, tmp_path):
    out = tmp_path / "said.wav"
    ended = cupola("speak", "One. Two.", "-o", out, "--voice", file, "--seed", 3)
    assert (ended.code, ended.out) == (0, "")
    wanted = crier.voice.say(crier.params, "One. Two.", seed=3).clip
    said = read(out)
    assert said.rate_hz == spoken.RATE
    np.testing.assert_allclose(said.samples, np.clip(wanted.samples, -1, 1), atol=2**-14)
    lines = ended.err.splitlines()
    assert [line.split(": ")[-1] for line in lines if line.startswith("cut at ")] == ["One.", "Two."]
    assert lines[-1].startswith(f"{out}: 0.7 s of speech, made in ")
    other = cupola("speak", "One. Two.", "-o", out, "--voice", file, "--seed", 4)
    assert other.code == 0
    assert (read(out).samples != said.samples).any()


@pytest.mark.parametrize("ending", ["flac", "ogg", "mp3", "opus", "aac"])
def test_the_ending_says_the_form(cupola, file, tmp_path, ending):
    out = tmp_path / f"said.{ending}"
    ended = cupola("speak", "One.", "-o", out, "--voice", file)
    assert ended.code == 0, ended.err
    assert 0.3 < read(out).seconds < 0.7


def test_text_from_standard_input_and_a_form_that_is_named(cupola, file, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"One. Two.")))
    out = tmp_path / "said.raw"
    ended = cupola("speak", "-", "-o", out, "--voice", file, "--format", "pcm", "--speed", "2")
    assert ended.code == 0, ended.err
    assert abs(len(out.read_bytes()) / 2 / 24_000 - (2 * 0.16 + 0.1)) < 0.03


def test_sound_on_standard_output_alone(file):
    command = [sys.executable, "-m", "cupola", "speak", "One.", "-o", "-", "--voice", str(file)]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert decode(done.stdout).seconds > 0.3
    assert re.search(r"^cut at 0.3 s, .*: One\.$", done.stderr.decode(), re.MULTILINE)


@pytest.mark.parametrize(
    ("text", "words", "match"),
    [
        ("One.", ("-o", "said.txt"), "'txt' is no ending.*End it in .wav"),
        ("", ("-o", "said.wav"), "the text is empty Give at least one word"),
        ("!?", ("-o", "said.wav"), "has no letter"),
        ("日本", ("-o", "said.wav"), "no symbol of this voice Write it in words"),
        ("a" * 10_001, ("-o", "said.wav"), "10001 characters, where 10000 are the most Say it in parts"),
        ("One.", ("-o", "-", "--format", "ogg"), "Vorbis is not sent while it is made Use opus"),
        ("One.", ("-o", "/proc/said.wav"), "could not be written"),
        ("One.", ("-o", "said.wav", "--voice", "nobody"), "there is no voice 'nobody'.*cupola train tacotron2"),
        ("One.", ("-o", "said.wav", "--speed", "9"), "less than or equal to 4"),
    ],
)
def test_mistakes_are_told(cupola, file, tmp_path, monkeypatch, text, words, match):
    monkeypatch.chdir(tmp_path)
    given = words if "--voice" in words else (*words, "--voice", file)
    ended = cupola("speak", text, *given)
    assert (ended.code, ended.out) == (2, "")
    assert re.search(match, " ".join(ended.err.split()))
    assert not list(tmp_path.iterdir())


def test_bytes_that_are_no_text(cupola, file, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe")))
    ended = cupola("speak", "-", "-o", tmp_path / "said.wav", "--voice", file)
    assert (ended.code, "byte 0 is not UTF-8" in ended.err) == (2, True)


def test_without_a_voice_the_shipped_one_speaks_or_its_absence_is_said(cupola, file, tmp_path, monkeypatch):
    monkeypatch.setattr(voice_files, "SHIPPED", tmp_path / "nothing")
    ended = cupola("speak", "One.", "-o", tmp_path / "said.wav")
    assert ended.code == 2
    assert "no voice is shipped with this package yet" in ended.err
    assert "cupola train tacotron2 data=" in ended.err
    monkeypatch.setattr(voice_files, "SHIPPED", file.parent)
    assert cupola("speak", "One.", "-o", tmp_path / "said.wav").code == 0


def test_the_forms_are_those_that_can_be_written():
    for form in speaking.Format:
        assert speaking.Format.of(Path(f"a.{form.value.upper()}")) is form


def test_a_run_speaks_and_is_written_as_a_file(cupola, speaker, tmp_path):
    words = ("speak", "The bell.", "--seed", 2)
    assert cupola(*words, "-o", tmp_path / "run.wav", "--voice", speaker).code == 0
    made = tmp_path / "crier.safetensors"
    told = ("--licence", "CC0-1.0", "--data", "tones", "--form", "float32")
    ended = cupola("export", speaker, "-o", made, *told)
    assert ended.code == 0, ended.err
    assert cupola(*words, "-o", tmp_path / "file.wav", "--voice", made).code == 0
    assert (tmp_path / "run.wav").read_bytes() == (tmp_path / "file.wav").read_bytes()


def test_a_run_of_another_model_does_not_speak(cupola, trained, tmp_path):
    ended = cupola("speak", "One.", "-o", tmp_path / "said.wav", "--voice", trained)
    assert (ended.code, "which is no TextToSpeech as is needed here" in ended.err) == (2, True)


def test_the_vocoder_of_another_run(cupola, speaker, hummer, tmp_path):
    words = ("speak", "The bell.", "--voice", speaker)
    assert cupola(*words, "-o", tmp_path / "griffin-lim.wav").code == 0
    ended = cupola(*words, "-o", tmp_path / "vocos.wav", "--vocoder", hummer)
    assert ended.code == 0, ended.err
    one, other = (read(tmp_path / f"{name}.wav").samples for name in ("griffin-lim", "vocos"))
    assert len(one) == len(other)
    assert (one != other).any()
    ended = cupola(*words, "-o", tmp_path / "said.wav", "--vocoder", speaker)
    assert (ended.code, "is no VocoderTraining" in ended.err) == (2, True)
