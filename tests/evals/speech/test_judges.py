"""Judges that are installed tell speech from noise; those that are not are errors that say what to type."""

import importlib.util
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from cupola.data.audio.clip import Clip
from cupola.evals.speech.judges import Dnsmos, SphinxListener, WhisperListener, present

sys.path.insert(0, str(Path(__file__).parents[2] / "models" / "speech"))

import small_whisper


def test_whisper_hears_nothing_in_silence(tmp_path):
    recognizer = small_whisper.make_recognizer(small_whisper.make_tokens(tmp_path))
    clip = small_whisper.make_clips()[0]
    silence = Clip(np.zeros(16_000, np.float32), 16_000)
    heard = WhisperListener(recognizer).hear([silence, clip, silence])
    assert heard[0] == heard[2] == ""
    assert heard == ["", WhisperListener(recognizer).hear([clip])[0], ""]


@pytest.mark.parametrize(
    ("judge", "package"), [(SphinxListener, "pocketsphinx"), (Dnsmos, "onnxruntime"), (Dnsmos, "speechmos")]
)
def test_a_judge_that_is_not_installed_says_what_to_type(monkeypatch, judge, package):
    find, load = importlib.util.find_spec, importlib.import_module

    def absent(name, *more):
        if name == package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return load(name, *more) if name in sys.modules or find(name) else types.ModuleType(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    here, missing = present({"one": judge})
    assert here == []
    assert package in missing["one"].problem
    assert "pip install 'cupola[judge]'" in missing["one"].remedy


def test_what_is_wrong_with_a_judge_is_not_hidden():
    def broken():
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        present({"one": broken})


def test_dnsmos_rates_noise_low_and_windows_add_up():
    pytest.importorskip("onnxruntime")
    if importlib.util.find_spec("speechmos") is None:
        pytest.skip("speechmos is not installed")
    drawn = np.random.default_rng(0)
    judge = Dnsmos()
    noise = Clip((0.1 * drawn.standard_normal(5 * 16_000)).astype(np.float32), 16_000)
    rated = judge.rate([noise])
    assert set(rated) == {"signal", "background", "overall"}
    assert all(0.9 < value < 1.5 for value in rated.values())
    # A clip of windows and one more second is the mean of two windows.
    long = Clip((0.1 * drawn.standard_normal(int(10.01 * 16_000))).astype(np.float32), 16_000)
    size = int(9.01 * 16_000)
    parts = [Clip(long.samples[:size], 16_000), Clip(long.samples[16_000 : 16_000 + size], 16_000)]
    assert judge.rate([long]) == pytest.approx(judge.rate(parts))


def test_sphinx_hears_nothing_in_silence():
    pytest.importorskip("pocketsphinx")
    assert SphinxListener().hear([Clip(np.zeros(16_000, np.float32), 16_000)]) == [""]
