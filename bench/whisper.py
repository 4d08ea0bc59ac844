"""Transcribing real speech on a CPU: Cupola against faster-whisper, on the same weights (Whisper base).

Both hear the same recordings at 16 kHz, one after the other, as a user would give them: beams of 5, the usual
temperatures, the language given; prompts of half a minute and less, and all of them in a row as one long
recording. Ours counts in float32 and in bfloat16, the peer in float32 and in int8. The word error rate is that of
the prompts, of which the words are known: letters alone count, and numbers as they are spoken.
Recordings: the Debian packages asterisk-core-sounds-en-g722 and asterisk-core-sounds-en, unpacked side by side into
the folder of `--speech`. Weights: `cupola fetch whisper-base`.
Passes where our errors in float32 are at most one word in a hundred more than the peer's.
"""

import argparse
import gzip
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import harness
import numpy as np

from cupola.core.dtype import BFLOAT16, FLOAT32
from cupola.data.audio.clip import Clip
from cupola.data.audio.files import read
from cupola.evals.speech.words import word_errors
from cupola.interop.whisper import open_whisper
from cupola.models.speech.listening import Listening
from cupola.models.speech.transcribe import transcribe

NAME = "whisper"
RATE_HZ = 16_000
SOUNDS = "usr/share/asterisk/sounds/en_US_f_Allison"
TEXTS = "usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz"
LEAST_WORDS, MOST_SECONDS = 8, 29.0
PRECISIONS = {"float32": FLOAT32, "bfloat16": BFLOAT16}
PEERS = ("float32", "int8")
SHORT, LONG = "prompts", "one long recording"
ONE_IN = 100


def main() -> int:
    """Measures, prints and returns 0 where the bench has passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few prompts, one turn each")
    parser.add_argument("--speech", type=Path, required=True, help="where the packages of recordings are unpacked")
    parser.add_argument("--weights", default="whisper-base", help="a fetched name, or a folder with a model.bin")
    parser.add_argument("--prompts", type=int, help="how many; default: 60, or 12 with --quick")
    parser.add_argument("--without", action="append", default=[], choices=("bfloat16", "int8"))
    parser.add_argument("--worker", choices=PRECISIONS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        work(asked.worker, asked.weights, asked.speech)
        return 0
    count = asked.prompts or (12 if asked.quick else 60)
    with tempfile.TemporaryDirectory() as held:
        folder = Path(held)
        said, seconds = prepare(asked.speech, folder, count)
        taking_part = run(asked, folder)
        return report(taking_part, folder, said, seconds)


def prepare(speech: Path, folder: Path, count: int) -> tuple[list[str], float]:
    """Writes the recordings and the lists of the cases; returns what is said, and the seconds of all."""
    told = dict(spoken(speech))
    chosen: list[tuple[str, Clip]] = []
    for name, text in sorted(told.items()):
        file = speech / SOUNDS / f"{name}.g722"
        if len(text.split()) >= LEAST_WORDS and file.exists():
            clip = read(file, rate_hz=RATE_HZ)
            if clip.seconds <= MOST_SECONDS:
                chosen.append((text, clip))
    if not chosen:
        sys.exit(f"There are no recordings below {speech / SOUNDS}.")
    step = max(1, len(chosen) // count)
    chosen = chosen[::step][:count]
    names = [f"{number:03}.npy" for number in range(len(chosen))]
    for name, (_, clip) in zip(names, chosen, strict=True):
        np.save(folder / name, clip.samples)
    np.save(folder / "long.npy", np.concatenate([clip.samples for _, clip in chosen]))
    (folder / f"{SHORT}.json").write_text(json.dumps(names))
    (folder / f"{LONG}.json").write_text(json.dumps(["long.npy"]))
    return [text for text, _ in chosen], sum(clip.seconds for _, clip in chosen)


def spoken(speech: Path) -> Sequence[tuple[str, str]]:
    """Returns the name and the text of each recording that says something."""
    lines = gzip.decompress((speech / TEXTS).read_bytes()).decode(errors="replace").splitlines()
    pairs = (line.split(":", 1) for line in lines if ":" in line and not line.startswith(";"))
    return [(name, text.strip()) for name, text in pairs if "[" not in text]


def run(asked: Any, folder: Path) -> list[harness.Worker]:
    """Gives turns to all sides."""
    ours = [name for name in PRECISIONS if name not in asked.without]
    threads = str(os.cpu_count() or 1)
    commands = {f"ours {name}": [sys.executable, __file__, "--worker", name, "--speech", str(folder)] for name in ours}
    for command in commands.values():
        command += ["--weights", asked.weights]
    weights = str(folder_of(asked.weights))
    for kind in PEERS:
        if kind not in asked.without:
            peer = [harness.peer_python("audio"), "bench/peers/whisper.py", "transcribe", weights, str(folder)]
            commands[f"peer {kind}"] = [*peer, "--kind", kind, "--threads", threads]
    with harness.workers(commands) as started:
        sides = list(started.values())
        harness.alternate(sides, 0, 1, cases=(SHORT, LONG), least=1 if asked.quick else 3)
    return sides


def folder_of(weights: str) -> Path:
    """Returns the folder of a fetched name, or the folder itself."""
    fetched = Path.home() / ".cache" / "cupola" / "models" / weights
    return fetched if fetched.is_dir() else Path(weights)


def work(kind: str, weights: str, folder: Path) -> None:
    """Serves turns of ours."""
    recognizer = open_whisper(weights, precision=PRECISIONS[kind]).ready()
    listening = Listening(language="en")

    def short() -> None:
        transcribe(recognizer, Clip(np.load(folder / "000.npy"), RATE_HZ), listening)

    def transcribing(case: Path) -> Callable[[], None]:
        clips = [Clip(np.load(folder / name), RATE_HZ) for name in json.loads(case.read_text())]

        def run() -> None:
            texts = [transcribe(recognizer, clip, listening).text for clip in clips]
            (folder / f"{case.stem}.ours-{kind}.texts").write_text(json.dumps(texts))

        return run

    cases = {case.stem: transcribing(case) for case in sorted(folder.glob("*.json"))}
    # Of both lengths of prompts: the second and later windows of a long recording have a long one.
    transcribe(
        recognizer, Clip(np.load(folder / "000.npy"), RATE_HZ), listening.replace("prompt", "one two three four")
    )
    harness.serve(cases, warm=short)


def report(sides: Sequence[harness.Worker], folder: Path, said: Sequence[str], seconds: float) -> int:
    """Prints errors and times."""
    rows, errors = [], {}
    for side in sides:
        who, kind = side.name.split()
        for case in (SHORT, LONG):
            heard = json.loads((folder / f"{case}.{'ours-' if who == 'ours' else ''}{kind}.texts").read_text())
            found = word_errors(heard, said if case == SHORT else [" ".join(said)])
            errors[side.name, case] = found.percent / 100
            rate = side.median_of(case) / seconds
            rows.append((f"{side.name}, {case}", f"{found.percent:.2f}", f"{rate:.3f}", f"{1 / rate:.1f}"))
    print(f"{len(said)} prompts of {seconds:.0f} s in all\n")
    harness.table(("side", "word errors, %", "real-time factor", "times real time"), rows)
    by_name = {side.name: side for side in sides}
    compared = [
        harness.Row(case, ours.median_of(case), peer.median_of(case), f"faster-whisper {peer.name.split()[1]}", "s")
        for ours, peer in pairs(by_name)
        for case in (SHORT, LONG)
    ]
    more = errors["ours float32", SHORT] - errors["peer float32", SHORT]
    facts = {"prompts": str(len(said)), "seconds": f"{seconds:.0f}"} | sides[-1].facts["versions"]
    return harness.finish(NAME, compared, passed=more <= 1 / ONE_IN, facts=facts)


def pairs(sides: dict[str, harness.Worker]) -> list[tuple[harness.Worker, harness.Worker]]:
    """Ours and the peer's of like effort."""
    wanted = (("ours float32", "peer float32"), ("ours bfloat16", "peer int8"))
    return [(sides[ours], sides[peer]) for ours, peer in wanted if ours in sides and peer in sides]


if __name__ == "__main__":
    sys.exit(main())
