"""What a run made, for others."""

import dataclasses
import sys
from pathlib import Path

import pytest

from cupola.command import export as exporting
from cupola.core.dtype import FLOAT32
from cupola.interop.open import open_model
from cupola.interop.voice import Form, read_voice, write_voice

sys.path.insert(0, str(Path(__file__).parents[1] / "interop"))

import spoken


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("voices") / "crier.safetensors"
    write_voice(path, spoken.make_synthesizer(), form=Form.FLOAT32)
    return path


def test_a_voice_is_written_anew(cupola, file, tmp_path):
    out = tmp_path / "small.safetensors"
    words = ("export", file, "-o", out, "--form", "int8")
    ended = cupola(*words)
    assert ended.code == 0, ended.err
    assert "MB, matrices in int8" in ended.out
    assert read_voice(out).card == read_voice(file).card
    told = ("--licence", "MIT", "--data", "mine", "--figure", "DNSMOS=3.1", "--about", "none", "--language", "de")
    assert cupola(*words, *told).code == 0
    card = read_voice(out).card
    assert (card.licence, card.data, card.figures) == ("MIT", "mine", (("DNSMOS", "3.1"),))
    assert (card.about, card.language) == ("none", "de")


def test_a_first_card_says_where_the_voice_comes_from(cupola, tmp_path, monkeypatch):
    nameless = dataclasses.replace(spoken.make_synthesizer(), card=None)
    monkeypatch.setattr(exporting, "find_voice", lambda *_, **__: nameless)
    for missing, given in (("data", ("--licence", "MIT")), ("licence", ("--data", "mine"))):
        ended = cupola("export", "runs/crier", "-o", tmp_path / "out.safetensors", *given)
        assert (ended.code, f"--{missing}: whoever gets the voice must know" in ended.err) == (2, True)


def test_a_model_of_text_is_a_folder(cupola, trained, tmp_path):
    ended = cupola("export", trained, "-o", tmp_path / "out")
    assert ended.code == 0, ended.err
    assert open_model(str(tmp_path / "out"), precision=FLOAT32).name == "out"
    for option in (("--licence", "MIT"), ("--figure", "a=b"), ("--form", "int8")):
        ended = cupola("export", trained, "-o", tmp_path / "more", *option)
        assert (ended.code, f"{option[0]}: this run trains no voice" in ended.err) == (2, True)


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (("--licence", " "), "licence: is empty"),
        (("--figure", "good"), "'good' is no figure"),
        (("--step", "3"), "a voice file has no steps"),
    ],
)
def test_mistakes_are_told(cupola, file, tmp_path, words, match):
    ended = cupola("export", file, "-o", tmp_path / "out.safetensors", *words)
    assert ended.code == 2
    assert match in " ".join(ended.err.split())
