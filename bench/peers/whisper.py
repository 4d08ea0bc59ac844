"""The peer of bench/whisper.py and of its test: faster-whisper on CTranslate2, on the same weights.

Run by the Python of .venv-audio with a folder of `.npy` recordings of 16 kHz, in which it writes what it heard.
Not here: what is compared and how (`bench/whisper.py`).
"""

import argparse
import json
import platform
import sys
from collections.abc import Callable
from pathlib import Path

import ctranslate2
import faster_whisper
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import harness


def main() -> None:
    """Serves turns over the recordings, or answers one question about a window."""
    parser = argparse.ArgumentParser()
    parser.add_argument("work", choices=("transcribe", "window"))
    parser.add_argument("weights")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kind", default="float32")
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    if asked.work == "window":
        window(asked.weights, asked.folder, asked.threads)
        return
    model = faster_whisper.WhisperModel(asked.weights, device="cpu", compute_type=asked.kind, cpu_threads=asked.threads)
    cases = {case.stem: transcribing(model, case, asked.kind) for case in sorted(asked.folder.glob("*.json"))}
    warm = np.zeros(16_000, np.float32)
    versions = {"faster-whisper": faster_whisper.__version__, "CTranslate2": ctranslate2.__version__}
    harness.serve(
        cases,
        warm=lambda: list(model.transcribe(warm, language="en", beam_size=1, temperature=0.0)[0]),
        versions=versions | {"peer python": platform.python_version()},
    )


def transcribing(model: faster_whisper.WhisperModel, case: Path, kind: str) -> Callable[[], None]:
    """Returns what transcribes the recordings of a case and writes their texts."""
    recordings = [np.load(case.parent / name) for name in json.loads(case.read_text())]

    def run() -> None:
        texts = []
        for samples in recordings:
            segments, _ = model.transcribe(samples, language="en", beam_size=5)
            texts.append("".join(segment.text for segment in segments))
        (case.parent / f"{case.stem}.{kind}.texts").write_text(json.dumps(texts))

    return run


def window(weights: str, folder: Path, threads: int) -> None:
    """Writes what the encoder gives for `mels.npy`, and what the decoder finds by beams."""
    asked = json.loads((folder / "asked.json").read_text())
    model = ctranslate2.models.Whisper(weights, device="cpu", compute_type="float32", intra_threads=threads)
    mels = ctranslate2.StorageView.from_array(np.ascontiguousarray(np.load(folder / "mels.npy").transpose(0, 2, 1)))
    encoded = model.encode(mels)
    found = model.generate(
        encoded,
        [asked["prompt"]],
        beam_size=asked["beams"],
        length_penalty=1.0,
        max_length=448,
        return_scores=True,
        return_no_speech_prob=True,
        suppress_tokens=asked["suppressed"],
    )[0]
    np.save(folder / "encoded.npy", np.array(encoded))
    told = {"tokens": found.sequences_ids[0], "score": found.scores[0], "no_speech": found.no_speech_prob}
    (folder / "told.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main()
