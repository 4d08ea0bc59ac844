"""Speaking on a CPU: Cupola's voice against Piper's Joe, from whom the shipped one learned, and Kokoro's 82M model.

All say the same held-out sentences, alone and as one text, on all processors. A real-time factor is the work for a
second of one's own sound, everything compiled and loaded. First audio is the time until the first samples are at
hand: Piper and Kokoro give a sentence when all of it is made. Kokoro reads with a Japanese voice of its package, for
which the English ones are as much work; only its speed is compared.
Here is no judgement of quality: that is `cupola eval speech`.

    bench/setup speak
    .venv/bin/python bench/speak.py

Passes where our real-time factor is below 0.5 and first audio comes within 300 ms. Lower is better throughout.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import harness

from cupola.command.voices import find_voice
from cupola.core import host
from cupola.observe.machine import measure

NAME = "speak"
OURS, PIPER, KOKORO = "cupola", "piper", "kokoro"
SENTENCE, TEXT = "a sentence", "eight sentences"
SENTENCES = 8
MOST_FACTOR, MOST_FIRST_MS = 0.5, 300.0


def main() -> int:
    """Measures, prints and returns 0 where the bench has passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one turn of each; keeps no result")
    parser.add_argument("--voice", help="a run's folder or a voice file; default: the shipped voice")
    parser.add_argument("--vocoder", help="a run's folder, whose vocoder takes the place of the voice's")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        work(json.loads(asked.worker.read_text()), asked.voice, asked.vocoder)
        return 0
    machine = measure()
    sentences = (harness.REPOSITORY / "bench" / "held_out.txt").read_text(encoding="utf-8").splitlines()
    with tempfile.TemporaryDirectory() as folder:
        job = Path(folder) / "job.json"
        job.write_text(json.dumps({SENTENCE: sentences[1], TEXT: " ".join(sentences[:SENTENCES])}))
        chosen = [f"--{name}={value}" for name in ("voice", "vocoder") if (value := getattr(asked, name))]
        peer = [harness.peer_python(NAME), str(harness.REPOSITORY / "bench" / "peers" / "speak.py"), str(job)]
        commands = {OURS: [sys.executable, __file__, "--worker", str(job), *chosen]}
        commands |= {name: [*peer, name] for name in (PIPER, KOKORO)}
        with harness.workers(commands) as made:
            rounds = 1 if asked.quick else 7
            harness.alternate(list(made.values()), 0, 1 if asked.quick else 2, cases=(SENTENCE, TEXT), least=rounds)
    rates = {f"{d} matmul": f"{rate / 1e9:.0f} GFLOP/s" for d, rate in machine.matmul_flops_per_second.items()}
    return report(made, {"machine": f"{machine.processor}, {machine.cores} cores", **rates}, keep=not asked.quick)


def work(texts: dict[str, str], voice: str | None, vocoder: str | None) -> None:
    """Serves turns of ours."""
    host.keep_freed_memory()
    host.cache_compilations(Path.home() / ".cache" / "cupola" / "xla")
    found = find_voice(voice, vocoder=vocoder)
    for _ in found.warm():
        pass

    def saying(text: str) -> Callable[[], dict[str, float]]:
        def run() -> dict[str, float]:
            begun, first, samples = time.perf_counter(), 0.0, 0
            for piece in found.voice.pieces(found.params, text):
                if not samples:
                    first = time.perf_counter() - begun
                samples += len(piece.samples)
            return {"first": first, "sound": samples / found.rate_hz}

        return run

    cases = {case: saying(text) for case, text in texts.items()}
    for run in cases.values():
        run()  # What a length needs besides is compiled.
    harness.serve(cases)


def report(made: dict[str, harness.Worker], facts: dict[str, str], *, keep: bool) -> int:
    """Prints the table, the aims and the JSON line."""

    def noted(name: str, case: str, what: str) -> float:
        return statistics.median(note[what] for note in made[name].notes[case])

    def factor(name: str, case: str) -> float:
        return made[name].median_of(case) / noted(name, case, "sound")

    def first_ms(name: str, case: str) -> float:
        return 1e3 * noted(name, case, "first")

    lines = [
        (
            f"{name}, {case}",
            f"{noted(name, case, 'sound'):.1f}",
            f"{factor(name, case):.3f}",
            f"{first_ms(name, case):.0f}",
        )
        for case in (SENTENCE, TEXT)
        for name in made
    ]
    harness.table(("side", "sound, s", "real-time factor", "first audio, ms"), lines)
    rows = [
        harness.Row(f"{what}, {case}", scale * of(OURS, case), scale * of(peer, case), peer, unit)
        for what, of, scale, unit in (
            ("work", factor, 1e3, "ms a second of sound"),
            ("first audio", first_ms, 1.0, "ms"),
        )
        for case in (SENTENCE, TEXT)
        for peer in made
        if peer != OURS
    ]
    most = max(factor(OURS, case) for case in (SENTENCE, TEXT))
    latest = max(first_ms(OURS, case) for case in (SENTENCE, TEXT))
    print(
        f"real-time factor {most:.3f} (aim: below {MOST_FACTOR}), first audio {latest:.0f} ms (aim: {MOST_FIRST_MS:.0f})\n"
    )
    versions = {name: made[name].facts["versions"] for name in (PIPER, KOKORO)}
    facts |= {what: version for each in versions.values() for what, version in each.items()}
    passed = most < MOST_FACTOR and latest <= MOST_FIRST_MS
    return harness.finish(NAME, rows, passed=passed, facts=facts, keep=keep)


if __name__ == "__main__":
    sys.exit(main())
