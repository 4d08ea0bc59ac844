"""A voice before judges, from the command line; the judges here are a small Whisper and none."""

import sys
from pathlib import Path

import numpy as np
import pytest

from cupola.command import evaluate_speech as command
from cupola.core.errors import Unsupported
from cupola.data.audio.clip import Clip
from cupola.data.audio.files import read, write
from cupola.interop.voice import Form, write_voice

sys.path.insert(0, str(Path(__file__).parents[1] / "interop"))

import spoken

TEXTS = ("One two three.", "The furnace is ready.", "Nobody saw the bell.")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("voices") / "crier.safetensors"
    write_voice(path, spoken.make_synthesizer(), form=Form.FLOAT32)
    return path


@pytest.fixture(scope="module")
def sentences(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "sentences.txt"
    path.write_text("\n\n".join(TEXTS) + "\n")
    return path


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """A folder in the form of LJSpeech; each text is a tone of its own."""
    folder = tmp_path_factory.mktemp("recordings")
    (folder / "wavs").mkdir()
    for number, _ in enumerate(TEXTS):
        times = np.arange(6000 + 1000 * number) / spoken.RATE
        write(Clip((0.5 * np.sin(2 * np.pi * 300 * (number + 1) * times)).astype(np.float32), spoken.RATE),
              folder / "wavs" / f"{number}.wav")  # fmt: skip
    (folder / "metadata.csv").write_text("".join(f"{number}|{text}\n" for number, text in enumerate(TEXTS)))
    return folder


class Deaf:
    """Hears nothing at all."""

    name = "deaf"

    def hear(self, clips):
        return [""] * len(clips)


@pytest.fixture
def deaf(monkeypatch):
    monkeypatch.setattr(command, "_whisper", lambda name: Deaf())


@pytest.fixture
def wide(monkeypatch):
    """Nothing is broken over lines."""
    monkeypatch.setattr(command.CONSOLE, "_width", 300)


def cells(out, name):
    line = next(line for line in out.splitlines() if name in line)
    return [cell.strip() for cell in line.replace("┃", "│").split("│")[2:-1]]


def test_a_table_beside_recordings(cupola, file, recordings, deaf, wide, tmp_path):
    words = ("--without", "pocketsphinx", "--without", "dnsmos", "--keep", tmp_path / "heard")
    ended = cupola("eval", "speech", file, "--data", recordings, *words)
    assert ended.code == 0, ended.err
    sides = ["recording", "copy, Griffin-Lim", "ours, Griffin-Lim", "ours, Griffin-Lim, texts shuffled"]
    assert cells(ended.out, "┃") == sides
    assert cells(ended.out, "word errors by deaf") == ["100.0"] * 4
    assert cells(ended.out, "stopped by itself") == ["-", "-", "0.0", "-"]
    assert len([cell for cell in cells(ended.out, "mel-cepstral") if cell != "-"]) == 3
    assert "pocketsphinx was left out" in ended.out
    kept = sorted(path.relative_to(tmp_path / "heard").as_posix() for path in (tmp_path / "heard").rglob("*.wav"))
    assert len(kept) == 9
    assert "ours-griffin-lim/002.wav" in kept
    assert read(tmp_path / "heard" / "recording" / "000.wav").rate_hz == spoken.RATE


def test_judges_that_are_not_installed_are_named(cupola, file, sentences, wide, monkeypatch):
    def absent():
        raise Unsupported("the package pocketsphinx cannot be imported", remedy="Type: pip install 'cupola[judge]'")

    monkeypatch.setattr(command, "SphinxListener", absent)
    words = ("--whisper", "whisper-base", "--without", "dnsmos")
    monkeypatch.setattr(command, "open_whisper", unfetched)
    ended = cupola("eval", "speech", file, "--text", sentences, *words)
    assert ended.code == 0, ended.err
    assert cells(ended.out, "whisper ") == ["not here"] * 2
    assert cells(ended.out, "pocketsphinx ") == ["not here"] * 2
    assert "whisper is not here: whisper-base was not fetched yet. Type: cupola fetch whisper-base" in ended.out
    assert "pocketsphinx is not here" in ended.out


def unfetched(name):
    raise command.UnknownModel(f"{name} was not fetched yet", remedy=f"Type: cupola fetch {name}")


def test_a_judge_that_cannot_be_trusted_is_exit_code_1(cupola, file, sentences, monkeypatch):
    class Parrot:
        name = "parrot"

        def __init__(self):
            self.texts = iter([TEXTS, (*TEXTS[1:], TEXTS[0])])

        def hear(self, clips):
            return list(next(self.texts))

    monkeypatch.setattr(command, "_whisper", lambda name: Parrot())
    words = ("--without", "pocketsphinx", "--without", "dnsmos")
    ended = cupola("eval", "speech", file, "--text", sentences, *words)
    assert ended.code == 1
    assert "do not trust: word errors by parrot" in ended.out


def test_a_run_is_judged_by_what_it_held_out(cupola, speaker, deaf, wide):
    ended = cupola("eval", "speech", speaker, "--without", "pocketsphinx", "--without", "dnsmos")
    assert ended.code == 0, ended.err
    assert "4 sentences" in ended.out
    assert len(cells(ended.out, "stop within 5 frames")) == 4


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ((), "a voice file holds no sentences"),
        (("--text", "a.txt", "--data", "b"), "sentences come from one place"),
        (("--text", "nothing.txt"), "nothing.txt: cannot be read"),
        (("--data", "nothing"), "there is no such folder"),
        (("--step", "3", "--text", "nothing.txt"), "a voice file has no steps"),
    ],
)
def test_mistakes_are_told(cupola, file, deaf, words, match):
    ended = cupola("eval", "speech", file, *words)
    assert ended.code == 2
    assert match in " ".join(ended.err.split())


def test_one_sentence_is_no_control(cupola, file, deaf, tmp_path):
    (tmp_path / "one.txt").write_text("One.\n")
    ended = cupola("eval", "speech", file, "--text", tmp_path / "one.txt")
    assert (ended.code, "fewer than two different sentences" in ended.err) == (2, True)


def test_text_need_not_be_said(cupola, trained):
    said = [cupola("eval", *words).out.splitlines()[1:] for words in ((trained,), ("text", trained))]
    assert said[0] == said[1]
    assert cupola("eval", "--step", 12, trained).code == cupola("eval", trained, "--step", 12).code == 0
