"""What every bench shares: workers that keep a compiled step and take turns, the table, the JSON line.

A worker is a process of its own, in its own virtual environment; it answers each line on its standard
input with one JSON object. Only the standard library is imported: peers' environments hold no Cupola.
Invariant: only one worker computes at a time, the others are stopped; every turn begins with a run that
is not counted.
"""

import contextlib
import dataclasses
import datetime
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
RESULTS = REPOSITORY / "bench" / "results"


def serve(
    work: Callable[[], Any] | Mapping[str, Callable[[], Any]], *, warm: Callable[[], Any] | None = None, **facts: Any
) -> None:
    """Answers turns until standard input ends; called by a worker when all is compiled.

    Args:
        work: does one timed piece of work, and has finished it when it returns; or several, by the name of
            their case. A dict of numbers that it returns is kept as a note.
        warm: begins every turn, not counted; None: the work itself.
        facts: to tell the bench once, such as versions.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # What libraries print must not stand between the answers.
    cases = work if isinstance(work, Mapping) else {"": work}

    def answer(**said: Any) -> None:
        print(json.dumps(said), file=answers, flush=True)

    (warm or next(iter(cases.values())))()
    _forget_peak()
    answer(facts=facts, cases=list(cases))
    for line in sys.stdin:
        runs, _, case = line.rstrip("\n").partition(" ")
        run = cases[case]
        (warm or run)()  # The worker before has filled the caches with its own.
        seconds, notes = [], []
        for _ in range(int(runs)):
            start = time.perf_counter()
            noted = run()
            seconds.append(time.perf_counter() - start)
            notes.append(noted if isinstance(noted, dict) else {})
        answer(seconds=seconds, notes=notes, peak_bytes=_peak_bytes())


@dataclasses.dataclass
class Worker:
    """One side of a comparison: a process that is asked for turns, and what it has answered.

    Args:
        cases: that it can do.
        timed: seconds of its timed runs, by case.
        notes: what else it said of these runs.
    """

    name: str
    process: subprocess.Popen[str]
    errors: Path
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    cases: list[str] = dataclasses.field(default_factory=list)
    timed: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    notes: dict[str, list[dict[str, float]]] = dataclasses.field(default_factory=dict)
    peak_bytes: int = 0

    @property
    def seconds(self) -> list[float]:
        """Of all its timed runs."""
        return [second for seconds in self.timed.values() for second in seconds]

    @property
    def median(self) -> float:
        """The median of its timed runs, in seconds."""
        return statistics.median(self.seconds)

    def median_of(self, case: str) -> float:
        """The median of its timed runs of one case, in seconds."""
        return statistics.median(self.timed[case])

    def start(self) -> None:
        """Waits until it is ready."""
        said = self.hear()
        self.facts, self.cases = said["facts"], said["cases"]
        self.process.send_signal(signal.SIGSTOP)

    def turn(self, runs: int, case: str = "") -> None:
        """Asks for so many timed runs and waits for them."""
        self.process.send_signal(signal.SIGCONT)
        with contextlib.suppress(BrokenPipeError):
            print(f"{runs} {case}", file=self.process.stdin, flush=True)
        said = self.hear()
        self.process.send_signal(signal.SIGSTOP)  # Threads that wait for work may do so in a busy loop.
        self.timed.setdefault(case, []).extend(said["seconds"])
        self.notes.setdefault(case, []).extend(said["notes"])
        self.peak_bytes = said["peak_bytes"]

    def hear(self) -> dict[str, Any]:
        """Returns its next answer; ends the bench with its last words where there is none."""
        line = self.process.stdout.readline() if self.process.stdout else ""
        if not line:
            last = self.errors.read_text(errors="replace")[-3000:]
            sys.exit(f"{self.name} ended with status {self.process.wait()}:\n{last}")
        return json.loads(line)


@contextlib.contextmanager
def workers(commands: dict[str, list[str]]) -> Iterator[dict[str, Worker]]:
    """Starts one worker after the other, by name, each when the one before is ready; ends them all."""
    started: dict[str, Worker] = {}
    with tempfile.TemporaryDirectory() as folder:
        try:
            for name, command in commands.items():
                print(f"compiling {name} ...", file=sys.stderr, flush=True)
                errors = Path(folder) / f"{len(started)}.txt"
                with errors.open("w") as sink:
                    pipe = subprocess.PIPE
                    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=sink, text=True, cwd=REPOSITORY)
                started[name] = Worker(name=name, process=process, errors=errors)
                started[name].start()
            yield started
        finally:
            for worker in started.values():
                worker.process.kill()
                worker.process.wait()


def alternate(
    taking_part: Sequence[Worker], seconds: float, runs: int, *, cases: Sequence[str] = ("",), least: int = 3
) -> None:
    """Gives turns until the time is spent.

    Args:
        taking_part: in each case all who can do it, one after the other.
        seconds: after which no round begins.
        runs: timed, a turn.
        cases: in a round, one after the other.
        least: so many rounds at least.
    """
    end = time.perf_counter() + seconds
    rounds = 0
    while rounds < least or time.perf_counter() < end:
        for case in cases:
            for worker in taking_part:
                if case in worker.cases:
                    worker.turn(runs, case)
        rounds += 1
        print(f"round {rounds}", file=sys.stderr, flush=True)


def peer_python(name: str) -> str:
    """Returns the Python of a bench's peers; ends the bench with what to type where they are not installed."""
    python = REPOSITORY / f".venv-{name}" / "bin" / "python"
    if not python.exists():
        sys.exit(f"The peers of bench/{name}.py are not installed. Install them apart with: bench/setup {name}")
    return str(python)


@dataclasses.dataclass(frozen=True)
class Row:
    """One comparison: the lower number is the better one; ratio is ours over the peer's."""

    case: str
    ours: float
    peer: float
    peer_name: str
    unit: str

    def record(self) -> dict[str, Any]:
        """Returns it as it stands in the JSON line."""
        return dataclasses.asdict(self) | {"ratio": self.ours / self.peer}


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints rows under a head, the first column to the left and the others to the right."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    for row in (head, ["-" * w for w in widths], *rows):
        cells = [
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())
    print()


def finish(name: str, rows: Sequence[Row], *, passed: bool, facts: dict[str, str], keep: bool = True) -> int:
    """Prints the comparisons, where they were made, and the JSON line; returns the exit status.

    Args:
        name: of the bench.
        facts: of machine and versions.
        keep: whether the line is appended to bench/results/NAME.jsonl.
    """
    table(
        ("case", "ours", "peer", "ratio", "unit", "peer is"),
        [(r.case, f"{r.ours:.1f}", f"{r.peer:.1f}", f"{r.ours / r.peer:.2f}", r.unit, r.peer_name) for r in rows],
    )
    facts = {"commit": commit(), "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")} | facts
    for what, value in facts.items():
        print(f"{what:<14} {value}")
    line = json.dumps({"name": name, "rows": [row.record() for row in rows], "passed": passed})
    if keep:
        RESULTS.mkdir(exist_ok=True)
        with (RESULTS / f"{name}.jsonl").open("a") as results:
            print(line, file=results)
    print(line)
    return 0 if passed else 1


def commit() -> str:
    """Returns the short name of the commit, marked where files differ from it."""
    asked = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty", "--exclude=*"]
    told = subprocess.run(asked, capture_output=True, text=True, check=False)
    return told.stdout.strip() if told.returncode == 0 else "not a git checkout"


def _forget_peak() -> None:
    """Lets the peak of resident memory begin anew, where the system can: compiling takes more than running."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_bytes() -> int:
    """Returns the peak of resident memory since it was last forgotten; 0 where the system does not say."""
    with contextlib.suppress(OSError):
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        return int(found[1]) * 1024 if found else 0
    return 0
