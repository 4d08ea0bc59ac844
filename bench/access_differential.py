"""Whether Cupola answers as the real engines do: random worlds, asked of both, each difference explained or shrunk.

A world is a schema with relationships and questions: checks one by one and in bulk, lookups of resources and of
subjects, expansions, some with parts of the context that conditions need. Whether the schema and each relationship
are taken is compared as well. Differences that are known stand in `differential/compare.py` and docs/access.md, each
recognised by a predicate. Passes where no difference is left unexplained.
Against SpiceDB ten thousand worlds take about ten minutes: `--first` and `--worlds` make pieces of them.
`--break-one` makes one of our answers wrong, so that it must not pass.
"""

import argparse
import collections
import itertools
import platform
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import harness
from differential import cupola_side, given, openfga
from differential.compare import KNOWN, Ask, Difference, differences, plain
from differential.shrink import shrink, validation_file
from differential.spicedb import SpiceDB
from differential.worlds import World, make

NAME = "access_differential"
MOST_SHOWN = 5


def main() -> int:
    """Runs the comparison and returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", choices=("spicedb", "openfga", "given"), default="spicedb")
    parser.add_argument("--data", type=Path, default=Path("../shared/authz_conformance"), help="what `given` reads")
    parser.add_argument("--worlds", type=int, default=10_000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="seed of the first")
    parser.add_argument("--seconds", type=float, default=280.0, help="after which no world is begun")
    parser.add_argument("--quick", action="store_true", help="200 worlds; keeps no result")
    parser.add_argument("--break-one", action="store_true", help="makes one of our answers wrong; keeps no result")
    asked = parser.parse_args()
    if asked.quick:
        asked.worlds = 200
    start = time.perf_counter()
    seeds = until(start + asked.seconds, range(asked.first, asked.first + asked.worlds))
    if asked.against == "given":
        tally = given.compare(asked.data)
    else:
        tally = (against_spicedb if asked.against == "spicedb" else openfga.compare)(seeds, asked.break_one)
    return report(asked, tally, time.perf_counter() - start)


def until(end_seconds: float, seeds: Iterable[int]) -> Iterator[int]:
    """Yields seeds until the time is over."""
    return itertools.takewhile(lambda _: time.perf_counter() < end_seconds, seeds)


def against_spicedb(seeds: Iterable[int], break_one: bool) -> collections.Counter[str]:
    """Compares worlds and prints what is unexplained; returns how many of what there were."""
    tally: collections.Counter[str] = collections.Counter()
    with SpiceDB() as spicedb:
        for seed in seeds:
            world = make(seed)
            message = plain(world)
            spicedb.ask(message)
            ours = broken(message) if break_one and not tally["worlds"] else cupola_side.answer(message)
            theirs = spicedb.hear()
            found = differences(world, ours, theirs, Ask(cupola_side.answer, spicedb.answer))
            tally["worlds"] += theirs is not None
            tally["schemas refused by both"] += bool(ours["schema"]) and bool(theirs and theirs["schema"])
            tally["relationships"] += len(ours["relationships"])
            tally["questions"] += len(ours["answers"]) if theirs is not None else 0
            for one in found:
                tally[one.known or "unexplained"] += 1
                if not one.known and tally["unexplained"] <= MOST_SHOWN:
                    show(seed, world, one, spicedb)
    return tally


def broken(message: Mapping[str, Any]) -> dict[str, Any]:
    """Returns our answers to a world, one of them wrong."""
    answers = cupola_side.answer(dict(message))
    checks = [i for i, question in enumerate(message["questions"]) if question[0] == "check"]
    if not answers["answers"]:
        return answers | {"schema": "", "answers": ["yes"]}
    answers["answers"][checks[0]] = "no" if answers["answers"][checks[0]] == "yes" else "yes"
    return answers


def show(seed: int, world: World, difference: Difference, spicedb: SpiceDB) -> None:
    """Prints a difference in the smallest world that still has it."""
    print(f"seed {seed}: {difference.question}\n  ours   {difference.ours}\n  theirs {difference.theirs}")
    ask = Ask(cupola_side.answer, spicedb.answer)

    def fails(smaller: World) -> bool:
        message = plain(smaller)
        found = differences(smaller, cupola_side.answer(message), spicedb.answer(message), ask)
        return any(not one.known and one.question[0] == difference.question[0] for one in found)

    print(validation_file(shrink(world, fails)) if fails(world) else "(it is not there when asked again)")


def report(asked: argparse.Namespace, tally: Mapping[str, int], seconds: float) -> int:
    """Prints what was found, and returns the exit status."""
    for what, count in tally.items():
        print(f"{count:>9,}  {what}{': ' + KNOWN[what] if what in KNOWN else ''}")
    unexplained = tally["unexplained"]
    print(f"{unexplained} unexplained, in {seconds:.0f} s\n")
    about = f"{asked.against}, seeds from {asked.first}" if asked.against != "given" else "given data"
    rows = [
        harness.Row(f"{about}: {what}", 1.0 + unexplained, 1.0, f"of {count}", "unexplained + 1")
        for what, count in tally.items()
        if what not in KNOWN and what not in ("unexplained", "relationships", "schemas refused by both")
    ]
    keep = not (asked.quick or asked.break_one)
    facts = {"machine": platform.processor() or platform.machine(), "python": platform.python_version()}
    return harness.finish(NAME, rows, passed=not unexplained, facts=facts, keep=keep)


if __name__ == "__main__":
    sys.exit(main())
